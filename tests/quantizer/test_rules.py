"""Rules of a recipe's fields: what they allow, and what is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from isa.errors import DescriptionError
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
