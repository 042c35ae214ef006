"""Channels scaled up here and down behind, which changes no result in float: what makes ranges differ on purpose.

Batch norms leave the kernels of large MobileNets at very different ranges. Those of a network that was trained for a
minute are alike, and so the finding that one scale for all of them collapses (arXiv 1806.08342, Table 2) has no cause.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

OCTAVES = 3.0
"""Factors are 2^u, u uniform within +- this."""


@torch.no_grad()
def rescaled(model: nn.Module, seed: int, octaves: float = OCTAVES) -> nn.Module:
    """A copy that computes the same: behind each ReLU channels are larger, and the next weights smaller, by a factor.

    For a chain of ``ConvNorm`` with ReLU, for which relu(a x) = a relu(x) with a > 0. Raises ValueError without one.
    """
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    pairs = list(_pairs(model))
    if not pairs:
        raise ValueError("no two convolutions follow each other behind a ReLU")
    for norm, after in pairs:
        factor = torch.exp2(octaves * (2 * torch.rand(norm.num_features, generator=generator) - 1))
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
        after.weight.div_(factor.view(-1, 1, 1, 1) if after.groups > 1 else factor.view(1, -1, 1, 1))
    return model


def _pairs(model: nn.Module) -> Iterator[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """The norm of each block of convolution, norm and ReLU, and the convolution of the block behind it."""
    for first, second in pairwise(model.children()):
        match [*first.children()], [*second.children()]:
            case [nn.Conv2d(), nn.BatchNorm2d() as norm, nn.ReLU()], [nn.Conv2d() as after, *_]:
                yield norm, after
            case _:
                pass
