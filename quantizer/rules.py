"""Which values the fields of a recipe may have: what checks them is what the page of the API prints.

A field says its rule in its type, as ``rate: Annotated[float, Within(0, above=True)] = 0.001``; numbers without a rule
must be finite, and every value is of its field's type: files say so of theirs, and here it is said of Python's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol, get_args, get_origin, get_type_hints

from isa.errors import DescriptionError


class Rule(Protocol):
    """What a value must be, which ``str`` says in words behind "must be"."""

    def allows(self, value: Any) -> bool:
        """Whether ``value`` keeps the rule."""
        ...


@dataclass(frozen=True)
class OneOf:
    """One of ``values``; ``note`` is said behind them. ``unset`` says nothing, and is allowed."""

    values: tuple[Any, ...]
    note: str = ""
    unset: Any = None

    def allows(self, value: Any) -> bool:
        """Whether ``value`` keeps the rule."""
        return value == self.unset or value in self.values

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}" + f" {self.note}" * bool(self.note)


@dataclass(frozen=True)
class Within:
    """``low`` .. ``high``, or without an upper end; ``above`` and ``below`` leave the ends out. ``what`` it is of."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    what: str = ""

    def allows(self, value: Any) -> bool:
        """Whether ``value`` keeps the rule."""
        under = value < self.high if self.below else value <= self.high
        return under and (value > self.low if self.above else value >= self.low)

    def __str__(self) -> str:
        return self.what + ", " * bool(self.what) + self._ends()

    def _ends(self) -> str:
        if not (self.above or self.below or math.isinf(self.high)):
            return f"in {self.low} .. {self.high}"
        low = f"{'above' if self.above else 'at least'} {self.low}"
        return low if math.isinf(self.high) else f"{low} and {'below' if self.below else 'at most'} {self.high}"


@dataclass(frozen=True)
class PowerOfTwo:
    """A power of 2 in ``low`` .. ``high``."""

    low: int
    high: int

    def allows(self, value: Any) -> bool:
        """Whether ``value`` keeps the rule."""
        return self.low <= value <= self.high and value & (value - 1) == 0

    def __str__(self) -> str:
        return f"a power of 2 in {self.low} .. {self.high}"


@cache
def rules(kind: type) -> dict[str, Rule]:
    """The rules of a dataclass's fields, by name."""
    hints = get_type_hints(kind, include_extras=True)
    given = {row.name: getattr(hints[row.name], "__metadata__", ()) for row in fields(kind)}
    return {name: said[0] for name, said in given.items() if said}


@cache
def types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    return get_type_hints(kind)


def check(options: Any, others: Mapping[str, Any] | None = None) -> None:
    """Raise DescriptionError for the first field of the dataclass ``options`` that breaks its rule or is not finite or
    not of its type; types of ``others`` count in place of the declared ones.
    """
    known, kinds = rules(type(options)), {**types(type(options)), **(others or {})}
    for row in fields(options):
        value, rule = getattr(options, row.name), known.get(row.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise DescriptionError(f"{row.name} = {value}: must be a finite number")
        if isinstance(rule, OneOf) and value is not None and not rule.allows(value):
            raise DescriptionError(f"{row.name} = {value!r}: must be {rule}")  # which says more than the type
        if not _fits(value, kinds[row.name]):
            told = f"must be {_words(kinds[row.name])}, not {_said(value)}"
            raise DescriptionError(f"{row.name} = {value!r}: {told}")
        if rule is not None and not rule.allows(value):
            raise DescriptionError(f"{row.name} = {value!r}: must be {rule}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of the type; integers are numbers, and booleans are not."""
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if inner:
        return any(_fits(value, each) for each in inner)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind) and not isinstance(value, type)


def _words(kind: Any) -> str:
    """A type by its name, but for None, which leaves things as they are."""
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        return f"a tuple of {inner[0].__name__}"
    (one,) = (each for each in inner or (kind,) if each is not type(None))
    return one.__name__


def _said(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
