"""The integer program against trying everything, and its errors."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.analysis.assignment import Budget, Choice, Price, Problem, activation_of
from isa.errors import AssignmentError
from tests.thinning import examples

CLOCK = 1_000_000_000
WIDTHS = ("w4a4", "w4a8", "w8a8", "w8a16")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    names = [f"l{i}" for i in range(draw(st.integers(1, 5)))]
    layers = {}
    for name in names:
        widths = draw(st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=4, unique=True))
        numbers = st.integers(0, 50)
        layers[name] = {w: Choice(float(draw(numbers)), Price(draw(numbers), draw(numbers))) for w in widths}
    pairs = [(a, b) for a in names for b in names if a < b]
    ties = draw(st.lists(st.sampled_from(pairs), max_size=2)) if pairs else []
    fixed = Price(draw(st.integers(0, 50)), draw(st.integers(0, 50)))
    return Problem(layers, frozenset(ties), fixed)


def all_solutions(problem: Problem):
    for widths in product(*(list(choices) for choices in problem.layers.values())):
        chosen = dict(zip(problem.layers, widths, strict=True))
        if all(activation_of(chosen[a]) == activation_of(chosen[b]) for a, b in problem.ties):
            yield problem.solution(chosen)


@settings(max_examples=examples(200), deadline=None)
@given(problems(), st.integers(1, 200), st.booleans())
def test_least_loss_within_a_budget_of_latency_or_energy(problem: Problem, limit: int, time: bool) -> None:
    def cost(price: Price) -> int:
        return price.cycles if time else price.femtojoules

    within = [s for s in all_solutions(problem) if cost(s.price) <= limit]
    if not list(all_solutions(problem)):
        return  # layers that share a tensor and no width: the pass refuses them before
    budget = Budget(latency_seconds=limit / CLOCK) if time else Budget(energy_joules=limit * 1e-15)
    if not within:
        with pytest.raises(AssignmentError, match="no assignment of widths takes"):
            problem.solve(budget, CLOCK)
        return
    found = problem.solve(budget, CLOCK)
    assert found in all_solutions(problem)
    assert cost(found.price) <= limit
    assert found.loss == min(s.loss for s in within)
    assert cost(found.price) == min(cost(s.price) for s in within if s.loss == found.loss)


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(problems(), st.integers(0, 200), st.sampled_from(["latency", "energy"]))
def test_cheapest_within_a_bound_on_the_loss(problem: Problem, bound: int, unit: str) -> None:
    def cost(price: Price) -> int:
        return price.cycles if unit == "latency" else price.femtojoules

    every = list(all_solutions(problem))
    within = [s for s in every if s.loss <= bound]
    if not every:
        return
    if not within:
        with pytest.raises(AssignmentError, match="no assignment loses"):
            problem.solve(Budget(loss=bound, minimise=unit), CLOCK)
        return
    found = problem.solve(Budget(loss=bound, minimise=unit), CLOCK)
    assert found.loss <= bound
    assert cost(found.price) == min(cost(s.price) for s in within)
    assert cost(problem.cheapest(unit).price) == min(cost(s.price) for s in every)
    assert problem.most_exact().loss == min(s.loss for s in every)


def test_losses_of_very_different_size_are_all_heard() -> None:
    """The second layer's losses are a billionth of the first's, and yet its better width is taken."""
    problem = Problem(
        {
            "a": {"w4a4": Choice(1.0, Price(1, 1)), "w8a8": Choice(0.5, Price(9, 9))},
            "b": {"w4a4": Choice(2e-9, Price(1, 1)), "w8a8": Choice(1e-9, Price(2, 2))},
        }
    )
    assert problem.solve(Budget(latency_seconds=3 / CLOCK), CLOCK).widths == {"a": "w4a4", "b": "w8a8"}


PROBLEM = Problem({"a": {"w4a4": Choice(2.0, Price(3000, 10**9)), "w8a8": Choice(1.0, Price(9000, 2 * 10**9))}})


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            Budget(latency_seconds=1e-6),
            "no assignment of widths takes 1e-06 s or less: the fastest takes 3e-06 s and loses 2; raise the budget",
        ),
        (
            Budget(energy_joules=1e-9),
            "no assignment of widths takes 1e-09 J or less: the thriftiest takes 1e-06 J and loses 2; raise the budget",
        ),
        (Budget(loss=0.5), "no assignment loses 0.5 or less: the most exact one loses 1"),
    ],
)
def test_budgets_out_of_reach(budget: Budget, message: str) -> None:
    with pytest.raises(AssignmentError, match=re.escape(message)):
        PROBLEM.solve(budget, CLOCK)


def test_no_layers() -> None:
    with pytest.raises(AssignmentError, match="no layers: no kernel has candidate widths"):
        Problem({}).solve(Budget(loss=1.0), CLOCK)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "0 budgets: give one of latency_seconds, energy_joules and loss"),
        ({"latency_seconds": 1.0, "loss": 1.0}, "2 budgets: give one of latency_seconds, energy_joules and loss"),
        ({"latency_seconds": 0.0}, "latency_seconds = 0.0: must be positive and finite"),
        ({"energy_joules": -1.0}, "energy_joules = -1.0: must be positive and finite"),
        ({"loss": 1.0, "minimise": "size"}, "minimise = 'size': must be 'latency' or 'energy'"),
    ],
)
def test_budgets_that_are_none(fields: dict, message: str) -> None:
    with pytest.raises(AssignmentError, match=re.escape(message)):
        Budget(**fields)
