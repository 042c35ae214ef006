"""The tables ``[compensate]`` and ``[round]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from isa.errors import DescriptionError
from quantizer.checks import check_finite

NEAREST, ADAROUND, GPTQ = METHODS = ("nearest", "adaround", "gptq")
LAYER, BLOCK = SCOPES = ("layer", "block")
MSE, FISHER, KFAC = METRICS = ("mse", "fisher", "kfac")
OUTPUT, WEIGHT = TARGETS = ("output", "weight")


@dataclass(frozen=True)
class Compensate:
    """Weights that undo what quantized inputs change, in closed form (QuartDepth, arXiv 2503.16709, eqs 8-10).

    ``damping`` is relative to the mean of the diagonal of the inputs' second moments.
    """

    damping: float = 0.01

    def __post_init__(self) -> None:
        check_finite(self)
        _at_least("damping", self.damping, 0)


@dataclass(frozen=True)
class Round:
    """How weights are rounded, with the ranges of ``[weight]``.

    ``method``: to the nearest code; "adaround" learns for each whether up or down (arXiv 2004.10568); "gptq" goes
    column by column and lets the later ones make up for it (arXiv 2210.17323). ``scope`` is what an error is measured
    behind: every layer, or blocks as in BRECQ (arXiv 2102.05426). ``metric`` weighs the error there: equally, by the
    squared gradient, or by QuartDepth's Kronecker factors (arXiv 2503.16709, eqs 13-17). ``target``: the float
    model's output, or that of the layer's own weight for the same quantized inputs, as in eq 17. The rest is of
    "adaround": steps of Adam and their ``rate``, weight of the ``regulariser`` that drives decisions to 0 or 1 after
    the share ``warm_up``, with an exponent from ``beta_first`` to ``beta_last``; the probability ``drop`` that an
    element of an activation is the quantized one (QDrop, arXiv 2203.05740); the ``batch`` per step, in pieces of the
    exported size, in blocks. ``damping`` is of the second moments of inputs and gradients, relative to their mean.
    """

    method: str = ADAROUND
    scope: str = LAYER
    metric: str = MSE
    target: str = OUTPUT
    iterations: int = 2000
    rate: float = 1e-3
    regulariser: float = 0.01
    warm_up: float = 0.2
    beta_first: float = 20.0
    beta_last: float = 2.0
    drop: float = 0.5
    batch: int = 1
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_finite(self)
        for name, known in {"method": METHODS, "scope": SCOPES, "metric": METRICS, "target": TARGETS}.items():
            if (value := getattr(self, name)) not in known:
                raise DescriptionError(f"{name} = {value!r}: must be one of {', '.join(map(repr, known))}")
        for name in ("iterations", "batch"):
            _at_least(name, getattr(self, name), 1)
        for name in ("regulariser", "warm_up", "drop", "damping"):
            _at_least(name, getattr(self, name), 0)
        for name in ("warm_up", "drop"):
            if getattr(self, name) > 1:
                raise DescriptionError(f"{name} = {getattr(self, name)}: must be at most 1")
        if self.rate <= 0:
            raise DescriptionError(f"rate = {self.rate}: must be above 0")
        if not self.beta_first >= self.beta_last > 1:
            raise DescriptionError(
                f"beta_first = {self.beta_first}, beta_last = {self.beta_last}: must fall, and end above 1"
            )
        if self.scope == BLOCK and self.method != ADAROUND:
            raise DescriptionError(f"method = {self.method!r} is of layers: say scope = 'layer', or 'adaround'")
        if self.scope == BLOCK and (self.metric == KFAC or self.target == WEIGHT):
            key, value = ("metric", KFAC) if self.metric == KFAC else ("target", WEIGHT)
            raise DescriptionError(f"{key} = {value!r} is of layers: say scope = 'layer', or another {key}")

    @property
    def needs_gradients(self) -> bool:
        """Whether the metric is made from gradients of the loss."""
        return self.method == ADAROUND and self.metric != MSE


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise DescriptionError(f"{name} = {value}: must be at least {least}")
