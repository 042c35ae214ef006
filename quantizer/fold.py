"""Scales of activations per channel, folded into weights: a sum of products cannot hold them.

arXiv 1806.08342 leaves activations per tensor because scales per input channel do not factor out; QuartDepth (arXiv
2503.16709) quantizes them per channel all the same. Divided by their scales, all channels share one; the weights'
columns take the scales before they are quantized, and the bias what a shift loses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantizer.channels import Channels, Factors
from quantizer.rules import check


@dataclass(frozen=True)
class Fold:
    """Every channel of what layers read is brought to one range, x' = (x - m) / s, and the weights take s and m: scales
    per channel of activations, folded (QuartDepth, arXiv 2503.16709).

    Ranges are averages over the images of least and largest values; of a channel that no image varies, as behind a mean
    of all positions, the extremes of all images.
    """

    shift: bool = True
    """Move the middles of the ranges to 0 where the layer is linear or a convolution without padding; elsewhere, and
    without it, zero stays zero, and m = 0."""
    modules: tuple[str, ...] = ("*",)
    """Patterns (``fnmatch``) of the layers' paths, or of modules around them; of layers that read one tensor all must
    match."""

    def __post_init__(self) -> None:
        check(self)

    def factors(self, seen: Channels, weights: torch.Tensor, shiftable: bool) -> Factors:
        """For a tensor that was ``seen``; ``shiftable``: whether its readers can undo a shift."""
        low, high = seen.range
        flat = low == high
        low, high = torch.where(flat, seen.low, low), torch.where(flat, seen.high, high)
        if not (self.shift and shiftable):
            scale = torch.maximum(-low, high)
            return Factors(torch.where(scale > 0, scale, 1.0))
        scale = (high - low) / 2
        live = scale > 0  # of a channel that never changes nothing is left but the shift
        return Factors(torch.where(live, scale, 1.0), (low + high) / 2)
