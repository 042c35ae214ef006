"""What the rows of the whitepaper's tables are: how each column quantizes, and how it trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

from quantizer.ranges import Average
from quantizer.recipe import Change, Recipe
from quantizer.train.options import Train

STEPS = 150
"""Of batches of 100: one and a half epochs, where the float networks are trained for four."""
SCRATCH = 550
"""As many as float networks and their fine-tuning have together."""
FLOAT = "float"


@dataclass(frozen=True)
class Case:
    """One column of a table: a recipe, which may train, and from which weights; None of a recipe is the float model."""

    table: str
    column: str
    recipe: Recipe | None
    network: str = ""
    """Whose alone it is, in ablations."""
    act: str = "relu"
    width: float = 1.0
    scratch: bool = False
    watched: bool = False
    """Whether accuracy is taken during the training too, for its jitter."""


SCHEMES = {
    "asym/layer": (False, "tensor"),
    "sym/channel": (True, "channel"),
    "asym/channel": (False, "channel"),
}


def recipe(base: str, bits: int, scheme: str = "sym/channel", train: Train | None = None) -> Recipe:
    """The preset ``base`` with weights of ``bits`` bits by ``scheme``."""
    made = Recipe.load(base)
    symmetric, per = SCHEMES[scheme]
    return dataclasses.replace(made, weight=made.weight.changed(Change(bits, symmetric, per)), train=train)


def activations_only() -> Recipe:
    """8-bit activations and binary32 weights."""
    made = Recipe.load("w8a8")
    return dataclasses.replace(made, weight=made.weight.changed(Change(bits=32)))


def four_bit_activations() -> Recipe:
    """8-bit weights, 4-bit activations, whose ranges are the moving average, as in the paper."""
    made = Recipe.load("qat-w8a4")
    return dataclasses.replace(made, activation=made.activation.changed(Change(range=Average())), train=None)


def training(base: str, **changes: object) -> Train:
    """The stage of a preset for the few steps of these tables."""
    stage = Recipe.load(base).train
    assert stage is not None, "the presets are of trainings"
    return dataclasses.replace(stage, **{"steps": STEPS, **changes})  # type: ignore[arg-type]


W8, W4 = training("qat-w8a8"), training("qat-w4a8")
NETWORKS = ("separable", "rescaled", "residual", "digits")


@cache
def tables() -> tuple[Case, ...]:
    """Tables 2 to 6, of all networks."""
    found = [Case("1", FLOAT, None)]
    for scheme in SCHEMES:
        found.append(Case("2", scheme, recipe("w8a32", 8, scheme)))
    for scheme in SCHEMES:
        found.append(Case("3", scheme, recipe("w8a8", 8, scheme)))
    found.append(Case("3", "activations only", activations_only()))
    for scheme in ("asym/layer", "sym/channel"):
        found.append(Case("4", f"QAT {scheme}", recipe("w8a8", 8, scheme, W8)))
    for scheme in ("asym/layer", "sym/channel"):
        found.append(Case("5", scheme, recipe("w4a8", 4, scheme)))
    found.append(Case("5", "QAT sym/channel", recipe("w4a8", 4, train=W4)))
    found.append(Case("6", "w8a4", four_bit_activations()))
    found.append(Case("6", "w8a4 QAT", dataclasses.replace(Recipe.load("qat-w8a4"), train=training("qat-w8a4"))))
    return tuple(found)


ON = "separable"
WIDTHS = (0.5, 1.0, 1.5)


@cache
def ablations() -> tuple[Case, ...]:
    """Of one network, trained at 4-bit weights and 8-bit activations, sym/channel."""

    def trained(column: str, watched: bool = False, scratch: bool = False, **changes: object) -> Case:
        made = recipe("w4a8", 4, train=training("qat-w4a8", **changes))
        return Case("ablation", column, made, ON, scratch=scratch, watched=watched)

    found = [
        trained("norms corrected, then frozen", watched=True),
        trained("norms corrected to the end", watched=True, freeze_norms=1.0),
        trained("norms naive", watched=True, norms="naive"),
        trained("norms frozen", watched=True, norms="frozen"),
        trained("from scratch", scratch=True, steps=SCRATCH, rate=0.05),
        trained("stochastic rounding", stochastic=True),
        trained("average of the weights, 0.95", average=0.95),
        trained("delay: weights from 0.25, activations from 0.5", delay=0.25, delay_activations=0.5),
        trained("learned ranges", ranges="learned"),
    ]
    for act in ("relu", "relu6"):
        found.append(Case("act", f"{act} {FLOAT}", None, ON, act))
        found.append(Case("act", f"{act} w8a8", recipe("w8a8", 8), ON, act))
        found.append(Case("act", f"{act} w4a8", recipe("w4a8", 4), ON, act))
        found.append(Case("act", f"{act} w4a8 QAT", recipe("w4a8", 4, train=W4), ON, act))
    for width in WIDTHS:
        found.append(Case("width", f"{width} {FLOAT}", None, ON, width=width))
        found.append(Case("width", f"{width} w8a8", recipe("w8a8", 8), ON, width=width))
        found.append(Case("width", f"{width} w4a8 QAT", recipe("w4a8", 4, train=W4), ON, width=width))
    return tuple(found)
