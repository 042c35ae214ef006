"""The table ``[train]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from isa.errors import DescriptionError
from quantizer.checks import check_finite

COSINE, CONSTANT = SCHEDULES = ("cosine", "constant")
CORRECTED, NAIVE, FROZEN = NORMS = ("corrected", "naive", "frozen")
AVERAGE, LEARNED, FIXED = RANGES = ("average", "learned", "fixed")
SHARES = ("freeze_norms", "freeze_ranges", "delay", "delay_activations")


@dataclass(frozen=True)
class Train:
    """Fine-tuning with simulated quantization (arXiv 1806.08342, section 3.2).

    ``steps`` of stochastic gradient descent at ``rate``, which a "cosine" ``schedule`` takes to 0, with ``momentum``
    and ``decay`` of the weights. What changes on the way changes at a share of the steps: 0 at once, 1 never.

    Weights are quantized from ``delay`` on, activations from ``delay_activations``. ``ranges`` of activations start as
    calibrated; they follow the "average" of the batches' extremes, a new batch weighing ``constant``, are "learned"
    (the step by its gradient, arXiv 1902.08153; the zero point stays), or stay "fixed"; from ``freeze_ranges`` on all
    stay. Those of weights are the recipe's estimate of the weights of every step. ``norms`` is what batch norms do:
    "corrected" folds the long-term deviation into the weights and undoes it behind the product, so that batch
    statistics normalize without moving the codes, and from ``freeze_norms`` on folds the long-term statistics alone;
    "naive" folds every batch's own; "frozen" never uses a batch's (section 3.2.2). ``stochastic`` rounds at random in
    training, never after it. ``average`` above 0 gives, at the end, the moving average of the weights in which the
    last step weighs 1 - ``average``: with care, since weights end at the edge between two codes (section 3.2.3).
    """

    steps: int = 1000
    rate: float = 1e-3
    momentum: float = 0.9
    decay: float = 0.0
    schedule: str = COSINE
    norms: str = CORRECTED
    freeze_norms: float = 0.5
    ranges: str = AVERAGE
    constant: float = 0.01
    freeze_ranges: float = 0.5
    delay: float = 0.0
    delay_activations: float = 0.0
    stochastic: bool = False
    average: float = 0.0

    def __post_init__(self) -> None:
        check_finite(self)
        for name, known in {"schedule": SCHEDULES, "norms": NORMS, "ranges": RANGES}.items():
            if (value := getattr(self, name)) not in known:
                raise DescriptionError(f"{name} = {value!r}: must be one of {', '.join(map(repr, known))}")
        for name in ("steps", "decay"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _require(self.rate > 0, "rate", self.rate, "above 0")
        for name in SHARES:
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share of the steps, in 0 .. 1")
        _require(0 < self.constant <= 1, "constant", self.constant, "above 0 and at most 1")
        for name in ("momentum", "average"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")


def _require(ok: bool, name: str, value: float, rule: str) -> None:
    if not ok:
        raise DescriptionError(f"{name} = {value}: must be {rule}")
