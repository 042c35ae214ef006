"""The tables ``[compensate]`` and ``[round]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from isa.errors import DescriptionError
from quantizer.rules import OneOf, Within, check

NEAREST, ADAROUND, GPTQ = METHODS = ("nearest", "adaround", "gptq")
LAYER, BLOCK = SCOPES = ("layer", "block")
MSE, FISHER, KFAC = METRICS = ("mse", "fisher", "kfac")
OUTPUT, WEIGHT = TARGETS = ("output", "weight")


@dataclass(frozen=True)
class Compensate:
    """Weights that undo what quantized inputs change, in closed form (QuartDepth, arXiv 2503.16709, eqs 8-10)."""

    damping: Annotated[float, Within(0)] = 0.01
    """Added to the diagonal of the second moments of a layer's inputs, as a share of its mean."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Round:
    """How weights are rounded, with the ranges of ``[weight]``; nearest codes where what was found is no better."""

    method: Annotated[str, OneOf(METHODS)] = ADAROUND
    """"nearest" code; "adaround" learns for each weight whether it goes up or down (arXiv 2004.10568); "gptq" goes
    column by column and lets the later ones make up for it (arXiv 2210.17323)."""
    scope: Annotated[str, OneOf(SCOPES)] = LAYER
    """What an error is measured behind: every "layer", or every "block", the smallest module that repeats, as in BRECQ
    (arXiv 2102.05426); blocks are for "adaround" alone."""
    metric: Annotated[str, OneOf(METRICS)] = MSE
    """Of "adaround": how an error there counts: "mse" all the same, "fisher" by the squared gradient of the loss
    (arXiv 2102.05426), "kfac" by QuartDepth's Kronecker factors (arXiv 2503.16709, eqs 13-17), for layers alone."""
    target: Annotated[str, OneOf(TARGETS)] = OUTPUT
    """What a layer is compared with: the float model's "output", or what its own "weight" in binary32 gives for the
    same quantized inputs (arXiv 2503.16709, eq 17); of blocks it is the output."""
    iterations: Annotated[int, Within(1)] = 2000
    """Of "adaround": steps of Adam for every unit; the papers take 20,000."""
    rate: Annotated[float, Within(0, above=True)] = 1e-3
    """Of "adaround": the learning rate of Adam."""
    regulariser: Annotated[float, Within(0)] = 0.01
    """Of "adaround": weight of what drives decisions to 0 or 1, beside nearest rounding's error scaled to 1e-5 per
    weight (arXiv 2004.10568)."""
    warm_up: Annotated[float, Within(0, 1)] = 0.2
    """Of "adaround": share of the iterations before the regulariser starts."""
    beta_first: float = 20.0
    """Of "adaround": the regulariser's exponent behind the warm-up, from which it falls in a line; at least
    ``beta_last``."""
    beta_last: Annotated[float, Within(1, above=True)] = 2.0
    """Of "adaround": the exponent in the last step."""
    drop: Annotated[float, Within(0, 1)] = 0.5
    """Of "adaround": probability that an element of an activation is the quantized one, and not the float one (QDrop,
    arXiv 2203.05740); 1 takes quantized ones alone."""
    batch: Annotated[int, Within(1)] = 1
    """Of blocks: pieces of the example inputs' size that a step takes."""
    damping: Annotated[float, Within(0)] = 0.01
    """Of layers: added to the diagonal of the second moments of inputs and of kfac's gradients, as a share of its
    mean."""

    def __post_init__(self) -> None:
        check(self)
        if self.beta_first < self.beta_last:
            raise DescriptionError(f"beta_first = {self.beta_first}, beta_last = {self.beta_last}: must not rise")
        if self.scope == BLOCK and self.method != ADAROUND:
            raise DescriptionError(f"method = {self.method!r} is of layers: say scope = 'layer', or 'adaround'")
        if self.method != ADAROUND and self.metric != MSE:
            raise DescriptionError(f"metric = {self.metric!r} is of 'adaround': say metric = 'mse', or that method")
        if self.scope == BLOCK and (self.metric == KFAC or self.target == WEIGHT):
            key, value = ("metric", KFAC) if self.metric == KFAC else ("target", WEIGHT)
            raise DescriptionError(f"{key} = {value!r} is of layers: say scope = 'layer', or another {key}")

    @property
    def needs_gradients(self) -> bool:
        """Whether the metric is made from gradients of the loss."""
        return self.metric != MSE
