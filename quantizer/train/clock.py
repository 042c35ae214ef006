"""How far a training is, and so what holds in this step."""

from __future__ import annotations

import torch

from quantizer.train.options import CORRECTED, FIXED, FROZEN, Train


class Clock:
    """Counts the steps of a training by ``stage``, for all that changes on the way; draws what is random in it."""

    def __init__(self, stage: Train, seed: int = 0) -> None:
        self.stage = stage
        self.step = -1
        """Of the forward pass in training mode that runs or ran last; -1 before the first."""
        self.seed = seed
        self._generator: torch.Generator | None = None

    def tick(self) -> None:
        """A step begins."""
        self.step += 1

    def passed(self, share: float) -> bool:
        """Whether ``share`` of the steps are over; never if it is 1."""
        return share < 1 and max(self.step, 0) >= share * self.stage.steps

    @property
    def quantizes_weights(self) -> bool:
        """Whether weights are quantized in this step."""
        return self.passed(self.stage.delay)

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations are."""
        return self.passed(self.stage.delay_activations)

    @property
    def moves_ranges(self) -> bool:
        """Whether ranges of activations still change."""
        return self.stage.ranges != FIXED and not self.passed(self.stage.freeze_ranges)

    @property
    def norms(self) -> str:
        """What batch norms do in this step."""
        done = self.stage.norms == CORRECTED and self.passed(self.stage.freeze_norms)
        return FROZEN if done else self.stage.norms

    def noise(self, like: torch.Tensor) -> torch.Tensor | None:
        """Uniform in 0 .. 1, of the shape of ``like``, where rounding is random; else None."""
        if not self.stage.stochastic:
            return None
        if self._generator is None or self._generator.device != like.device:
            self._generator = torch.Generator(like.device).manual_seed(self.seed)
        return torch.rand(like.shape, generator=self._generator, device=like.device)
