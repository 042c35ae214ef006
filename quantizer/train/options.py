"""The table ``[train]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from quantizer.rules import OneOf, Within, check

COSINE, CONSTANT = SCHEDULES = ("cosine", "constant")
CORRECTED, NAIVE, FROZEN = NORMS = ("corrected", "naive", "frozen")
AVERAGE, LEARNED, FIXED = RANGES = ("average", "learned", "fixed")
Share = Annotated[float, Within(0, 1, what="a share of the steps")]


@dataclass(frozen=True)
class Train:
    """Fine-tuning with simulated quantization (arXiv 1806.08342, section 3.2).

    What changes on the way changes at a share of the steps: 0 at once, 1 never. Ranges of weights are the recipe's
    estimate of the weights of every step.
    """

    steps: Annotated[int, Within(0)] = 1000
    """Steps of stochastic gradient descent: a batch each, or a forward pass in training mode."""
    rate: Annotated[float, Within(0, above=True)] = 1e-3
    """The learning rate of the first step."""
    momentum: Annotated[float, Within(0, 1, below=True)] = 0.9
    """Of the descent; an optimizer that ``quartic.train`` is given has its own."""
    decay: Annotated[float, Within(0)] = 0.0
    """Weight decay, of weights alone: not of biases, norms and scales."""
    schedule: Annotated[str, OneOf(SCHEDULES)] = COSINE
    """"cosine" takes the rate to 0 over the steps, "constant" keeps it."""
    norms: Annotated[str, OneOf(NORMS)] = CORRECTED
    """What batch norms do (arXiv 1806.08342, section 3.2.2). "corrected" folds the long-term deviation into the weights
    and undoes it behind their quantization, so that batch statistics normalize without moving the codes; "naive" folds
    every batch's own deviation; "frozen" folds the long-term statistics and never uses a batch's."""
    freeze_norms: Share = 0.5
    """From here on "corrected" norms are as "frozen" ones."""
    ranges: Annotated[str, OneOf(RANGES)] = AVERAGE
    """Of activations, which start as calibrated: follow the "average" of the batches' extremes, are "learned" (the
    step by its gradient, arXiv 1902.08153, eq 3; the zero point stays), or stay "fixed"."""
    constant: Annotated[float, Within(0, 1, above=True)] = 0.01
    """Weight of a new batch in the average of the ranges."""
    freeze_ranges: Share = 0.5
    """From here on all ranges of activations stay."""
    delay: Share = 0.0
    """From here on weights are quantized."""
    delay_activations: Share = 0.0
    """From here on activations are quantized."""
    stochastic: bool = False
    """Round at random in training, up with the probability of the fraction; never after it (section 2.3)."""
    average: Annotated[float, Within(0, 1, below=True)] = 0.0
    """Above 0 the result is the moving average of all that was trained, in which the last step weighs 1 - ``average``:
    with care, since weights end at the edge between two codes (section 3.2.3)."""

    def __post_init__(self) -> None:
        check(self)
