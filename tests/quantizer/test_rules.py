"""Rules of a recipe's fields: what they allow, and what is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pytest

from isa.errors import DescriptionError
from quantizer import Change, Format, Override, Recipe
from quantizer.fold import Fold
from quantizer.polish import Polish
from quantizer.ranges import Average, Percentile
from quantizer.recipe_file import read
from quantizer.reconstruct.options import Round
from quantizer.rules import OneOf, PowerOfTwo, Rule, Within, check

RULES = [
    (Within(0, 1), "in 0 .. 1", [0, 0.5, 1], [-0.1, 1.1]),
    (Within(0), "at least 0", [0, 1e9], [-1]),
    (Within(0, above=True), "above 0", [1e-9], [0]),
    (Within(50, 100, above=True), "above 50 and at most 100", [50.1, 100], [50, 100.1]),
    (Within(0, 1, below=True), "at least 0 and below 1", [0, 0.99], [1, -1]),
    (Within(0, 1, what="a share of the steps"), "a share of the steps, in 0 .. 1", [0], [2]),
    (OneOf(("a", "b")), "one of 'a', 'b'", ["a", None], ["c", ""]),
    (OneOf((4, 8), "(bits)", unset=0), "one of 4, 8 (bits)", [4, 0], [5, None]),
    (PowerOfTwo(4, 16), "a power of 2 in 4 .. 16", [4, 8, 16], [2, 6, 32]),
]


@pytest.mark.parametrize(("rule", "said", "allowed", "refused"), RULES)
def test_a_rule_says_what_it_allows(rule: Rule, said: str, allowed: list[Any], refused: list[Any]) -> None:
    assert str(rule) == said
    assert all(map(rule.allows, allowed))
    assert not any(map(rule.allows, refused))


@dataclass(frozen=True)
class Options:
    """Two numbers, one with a rule."""

    free: float = 1.0
    share: Annotated[float, Within(0, 1)] = 0.5


def test_check_names_the_field_the_value_and_the_rule() -> None:
    check(Options())
    with pytest.raises(DescriptionError, match=r"^share = 2: must be in 0 \.\. 1$"):
        check(Options(share=2))
    with pytest.raises(DescriptionError, match=r"^free = inf: must be a finite number$"):
        check(Options(free=math.inf))


MIXED_UP = [
    (lambda: Round(rate="fast"), "rate = 'fast': must be float, not str"),  # type: ignore[arg-type]
    (lambda: Round(iterations=1.5), "iterations = 1.5: must be int, not float"),  # type: ignore[arg-type]
    (lambda: Round(iterations=True), "iterations = True: must be int, not bool"),
    (lambda: Round(drop=None), "drop = None: must be float, not NoneType"),  # type: ignore[arg-type]
    (lambda: Round(method=None), "method = None: must be str, not NoneType"),  # type: ignore[arg-type]
    (lambda: Fold(shift="no"), "shift = 'no': must be bool, not str"),  # type: ignore[arg-type]
    (lambda: Average(debias=1), "debias = 1: must be bool, not int"),  # type: ignore[arg-type]
    (lambda: Percentile(bins="2048"), "bins = '2048': must be int, not str"),  # type: ignore[arg-type]
    (lambda: Polish(modules="head"), "modules = 'head': must be a tuple of str, not str"),  # type: ignore[arg-type]
    (lambda: Polish(modules=(1,)), "modules = (1,): must be a tuple of str, not tuple"),  # type: ignore[arg-type]
    (lambda: Change(bits="4"), "bits = '4': must be one of 4, 8, 16, 32 (binary32)"),  # type: ignore[arg-type]
    (lambda: Change(symmetric="no"), "symmetric = 'no': must be bool, not str"),  # type: ignore[arg-type]
    (lambda: Change(range="mse"), "range = 'mse': must be Estimator, not str"),  # type: ignore[arg-type]
    (lambda: Change(range=Percentile), "must be Estimator, not the class Percentile"),  # type: ignore[arg-type]
    (lambda: Format(8, True, None, Average()), "per = None: must be str, not NoneType"),  # type: ignore[arg-type]
    (lambda: Override("*", weight={"bits": 4}), "weight = {'bits': 4}: must be Change, not dict"),  # type: ignore[arg-type]
    (lambda: changed(round={"rate": 1.0}), "round = {'rate': 1.0}: must be Round, not dict"),
    (lambda: changed(overrides=[]), "overrides = []: must be a tuple of Override, not list"),
    (lambda: changed(weight=8), "weight = 8: must be Format, not int"),
]


def changed(**fields: Any) -> Recipe:
    return replace(Recipe.load("w8a8"), **fields)


@pytest.mark.parametrize(("make", "message"), MIXED_UP)
def test_values_of_another_type_are_named(make: Callable[[], object], message: str) -> None:
    """As in a file: what a recipe is made of in Python is checked where it is made."""
    with pytest.raises(DescriptionError, match=re.escape(message)):
        make()


def test_numbers_of_numpy_and_integers_are_numbers() -> None:
    made = changed(round=Round(rate=np.float64(0.5), drop=1))
    assert read(made.to_toml(), "again") == made
