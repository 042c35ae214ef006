"""Rows that differ in the draw of calibration scenes alone, as one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FIELDS = ("abs_rel", "delta1", "delta2", "delta3", "rmse", "silog")
HELD_OUT = "held out"
STUDIED = "vit"
"""The network of the ablation and of Fig. 8: what LogNP scales in the U-Net's decoder, its encoder reads too."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """The rows of one network, width, method and number of calibration scenes."""

    network: str
    width: str
    method: str
    images: int
    rows: tuple[Row, ...]

    def values(self, field: str, scenes: str = HELD_OUT) -> list[float]:
        """A metric on a set of scenes, by draw."""
        return [row["metrics"][scenes][field] for row in self.rows]

    def mean(self, field: str, scenes: str = HELD_OUT) -> float:
        """Over the draws."""
        return statistics.fmean(self.values(field, scenes))

    def spread(self, field: str, scenes: str = HELD_OUT) -> float:
        """Standard deviation over the draws, as of a sample; 0 of one draw."""
        values = self.values(field, scenes)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def told(self, field: str, scenes: str = HELD_OUT, digits: int = 4) -> str:
        """Mean and spread in words; the mean alone of one draw."""
        mean = f"{self.mean(field, scenes):.{digits}f}"
        return f"{mean} ± {self.spread(field, scenes):.{digits}f}" if len(self.rows) > 1 else mean

    @property
    def seconds(self) -> float:
        """CPU seconds that quantizing took, the mean of the draws."""
        return statistics.fmean(row["quantize seconds"] for row in self.rows)

    @property
    def exact(self) -> str:
        """Whether the simulator gave the reference's bits, where it was asked."""
        asked = [row["exact"] for row in self.rows if "exact" in row]
        return "" if not asked else "yes" if all(asked) else "**no**"


Groups = dict[tuple[str, str, str, int], Group]


def groups(rows: Iterable[Row]) -> Groups:
    """Rows without an error, by network, width, method and number of scenes; draws in order."""
    found: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in sorted((row for row in rows if "error" not in row), key=lambda row: row["seed"]):
        found.setdefault((row["network"], row["width"], row["method"], row["images"]), []).append(row)
    return {key: Group(*key, tuple(each)) for key, each in found.items()}
