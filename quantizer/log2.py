"""Probabilities in powers of two (QuartDepth, arXiv 2503.16709, eqs 3-4)."""

from __future__ import annotations

from dataclasses import dataclass

from isa.errors import DescriptionError
from quantizer.curves import PowersOfTwo

MOST = 4


@dataclass(frozen=True)
class Log2:
    """The table ``[log2]``: 4-bit results of softmax that a product reads get the codes q = clip(round(-n log2(x/s))).

    ``steps`` are n, per octave: 1 in the paper. ``modules`` are patterns of the paths of the products' modules, or of
    modules around them.
    """

    steps: int = 1
    modules: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST:
            raise DescriptionError(f"steps = {self.steps}: must be in 1 .. {MOST}")

    @property
    def curve(self) -> PowersOfTwo:
        """How values are coded."""
        return PowersOfTwo(self.steps)
