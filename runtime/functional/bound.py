"""Compiled loops with the arguments of one instruction."""

from __future__ import annotations

from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Bound(partial[object]):
    """A loop and its arguments, and what they were before they became addresses: the owners of that memory."""

    owners: tuple[object, ...] = ()


def bound(name: str, *arguments: Any) -> Bound:
    """The call of ``module.function`` of ``runtime.loops``; tensors and arrays are passed as their addresses."""
    step = Bound(_loop(name), *map(_plain, arguments))
    step.owners = arguments
    return step


@cache
def _loop(name: str) -> Any:
    """Imported here, since numba takes half a second to import, which only a simulation should pay."""
    module, function = name.split(".")
    return getattr(import_module(f"runtime.loops.{module}"), function)


def _plain(argument: torch.Tensor | NDArray[Any] | int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument
