"""What every semantics function gets: memories, registers and scratch buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch

from isa.encoding import Instruction
from isa.machine import Machine
from isa.state import State
from runtime.memory import Memories


@dataclass
class Context:
    """One running machine. Scratch buffers are kept between instructions, so that runs do not allocate."""

    machine: Machine
    memory: Memories
    state: State = field(default_factory=State)
    _flat: dict[tuple[object, torch.dtype], torch.Tensor] = field(
        default_factory=dict[tuple[object, torch.dtype], torch.Tensor]
    )
    _shaped: dict[tuple[object, torch.dtype], dict[tuple[int, ...], torch.Tensor]] = field(
        default_factory=dict[tuple[object, torch.dtype], dict[tuple[int, ...], torch.Tensor]]
    )

    def scratch(self, name: object, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous buffer of unknown contents, shared by every call with this ``name`` and dtype."""
        key = (name, dtype)
        shaped = self._shaped.setdefault(key, {})
        if (found := shaped.get(shape)) is not None:
            return found
        size = prod(shape)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            shaped.clear()
            flat = self._flat[key] = torch.empty(size, dtype=dtype)
        found = shaped[shape] = flat[:size].view(shape)
        return found


Semantics = Callable[[Context, Instruction], None]
"""Does one instruction to a context. Raises SimulationError where the instruction breaks a rule."""
