"""SmoothQuant: outliers of activations move into weights (arXiv 2211.10438, eq 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from quantizer.channels import Channels, Factors
from quantizer.rules import Within, check

LEAST = 1e-5
"""Smallest factor, as in the paper's code."""


@dataclass(frozen=True)
class Smooth:
    """Channel i of what layers read is divided by s_i = max|x_i|^alpha / max|w_i|^(1 - alpha), and the weights take it
    (SmoothQuant, arXiv 2211.10438, eq 4)."""

    alpha: Annotated[float, Within(0, 1)] = 0.5
    """1 moves all differences between channels into the weights, 0 all out of them."""
    modules: tuple[str, ...] = ("*",)
    """Patterns (``fnmatch``) of the layers' paths, or of modules around them; of layers that read one tensor all must
    match."""

    def __post_init__(self) -> None:
        check(self)

    def factors(self, seen: Channels, weights: torch.Tensor, shiftable: bool) -> Factors:
        """For a tensor that was ``seen``, whose readers' largest weights of every channel are ``weights``, [C]."""
        scale = seen.largest**self.alpha / weights.clamp(min=LEAST) ** (1 - self.alpha)
        return Factors(torch.where((seen.largest > 0) & (weights > 0), scale.clamp(min=LEAST), 1.0))
