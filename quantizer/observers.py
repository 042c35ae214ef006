"""What torchao inserts into a prepared graph: observers that hand what passes to a range estimator of the recipe."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.utils import is_per_channel

from quantizer.quantizers import Grid
from quantizer.ranges import Estimator
from quantizer.statistics import Statistic

SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


class Observer(UniformQuantizationObserverBase):
    """Base: passes tensors on unchanged and gives scale and zero point for the range that ``estimator`` finds."""

    ch_axis: int | None = None
    """The dimension whose every index has a range of its own; None: one range for the whole tensor."""

    def __init__(self, estimator: Estimator, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.estimator = estimator
        self.grid = Grid(self.quant_min, self.quant_max, self.qscheme in SYMMETRIC)
        self.frozen: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def seen(self) -> bool:
        """Whether it has seen anything, or was told."""
        return self.frozen is not None or self._saw()

    def freeze(self, scale: torch.Tensor, zero: torch.Tensor) -> None:
        """Let scale and zero point, [1] or one per channel each, be these from now on, whatever passes."""
        self.frozen = scale.detach().clone(), zero.detach().clone()

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Scale and zero point, [1] or one per channel each: frozen ones, or of the range that was seen."""
        return self.parameters(self.grid) if self.frozen is None else self.frozen

    def _saw(self) -> bool:
        raise NotImplementedError

    def parameters(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point that the codes of ``grid`` have for the range that was seen, stretched to hold 0."""
        raise NotImplementedError

    def broadcast(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point where ``x`` lies, of shapes that broadcast against it."""
        shape = [1] * x.ndim
        if self.ch_axis is not None:
            shape[self.ch_axis] = -1
        scale, zero = (each.to(x.device).reshape(shape) for each in self.calculate_qparams())
        return scale, zero

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        """What the codes leave of ``x``, of its shape: the bits of ``quantizers.simulate``, in one go over it.

        Its gradient is 1 where the range holds ``x`` and 0 elsewhere.
        """
        scale, zero = (each.to(x.device) for each in self.calculate_qparams())
        ends = self.grid.least, self.grid.most
        if self.ch_axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), *ends)
        return torch.fake_quantize_per_channel_affine(x, scale, zero.int(), self.ch_axis, *ends)

    def close_batch(self) -> None:
        """What passed since the last call is one batch, however it was cut to fit the exported shapes."""

    def adopt(self, source: Observer) -> None:
        """Take over what ``source`` has seen, as of its last batch, or was told."""
        self.frozen = source.frozen

    def like(self, other: object) -> bool:
        """Whether ``other`` observes for the same codes and by the same estimator."""
        return type(other) is type(self) and (other.grid, other.estimator) == (self.grid, self.estimator)


class ActivationObserver(Observer):
    """Observes the batches' values of one tensor; its memory does not grow with them."""

    def __init__(self, estimator: Estimator, **kwargs: Any) -> None:
        super().__init__(estimator, **kwargs)
        self.statistic: Statistic = estimator.start()

    def _saw(self) -> bool:
        return self.statistic.seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Observe ``x`` (any shape) and return it unchanged; raises QuantizationError for NaN or infinities."""
        if x.numel():
            self.statistic.add(x.detach())
        return x

    def close_batch(self) -> None:
        """Let what ``forward`` saw since the last call count as one batch."""
        self.statistic.close()

    def adopt(self, source: Observer) -> None:
        """Take over what ``source`` has seen, as of its last batch, or was told."""
        assert isinstance(source, ActivationObserver)
        super().adopt(source)
        source.close_batch()
        self.statistic = copy.deepcopy(source.statistic)

    def parameters(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, [1] each."""
        self.close_batch()
        low, high = self.estimator.of_statistic(self.statistic, grid)
        return grid.parameters(low.reshape(1), high.reshape(1))


class WeightObserver(Observer):
    """Keeps the constant itself, which is one in every batch, for one range of the whole of it."""

    def __init__(self, estimator: Estimator, **kwargs: Any) -> None:
        super().__init__(estimator, **kwargs)
        self.value: torch.Tensor | None = None

    def _saw(self) -> bool:
        return self.value is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Keep ``x`` (not a copy) and return it."""
        self.value = x.detach()
        return x

    def adopt(self, source: Observer) -> None:
        """The weights of one model are the same at any input size."""
        assert isinstance(source, WeightObserver)
        super().adopt(source)
        self.value = source.value

    def parameters(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, [1] each, or one per channel."""
        assert self.value is not None, "convert asks for what was observed"
        rows = self.value.reshape(1, -1) if self.ch_axis is None else self.value.transpose(0, self.ch_axis).flatten(1)
        return grid.parameters(*self.estimator.of_rows(rows, grid))


class PerChannelWeightObserver(WeightObserver):
    """A range for each index of dimension ``ch_axis``. (torchao gives the axis to observers of this name.)"""

    def __init__(self, estimator: Estimator, ch_axis: int, **kwargs: Any) -> None:
        super().__init__(estimator, **kwargs)
        assert is_per_channel(self.qscheme)
        self.ch_axis = ch_axis
