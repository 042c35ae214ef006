"""SmoothQuant: outliers of activations move into weights (arXiv 2211.10438, eq 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isa.errors import DescriptionError
from quantizer.channels import Channels, Factors

LEAST = 1e-5
"""Smallest factor, as in the paper's code."""


@dataclass(frozen=True)
class Smooth:
    """The table ``[smooth]``: channel i of what layers read is divided by s_i = max|x_i|^alpha / max|w_i|^(1 - alpha).

    ``alpha`` 1 moves all differences between channels into the weights, 0 all out of them. ``modules`` are patterns of
    the layers' paths, or of modules around them.
    """

    alpha: float = 0.5
    modules: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise DescriptionError(f"alpha = {self.alpha}: must be in 0 .. 1")

    def factors(self, seen: Channels, weights: torch.Tensor, shiftable: bool) -> Factors:
        """For a tensor that was ``seen``, whose readers' largest weights of every channel are ``weights``, [C]."""
        scale = seen.largest**self.alpha / weights.clamp(min=LEAST) ** (1 - self.alpha)
        return Factors(torch.where((seen.largest > 0) & (weights > 0), scale.clamp(min=LEAST), 1.0))
