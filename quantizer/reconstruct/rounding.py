"""AdaRound (Nagel et al., arXiv 2004.10568): for every weight, learn whether it is rounded up or down.

w_hat = s (clip(floor(w / s) + r(v) + z) - z) with r(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), which Adam moves to lower an
error of w_hat plus ``regulariser`` * sum(1 - |2 r(v) - 1|^beta). The falling beta lets every r find its way before it
drives all of them to 0 or 1. In the end a weight is rounded up where r(v) >= 1/2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from quantizer.quantizers import Grid, dequantize, inverse, quantize
from quantizer.reconstruct.options import Round

LOW, HIGH = -0.1, 1.1
"""Between these the sigmoid is stretched, so that 0 and 1 are reached."""
SHARE = 1e-5
"""What nearest rounding's error is scaled to, per weight, so that one regulariser fits every layer and metric. Without
scaling, layers of the depth model of benchmarks/depth have 1e-10 to 4e-4, most around this."""


@dataclass(frozen=True)
class Codes:
    """The codes that a weight may take; ``scale`` and ``zero`` broadcast against it."""

    scale: torch.Tensor
    zero: torch.Tensor
    grid: Grid

    def nearest(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest codes, as the machine rounds."""
        return quantize(weight, self.scale, self.zero, self.grid)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes stand for."""
        return dequantize(codes, self.scale, self.zero)


class SoftRounding:
    """A weight between the codes below and above each of its values; ``v`` says where."""

    def __init__(self, weight: torch.Tensor, codes: Codes) -> None:
        steps = weight * inverse(codes.scale)
        self.codes = codes
        self.below = steps.floor() + codes.zero
        share = (steps - steps.floor()).clamp(1e-4, 1 - 1e-4)
        self.v = torch.log((share - LOW) / (HIGH - share)).requires_grad_()

    def up(self) -> torch.Tensor:
        """r(v): the share of the way from the code below to the one above."""
        return rectified(self.v)

    def weight(self, up: torch.Tensor) -> torch.Tensor:
        """w_hat, which a gradient passes through."""
        grid, zero = self.codes.grid, self.codes.zero
        return (torch.clamp(self.below + up, grid.least, grid.most) - zero) * self.codes.scale

    def hard(self) -> torch.Tensor:
        """The codes that were decided for."""
        grid = self.codes.grid
        found = torch.clamp(self.below + (self.up().detach() >= 0.5), grid.least, grid.most)
        return found.to(grid.dtype)


def rectified(v: torch.Tensor) -> torch.Tensor:
    """r(v)."""
    return torch.clamp(torch.sigmoid(v) * (HIGH - LOW) + LOW, 0, 1)


def undecided(up: torch.Tensor, beta: float) -> torch.Tensor:
    """Sum of 1 - |2 r - 1|^beta."""
    return (1 - (2 * up - 1).abs().pow(beta)).sum()


def beta_at(step: int, how: Round) -> float | None:
    """The exponent at a step, linear after the warm-up; None during it."""
    warm = how.warm_up * how.iterations
    if step < warm:
        return None
    return how.beta_first + (how.beta_last - how.beta_first) * (step - warm) / max(how.iterations - warm, 1)


def scaled(nearest: float, weights: int) -> float:
    """By what to multiply an error that is ``nearest`` for nearest rounding of so many weights."""
    return SHARE * weights / max(nearest, torch.finfo().tiny)


@torch.enable_grad()
def learn(soft: list[SoftRounding], how: Round, pull: Callable[[int, list[torch.Tensor]], None]) -> None:
    """Move every ``v``. ``pull(step, weights)`` backpropagates the error of the weights at a step."""
    optimiser = torch.optim.Adam([each.v for each in soft], lr=how.rate)
    for step in range(how.iterations):
        optimiser.zero_grad()
        shares = [each.up() for each in soft]
        beta = beta_at(step, how)
        if beta is not None:
            cost = torch.stack([undecided(share, beta) for share in shares]).sum()
            (how.regulariser * cost).backward(retain_graph=True)
        pull(step, [each.weight(share) for each, share in zip(soft, shares, strict=True)])
        optimiser.step()
