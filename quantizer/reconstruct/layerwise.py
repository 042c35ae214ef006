"""The rounding of one layer, by what its quantized inputs and the metric of its outputs are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantizer.gptq import gptq
from quantizer.reconstruct.moments import Moments
from quantizer.reconstruct.options import ADAROUND, GPTQ, NEAREST, OUTPUT, Round
from quantizer.reconstruct.quadratic import Quadratic
from quantizer.reconstruct.rounding import Codes, SoftRounding, learn, scaled
from quantizer.second_order import damped


@dataclass(frozen=True)
class Rounded:
    """Codes, and the error of a unit with the nearest ones and with these; both without what no rounding changes."""

    codes: list[torch.Tensor]
    nearest: float
    found: float


def round_layer(
    weight: torch.Tensor,
    original: torch.Tensor,
    moments: Moments,
    outputs: torch.Tensor | None,
    codes: Codes,
    how: Round,
) -> Rounded:
    """Codes of ``weight`` [groups, out, in], which stands for ``original``, the float model's; ``outputs`` is G.

    The nearest ones where what was learned is no better than they. Raises QuantizationError for moments that are not
    finite.
    """
    nearest = codes.nearest(weight)
    if how.method == NEAREST:
        return Rounded([nearest], 0.0, 0.0)
    error = _error(weight, original, moments, outputs, how)
    if how.method == GPTQ:
        scale, zero = codes.scale.squeeze(-1), codes.zero.squeeze(-1)
        found = gptq(weight, moments.gram, scale, zero, codes.grid, damping=how.damping)
    else:
        found = _learned(weight, error, codes, how)
    before, after = (error.value(codes.values(each) - weight) for each in (nearest, found))
    return Rounded([found], before, after) if after <= before else Rounded([nearest], before, before)


def _error(
    weight: torch.Tensor, original: torch.Tensor, moments: Moments, outputs: torch.Tensor | None, how: Round
) -> Quadratic:
    """Damping adds to H, and to a full G, that share of the mean of its diagonal."""
    cross, gram = moments.mixed(how.drop if how.method == ADAROUND else 1.0)
    residual = weight @ gram - original @ cross if how.target == OUTPUT else torch.zeros_like(weight)
    if outputs is not None and outputs.shape[-1] > 1:
        outputs = damped(outputs, how.damping).float()
    return Quadratic(outputs, damped(gram, how.damping).float(), residual)


def _learned(weight: torch.Tensor, error: Quadratic, codes: Codes, how: Round) -> torch.Tensor:
    soft = SoftRounding(weight, codes)
    scale = scaled(error.of(codes.values(codes.nearest(weight)) - weight), weight.numel())

    def pull(_: int, weights: list[torch.Tensor]) -> None:
        (now,) = weights
        now.backward(scale * error.gradient(now.detach() - weight))

    learn([soft], how, pull)
    return soft.hard()
