"""What `make fast` leaves out of a test, and `make test` does not.

* ``@pytest.mark.thin``: of the combinations of the test's parameters all but a diagonal are slow. The diagonal walks
  all axes in step, the shorter ones round and round, so that it holds every value of every axis. ``thin(n)`` takes
  ``n`` places of the longest axis, evenly spaced.
* ``examples(n)``: ``n`` examples of a property, a fifth of them in `make fast`.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import settings

FEW = 20
"""Per cent of the examples that `make fast` tries."""


def examples(n: int) -> int:
    """Number of examples of a property: ``n``, fewer in `make fast`."""
    return max(1, n * settings().max_examples // 100)


def leave_out(items: list[pytest.Item]) -> None:
    """Mark as slow what ``thin`` leaves out."""
    families: defaultdict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("thin"):
            families[item.nodeid.split("[")[0]].append(item)
    for family in families.values():
        places = _places([item.callspec.params for item in family])
        sizes = [max(axis) + 1 for axis in zip(*places, strict=True)]
        marker = family[0].get_closest_marker("thin")
        kept = _diagonal(sizes, *(marker.args if marker else ()))
        for item, place in zip(family, places, strict=True):
            if place not in kept:
                item.add_marker(pytest.mark.slow)


def _places(cases: list[dict[str, object]]) -> list[tuple[int, ...]]:
    """Which value of its parameter each case has, for every parameter, counted in order of appearance."""
    known: defaultdict[str, dict[int, int]] = defaultdict(dict)
    return [tuple(known[name].setdefault(id(v), len(known[name])) for name, v in case.items()) for case in cases]


def _diagonal(sizes: list[int], count: int | None = None) -> set[tuple[int, ...]]:
    longest = max(sizes)
    steps = min(count or longest, longest)
    return {tuple(t * longest // steps if n == longest else t % n for n in sizes) for t in range(steps)}
