"""Probabilities in powers of two (QuartDepth, arXiv 2503.16709, eqs 3-4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from quantizer.curves import PowersOfTwo
from quantizer.rules import Within, check

MOST = 4


@dataclass(frozen=True)
class Log2:
    """4-bit results of softmax that are the first factor of a product get codes q = clip(round(-n log2(x/s)), 0, 15)
    (QuartDepth, arXiv 2503.16709, eqs 3-4)."""

    steps: Annotated[int, Within(1, MOST)] = 1
    """n, codes per octave: 1 in the paper; 2 uses all 16 codes."""
    modules: tuple[str, ...] = ("*",)
    """Patterns (``fnmatch``) of the paths of the products' modules, or of modules around them."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def curve(self) -> PowersOfTwo:
        """How values are coded."""
        return PowersOfTwo(self.steps)
