"""A graph of aten calls without torch: what ``export`` reads from FX, and all that the rest of the frontend sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from compiler.ir.location import Origin


@dataclass(frozen=True)
class Ref:
    """The value of the record called ``name``."""

    name: str


@dataclass(frozen=True)
class Input:
    """An argument of the graph, in PyTorch's order; ``dtype`` is a name such as ``float32``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    location: Origin


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter, buffer or constant."""

    name: str
    array: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Call:
    """``target(*args, **kwargs)``, with nodes as :class:`Ref`, lists as tuples and dtypes as names.

    ``shape`` is PyTorch's own for the result, to be checked against ours; None where FX does not say.
    """

    name: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    location: Origin = field(default_factory=lambda: Origin(""))


@dataclass(frozen=True)
class Output:
    """What the graph returns, flattened."""

    values: tuple[Ref, ...]


Record = Input | Parameter | Call | Output
