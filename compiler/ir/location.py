"""Where an operation comes from: FX node, module path and source line, kept in ``op.location``.

One origin is ``NameLoc("node | module path", FileLineColLoc(file, line))``. An operation that stands for several,
such as a fused kernel, has a ``FusedLoc`` of them, the anchor first.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    ArrayAttr,
    FileLineColLoc,
    FusedLoc,
    IntAttr,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
)
from xdsl.ir import Attribute, Operation, SSAValue

from isa.errors import EncodingError, UnsupportedError

SEPARATOR = " | "


@dataclass(frozen=True)
class Origin:
    """An FX node, the path of its module, and the line of PyTorch source that it comes from."""

    node: str
    module: str = ""
    file: str = ""
    line: int = 0

    @property
    def source(self) -> str:
        """``file.py:12``, or an empty string when the line is not known."""
        return f"{self.file}:{self.line}" if self.file else ""

    def __str__(self) -> str:
        return SEPARATOR.join((self.node, self.module, self.source))

    @property
    def attribute(self) -> LocationAttr:
        """The location attribute that says the same."""
        at = FileLineColLoc(StringAttr(self.file), IntAttr(self.line), IntAttr(0)) if self.file else UNKNOWN_LOC
        return NameLoc(StringAttr(f"{self.node}{SEPARATOR}{self.module}"), at)


def origins(operation: Operation) -> tuple[Origin, ...]:
    """What an operation comes from; empty when its location is unknown."""
    return tuple(dict.fromkeys(_origins(operation.location)))


def _origins(location: Attribute) -> Iterable[Origin]:
    if isinstance(location, FusedLoc):
        for part in cast(ArrayAttr[Attribute], location.locations):
            yield from _origins(part)
    if isinstance(location, NameLoc):
        node, _, module = location.desc.data.partition(SEPARATOR)
        at = location.location
        if isinstance(at, FileLineColLoc):
            yield Origin(node, module, at.filename.data, at.line.data)
        else:
            yield Origin(node, module)


def origin(operation: Operation) -> Origin | None:
    """The first origin of an operation: the anchor's, for a fused kernel."""
    found = origins(operation)
    return found[0] if found else None


def where(operation: Operation) -> str:
    """``node conv2d, module layer1.conv, model.py:12`` of the first origin, as far as it is known."""
    found = origin(operation)
    if found is None:
        return ""
    return ", ".join(filter(None, (f"node {found.node}", found.module and f"module {found.module}", found.source)))


@contextmanager
def blamed(operation: Operation) -> Generator[None]:
    """Say where ``operation`` comes from in an error that the block raises because of it."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{where(operation) or operation.name}: {error}") from error
    except EncodingError as error:
        raise UnsupportedError(
            f"{where(operation) or operation.name}: {error}, which is all that the instruction can say: "
            "change the layer, or split it, so that it stays inside"
        ) from error


def fuse(operations: Iterable[Operation]) -> LocationAttr:
    """Location of an operation that replaces ``operations``; each origin once, in order."""
    unique = dict.fromkeys(one for operation in operations for one in _origins(operation.location))
    if not unique:
        return UNKNOWN_LOC
    if len(unique) == 1:
        return next(iter(unique)).attribute
    return FusedLoc(ArrayAttr[Attribute](one.attribute for one in unique), NoneAttr())


def copy_location(source: Operation, *targets: Operation) -> None:
    """Give ``targets`` the location of ``source`` unless they have one; rewriters do not do this by themselves."""
    for target in targets:
        if target.location == UNKNOWN_LOC:
            target.location = source.location


def insert_before(place: Operation, *new: Operation, source: Operation | None = None) -> SSAValue:
    """Put ``new`` in front of ``place``, located at ``source`` (by default there); gives the last one's result."""
    assert place.parent is not None
    place.parent.insert_ops_before(new, place)
    copy_location(place if source is None else source, *new)
    return new[-1].results[0]
