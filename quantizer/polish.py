"""LogNP polishing: 4-bit codes that are dense where values are (QuartDepth, arXiv 2503.16709, eqs 5-7).

Phi(x) = sign(x) log2(1 + |x|/a) with a percentile a_i of |x_i| for every channel. Divided by a_i, which the weights'
columns take, all channels share Phi(y) = sign(y) log2(1 + |y|), and so one codebook of 16 values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isa.errors import DescriptionError
from quantizer.channels import Channels, Factors
from quantizer.checks import check_finite

MODULES, OUTLIERS, ERROR = WHERE = ("modules", "outliers", "error")


@dataclass(frozen=True)
class Polish:
    """The table ``[polish]``: 4-bit operands of layers are polished; wider ones are only divided by a_i.

    a_i is the average over the images of the ``percent``-th percentile of |x_i|, and at least ``floor`` of the
    channel's largest magnitude: of a channel of mostly zeros the percentile is 0. ``alpha`` is how much of the
    differences between the channels' factors the weights take, whose own codes they make coarser: 1, all of them, is
    the paper's; 0 is one factor, the geometric mean, for all. ``modules`` are patterns of the layers' paths, or of
    modules around them: by default what sounds like a decoder, as in the paper. ``where`` = "outliers" takes of these
    the layers whose channels' largest magnitudes are in the median ``threshold`` times a_i or more: a mean would be
    that of a few channels that are nearly always 0. "error" takes those whose output gets nearer to the float layer's,
    by trial on calibration inputs (``quantizer.trial``).
    """

    percent: float = 95.0
    floor: float = 0.02
    alpha: float = 1.0
    where: str = MODULES
    threshold: float = 4.0
    modules: tuple[str, ...] = ("*decoder*", "*head*")

    def __post_init__(self) -> None:
        check_finite(self)
        if not 0 < self.percent <= 100:
            raise DescriptionError(f"percent = {self.percent}: must be above 0 and at most 100")
        if not 0 < self.floor <= 1:
            raise DescriptionError(f"floor = {self.floor}: must be above 0 and at most 1")
        if not 0 <= self.alpha <= 1:
            raise DescriptionError(f"alpha = {self.alpha}: must be in 0 .. 1")
        if self.where not in WHERE:
            raise DescriptionError(f"where = {self.where!r}: must be one of {', '.join(map(repr, WHERE))}")

    def factors(self, seen: Channels, weights: torch.Tensor, shiftable: bool) -> Factors | str:
        """For a tensor that was ``seen``; or why it is not polished."""
        factor = torch.maximum(seen.percentile(self.percent), self.floor * seen.largest)
        live = factor > 0
        if self.where == OUTLIERS:
            ratio = (seen.largest[live] / factor[live]).median().item() if live.any() else 0.0
            if ratio < self.threshold:
                return f"its largest magnitudes are {ratio:.2f} times the percentile, less than {self.threshold:g}"
        mean = factor[live].log().mean().exp() if live.any() else torch.ones(())
        return Factors(torch.where(live, mean * (factor / mean) ** self.alpha, mean))
