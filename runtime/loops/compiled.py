"""How loops are compiled: without the interpreter's lock, without reassociation or contraction, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

from isa import numerics

Function = TypeVar("Function", bound=Callable[..., Any])
Numba: Any = numba
Cache: Any = FunctionCache
"""Numba has no types of its own."""


def digest(*folders: Path) -> str:
    """Of all sources in ``folders``, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


SOURCES = digest(Path(__file__).parent, Path(numerics.__file__).parent)
"""What compiled code was made from: numba itself compares only the file of the outermost function."""


class _Cache(Cache):
    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return (*Cache._index_key(self, signature, codegen), SOURCES)


def loop(function: Function) -> Function:
    """``function`` compiled for every tuple of argument types that it is called with; callable from Python."""
    compiled = Numba.njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # nowhere to write: every process compiles for itself
        compiled._cache = _Cache(function)
    return compiled


def part(function: Function) -> Function:
    """``function``, which loops may call."""
    return Numba.extending.register_jitable(error_model="numpy")(function)
