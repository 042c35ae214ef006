"""Fake quantizers: what quantization leaves of a tensor, with a gradient that looks past the rounding."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from quantizer.coding import CodebookObserver
from quantizer.observers import Observer
from quantizer.quantizers import EPS, Grid, inverse
from quantizer.train.clock import Clock
from quantizer.train.options import LEARNED


class StraightThrough(torch.autograd.Function):
    """Forward ``dequantize(quantize(x))``, backward as ``clamp`` (arXiv 1806.08342, section 2.4).

    The gradient of ``x`` passes where its nearest code is one of the grid, within half a step of the range, and is 0
    elsewhere. That of ``scale``, where one is asked for, is LSQ's (arXiv 1902.08153, equation 3): rounding error in
    steps inside, the outermost code outside, normalized by 1 / sqrt(elements per scale * outermost code).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid, noise: torch.Tensor | None
    ) -> torch.Tensor:
        """``scale`` and ``zero`` broadcast against ``x``; with ``noise`` in 0 .. 1 of its shape, rounding is random."""
        low, high = (grid.least - zero).float(), (grid.most - zero).float()
        steps = x * inverse(scale)
        rounded = torch.round(steps) if noise is None else (steps + noise).floor_()
        codes = torch.clamp(rounded, low, high)
        inside = codes == rounded
        error = torch.where(inside, codes - steps, codes) if ctx.needs_input_grad[1] else None
        most = (grid.levels - 1) / (1 + grid.symmetric)
        ctx.normal = (scale.numel() / (max(x.numel(), 1) * most)) ** 0.5
        ctx.shape = scale.shape
        ctx.save_for_backward(inside, error)
        return codes.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Of ``x`` and ``scale``."""
        inside, error = ctx.saved_tensors
        of_x = gradient * inside if ctx.needs_input_grad[0] else None
        of_scale = None
        if error is not None:
            of_scale = (gradient * error).sum_to_size(ctx.shape) * ctx.normal
        return of_x, of_scale, None, None, None


def shaped(values: torch.Tensor, axis: int | None, like: torch.Tensor) -> torch.Tensor:
    """[C] of the indices of dimension ``axis`` of ``like``, or [1] of all of it, to broadcast against it."""
    return values if axis is None else values.view([-1 if i == axis else 1 for i in range(like.dim())])


class ActivationQuantizer(nn.Module):
    """In place of an activation's observer: starts at the observer's range and moves as the stage says."""

    scale: torch.Tensor
    zero: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, observer: Observer, clock: Clock) -> None:
        super().__init__()
        self.grid: Grid = observer.grid
        self.clock = clock
        scale, zero = observer.calculate_qparams()
        if clock.stage.ranges == LEARNED:
            self.scale = nn.Parameter(scale.clone())
        else:
            self.register_buffer("scale", scale.clone())
        self.register_buffer("zero", zero.clone())
        self.register_buffer("low", (self.grid.least - zero) * scale)
        self.register_buffer("high", (self.grid.most - zero) * scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What quantization leaves of ``x``, any shape; ``x`` itself in a training that has not come to it."""
        learns, clock = isinstance(self.scale, nn.Parameter), self.clock
        moves = self.training and clock.moves_ranges
        if moves and not learns and x.numel():
            self._follow(x.detach())
        if self.training and not clock.quantizes_activations:
            return x
        scale = self.scale.clamp(min=EPS) if moves else self.scale.detach().clamp(min=EPS)
        noise = clock.noise(x) if self.training else None
        return StraightThrough.apply(x, scale, self.zero, self.grid, noise)  # type: ignore[no-any-return]

    def parameters_now(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, [1] each."""
        return self.scale.detach().clamp(min=EPS), self.zero

    def _follow(self, x: torch.Tensor) -> None:
        weight = self.clock.stage.constant
        for end, seen in zip((self.low, self.high), torch.aminmax(x), strict=True):
            end += weight * (seen - end)
        scale, zero = self.grid.parameters(self.low, self.high)
        self.scale.copy_(scale)
        self.zero.copy_(zero)


class Through(torch.autograd.Function):
    """Passes ``y`` on, and the gradient to ``x`` where ``inside``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """``y``, of the shape of ``x``."""
        ctx.save_for_backward(inside)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Of ``x``."""
        return gradient * ctx.saved_tensors[0], None, None


class CodebookQuantizer(nn.Module):
    """In place of the observer of a tensor with a codebook, which stays as calibrated."""

    def __init__(self, observer: CodebookObserver, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.book = observer.codebook()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the codes leave of ``x``; the gradient passes between the outermost values of the table."""
        if self.training and not self.clock.quantizes_activations:
            return x
        low, *_, high = ((entry - self.book.zero) * self.book.scale for entry in self.book.entries)
        return Through.apply(x, self.book.simulate(x.detach()), (x >= low) & (x <= high))  # type: ignore[no-any-return]


class WeightQuantizer(nn.Module):
    """In place of a weight's observer: quantizes by the observer's estimate of the weight as it is."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        super().__init__()
        self.observer = copy.deepcopy(observer)  # the graph's own is frozen at the end
        self.clock = clock

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """What quantization leaves of ``weight``; itself in a training that has not come to it."""
        if self.training and not self.clock.quantizes_weights:
            return weight
        observer = self.observer
        scale, zero = (shaped(each, observer.ch_axis, weight) for each in self.parameters_of(weight))
        noise = self.clock.noise(weight) if self.training else None
        return StraightThrough.apply(weight, scale, zero, observer.grid, noise)  # type: ignore[no-any-return]

    @torch.no_grad()
    def parameters_of(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, [1] each or one per channel."""
        self.observer(weight)
        return self.observer.calculate_qparams()
