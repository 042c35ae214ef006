"""Where activations have outliers within a channel: the largest magnitude over the 95th percentile of magnitudes.

QuartDepth (arXiv 2503.16709, section 3.2) finds them in the decoder and polishes them away; this looks for them at the
inputs of the convolutions and linear layers of the networks here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

PERCENT = 0.95


@dataclass(frozen=True)
class Outliers:
    """Ratios of the channels of a part, by the mean over images of their largest magnitude and percentile."""

    channels: int
    sparse: int
    """Channels whose percentile is 0, so that most of their values are: they have no ratio."""
    median: float
    tail: float
    """The 90th percentile over channels."""
    most: float
    spread: float
    """Within a layer, the largest magnitude of any channel over that of the median channel; the median of layers."""


def channels_of(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Values by input channel, [C, n]: the second axis of a convolution's input, the last of a linear layer's."""
    axis = x.dim() - 1 if isinstance(layer, nn.Linear) else 1
    return x.movedim(axis, 0).flatten(1)


def magnitudes(model: nn.Module, images: Sequence[torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By the path of a layer: largest magnitude and percentile of each input channel, means over the images."""
    found: dict[str, list[torch.Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda m, x, y, path=path: found.setdefault(path, []).append(_pair(x[0], m)))
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    with torch.no_grad():
        for image in images:
            model(image)
    for hook in hooks:
        hook.remove()
    means = {path: torch.stack(pairs).mean(0) for path, pairs in found.items()}
    return {path: (pair[0], pair[1]) for path, pair in means.items()}


def _pair(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    values = channels_of(x, layer).abs().double()
    return torch.stack([values.amax(1), torch.quantile(values, PERCENT, dim=1)])


def outliers(found: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Outliers:
    """Of layers, as ``magnitudes`` gives them."""
    pairs = list(found.values())
    most, percentile = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    ratios = (most / percentile)[percentile > 0]
    spreads = torch.stack([high.amax() / high.median() for high, _ in pairs])
    median, tail = torch.quantile(ratios, torch.tensor([0.5, 0.9], dtype=ratios.dtype)).tolist()
    sparse = int((percentile == 0).sum())
    return Outliers(len(most), sparse, median, tail, float(ratios.amax()), float(spreads.median()))


def of_network(model: nn.Module, images: Sequence[torch.Tensor]) -> dict[str, Outliers]:
    """Of its encoder and of all behind it, which decodes."""
    found = magnitudes(model, images)
    encoder = {path: pair for path, pair in found.items() if path.startswith("encoder")}
    return {"encoder": outliers(encoder), "decoder": outliers({p: m for p, m in found.items() if p not in encoder})}
