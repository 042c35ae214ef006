"""What `make fast` leaves out of a test, and `make test` does not.

* Of a test's parameters a few cases, ``CASES``, spread evenly; ``@pytest.mark.thin(n)`` says ``n`` where they are dear.
  Of a product of parameters they lie on its diagonal, which walks all axes in step, the shorter ones round and round:
  several values of every axis, not one of the first.
* ``examples(n)``: ``n`` examples of a property, few of them in `make fast`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import settings

CASES = 2
"""Cases of a test that `make fast` runs at most."""

FEW = 5
"""Per cent of the examples that `make fast` tries."""


def examples(n: int) -> int:
    """Number of examples of a property: ``n``, fewer in `make fast`."""
    return max(1, n * settings().max_examples // 100)


def leave_out(items: Sequence[pytest.Item]) -> None:
    """Mark as slow what `make fast` leaves out of tests with parameters; what is slow anyway counts for no case."""
    families: defaultdict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and not item.get_closest_marker("slow"):
            families[item.nodeid.split("[")[0]].append(item)
    for family in families.values():
        marker = family[0].get_closest_marker("thin")
        count = marker.args[0] if marker else CASES
        kept = _kept(_places([item.callspec.params for item in family]), count)
        for number, item in enumerate(family):
            if number not in kept:
                item.add_marker(pytest.mark.slow)


def _places(cases: list[dict[str, object]]) -> list[tuple[int, ...]]:
    """Which value of its parameter each case has, for every parameter, counted in order of appearance."""
    known: defaultdict[str, dict[int, int]] = defaultdict(dict)
    return [tuple(known[name].setdefault(id(v), len(known[name])) for name, v in case.items()) for case in cases]


def _kept(places: list[tuple[int, ...]], count: int) -> set[int]:
    """Numbers of ``count`` cases: of a product on its diagonal, of a list of cases evenly spaced."""
    sizes = [max(axis) + 1 for axis in zip(*places, strict=True)]
    if len(set(places)) == len(places) == math.prod(sizes):
        diagonal = _diagonal(sizes, count)
        return {number for number, place in enumerate(places) if place in diagonal}
    steps = min(count, len(places))
    return {t * len(places) // steps for t in range(steps)}


def _diagonal(sizes: list[int], count: int | None = None) -> set[tuple[int, ...]]:
    longest = max(sizes)
    steps = min(count or longest, longest)
    return {tuple(t * longest // steps if n == longest else t % n for n in sizes) for t in range(steps)}
