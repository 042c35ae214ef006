"""What a calibration says of the channels of tensors, image by image, and what is to become of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from isa.errors import QuantizationError
from quantizer.checks import Named
from quantizer.statistics import rank


@dataclass(frozen=True)
class Factors:
    """What becomes of the channels of an operand, [C] each, binary64: x' = (x - ``shift``) / ``scale``."""

    scale: torch.Tensor
    shift: torch.Tensor | None = None


class Channels:
    """Of every channel of one tensor: extremes over all images, and averages over images of what each has.

    An image is an index of dimension 0. ``percents`` are of the magnitudes, of 0 .. 100. All is [C], binary64, on
    the CPU.
    """

    def __init__(self, axis: int, percents: Sequence[float] = ()) -> None:
        self.axis = axis
        self.images = 0
        self.low = torch.tensor(torch.inf, dtype=torch.float64)
        self.high = torch.tensor(-torch.inf, dtype=torch.float64)
        self._lows = self._highs = torch.tensor(0.0, dtype=torch.float64)
        self._percentiles = {percent: torch.tensor(0.0, dtype=torch.float64) for percent in percents}

    def add(self, x: torch.Tensor) -> None:
        """Take in images [N, ...]. Raises QuantizationError for NaN and infinities."""
        x = x.detach() if self.axis else x.detach().unsqueeze(0)
        rows = x.unsqueeze(-1).movedim(max(self.axis, 1), 1).flatten(2)
        low, high = rows.amin(2).cpu().double(), rows.amax(2).cpu().double()
        if not (low.isfinite().all() and high.isfinite().all()):
            raise QuantizationError(
                f"a calibration batch made an activation of shape {tuple(x.shape)} that is not finite: "
                "check the batch and the model for overflow or NaN"
            )
        self.images += len(rows)
        self.low, self.high = torch.minimum(self.low, low.amin(0)), torch.maximum(self.high, high.amax(0))
        self._lows, self._highs = self._lows + low.sum(0), self._highs + high.sum(0)
        magnitudes = rows.abs()
        for percent, sums in self._percentiles.items():
            place = rank(percent / 100, rows.shape[2])
            self._percentiles[percent] = sums + magnitudes.kthvalue(place, 2).values.cpu().double().sum(0)

    @property
    def largest(self) -> torch.Tensor:
        """Largest magnitudes of all images."""
        return torch.maximum(-self.low, self.high)

    @property
    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Averages over images of the least and the largest values."""
        return self._lows / self.images, self._highs / self.images

    def percentile(self, percent: float) -> torch.Tensor:
        """The average over images of the magnitude that ``percent`` of an image's values do not exceed."""
        return self._percentiles[percent] / self.images


def observe(
    graph: GraphModule, pieces: Iterable[tuple[torch.Tensor, ...]], axes: dict[Node, int], percents: Sequence[float]
) -> dict[Node, Channels]:
    """Run ``pieces``, one tensor per input each, through a float graph and look at the channels of some tensors.

    ``axes`` are these tensors and their channel dimensions. Raises QuantizationError for no pieces at all.
    """
    seen = {node: Channels(axis, percents) for node, axis in axes.items()}
    looking = _Looking(graph, seen)
    ran = False
    with torch.no_grad():
        for piece in pieces:
            looking.run(*piece)
            ran = True
    if not ran:
        raise QuantizationError("the calibration set is empty: give at least one batch of representative inputs")
    return seen


class _Looking(Named):
    def __init__(self, graph: GraphModule, seen: dict[Node, Channels]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.seen = seen

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n in self.seen:
            assert isinstance(value, torch.Tensor), "operands are tensors"
            self.seen[n].add(value)
        return value
