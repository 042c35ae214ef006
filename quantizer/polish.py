"""LogNP polishing: 4-bit codes that are dense where values are (QuartDepth, arXiv 2503.16709, eqs 5-7).

Phi(x) = sign(x) log2(1 + |x|/a) with a percentile a_i of |x_i| for every channel. Divided by a_i, which the weights'
columns take, all channels share Phi(y) = sign(y) log2(1 + |y|), and so one codebook of 16 values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from quantizer.channels import Channels, Factors
from quantizer.rules import OneOf, Within, check

MODULES, OUTLIERS, ERROR = WHERE = ("modules", "outliers", "error")


@dataclass(frozen=True)
class Polish:
    """4-bit operands of layers get codes that are dense where values are, LogNP: even in sign(x) log2(1 + |x|/a_i), a_i
    of each channel (QuartDepth, arXiv 2503.16709, eqs 5-7); wider ones are only divided by a_i."""

    percent: Annotated[float, Within(0, 100, above=True)] = 95.0
    """a_i is this percentile of |x_i|, averaged over the images."""
    floor: Annotated[float, Within(0, 1, above=True)] = 0.02
    """a_i is at least this share of the channel's largest magnitude: of a channel of mostly zeros the percentile is
    0."""
    alpha: Annotated[float, Within(0, 1)] = 1.0
    """How much of the differences between the channels' a_i the weights take, whose own codes they make coarser: 1, all
    of them, is the paper's; 0 is one factor, the geometric mean, for all."""
    where: Annotated[str, OneOf(WHERE)] = MODULES
    """Of the layers of ``modules`` all ("modules"), those with "outliers", or those whose output gets nearer to the
    float layer's by it ("error"), by trial on the first 8 calibration pieces."""
    threshold: Annotated[float, Within(0)] = 4.0
    """Of "outliers": largest magnitudes of a layer's channels over their a_i, in the median, from which on it is
    polished."""
    modules: tuple[str, ...] = ("*decoder*", "*head*")
    """Patterns (``fnmatch``) of the layers' paths, or of modules around them; of layers that read one tensor all must
    match. By default what sounds like a decoder, as in the paper."""

    def __post_init__(self) -> None:
        check(self)

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
