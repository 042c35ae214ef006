"""What ``[train]`` refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from isa.errors import DescriptionError
from quantizer.recipe import Recipe
from quantizer.reconstruct.options import Compensate, Round
from quantizer.train.options import Train

WRONG = [
    (dict(steps=-1), "steps = -1: must be at least 0"),
    (dict(rate=0.0), "rate = 0.0: must be above 0"),
    (dict(rate=float("inf")), "rate = inf: must be a finite number"),
    (dict(momentum=1.0), "momentum = 1.0: must be at least 0 and below 1"),
    (dict(decay=-0.1), "decay = -0.1: must be at least 0"),
    (dict(schedule="linear"), "schedule = 'linear': must be one of 'cosine', 'constant'"),
    (dict(norms="batch"), "norms = 'batch': must be one of 'corrected', 'naive', 'frozen'"),
    (dict(ranges="ema"), "ranges = 'ema': must be one of 'average', 'learned', 'fixed'"),
    (dict(freeze_norms=200), "freeze_norms = 200: must be a share of the steps, in 0 .. 1"),
    (dict(freeze_ranges=-0.5), "freeze_ranges = -0.5: must be a share of the steps, in 0 .. 1"),
    (dict(delay=2.0), "delay = 2.0: must be a share of the steps, in 0 .. 1"),
    (dict(delay_activations=1.5), "delay_activations = 1.5: must be a share of the steps, in 0 .. 1"),
    (dict(constant=0.0), "constant = 0.0: must be above 0 and at most 1"),
    (dict(average=1.0), "average = 1.0: must be at least 0 and below 1"),
]


@pytest.mark.parametrize(("name", "stage"), [("round", Round()), ("compensate", Compensate())])
def test_weights_are_trained_or_chosen(name: str, stage: object) -> None:
    message = rf"\[train\] finds weights of its own: leave out \[{name}\], or \[train\]"
    with pytest.raises(DescriptionError, match=message):
        replace(Recipe.load("qat-w4a8"), **{name: stage})


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_no_training_can_be_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape(message)):
        Train(**given)
