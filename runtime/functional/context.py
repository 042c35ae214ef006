"""What every semantics function gets: memories, registers and scratch buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import torch

from isa.encoding import Instruction
from isa.machine import Machine
from isa.state import State
from runtime.functional.table import Tables
from runtime.memory import Memories

Step = Callable[[], object]
"""One array operation whose operands are bound: calling it again does the same to the same memories."""

MANY = 256
"""Operations of one instruction beyond which they are made when they run, to bound memory."""


@dataclass
class Context:
    """One machine. Scratch buffers are kept between instructions, so that runs do not allocate."""

    machine: Machine
    memory: Memories
    state: State = field(default_factory=State)
    tables: Tables = field(default_factory=Tables)
    _flat: dict[tuple[str, torch.dtype], torch.Tensor] = field(
        default_factory=dict[tuple[str, torch.dtype], torch.Tensor]
    )
    _shaped: dict[tuple[str, torch.dtype], dict[tuple[int, ...], torch.Tensor]] = field(
        default_factory=dict[tuple[str, torch.dtype], dict[tuple[int, ...], torch.Tensor]]
    )
    _constants: dict[object, torch.Tensor] = field(default_factory=dict[object, torch.Tensor])

    def scratch(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous buffer of unknown contents, shared by every call with this ``name`` and dtype."""
        key = (name, dtype)
        shaped = self._shaped.setdefault(key, {})
        if (found := shaped.get(shape)) is not None:
            return found
        size = prod(shape)
        flat = self._flat.get(key)
        if flat is None or flat.numel() <= size:
            shaped.clear()
            flat = self._flat[key] = torch.empty(size + 1, dtype=dtype)  # a loop may read one past an odd row
        found = shaped[shape] = flat[:size].view(shape)
        return found

    def constant(self, shape: tuple[int, ...], value: int, dtype: torch.dtype) -> torch.Tensor:
        """A buffer that holds ``value`` everywhere and that nobody writes."""
        key = (shape, value, dtype)
        if (found := self._constants.get(key)) is None:
            found = self._constants[key] = torch.full(shape, value, dtype=dtype)
        return found


Semantics = Callable[[Context, Instruction], Iterator[Step]]
"""Checks one instruction against a context and gives the steps that do it. Raises SimulationError."""


def bundle(make: Callable[[], Iterator[Step]], count: int) -> Iterator[Step]:
    """The ``count`` steps of ``make``; many of them as one step, which makes them when it runs."""
    if count <= MANY:
        yield from make()
        return

    def run() -> None:
        for step in make():
            step()

    yield run
