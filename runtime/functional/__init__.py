"""What instructions do: one short function per class, executed in program order without time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isa.encoding import Instruction
from isa.errors import SimulationError
from isa.instructions import (
    Halt,
    LoadCopy,
    LoadSync,
    LoadTile,
    MmuRun,
    MmuSync,
    StoreCopy,
    StoreSync,
    StoreTile,
    VcuRun,
    VcuSync,
)
from isa.state import SETTERS, State
from runtime.functional.context import Context, Semantics
from runtime.functional.dma import load_copy, load_tile, store_copy, store_tile
from runtime.functional.mmu import mmu_run
from runtime.functional.vcu import vcu_run

__all__ = ["SEMANTICS", "Context", "execute"]


def _setup(context: Context, instruction: Instruction) -> None:
    context.state.apply(instruction)


def _nothing(context: Context, instruction: Instruction) -> None:
    """Synchronization orders engines; in program order there is nothing to do."""


SEMANTICS: dict[type[Instruction], Semantics] = {
    **dict.fromkeys(SETTERS, _setup),
    **dict.fromkeys((Halt, LoadSync, StoreSync, MmuSync, VcuSync), _nothing),
    LoadCopy: load_copy,
    LoadTile: load_tile,
    StoreCopy: store_copy,
    StoreTile: store_tile,
    MmuRun: mmu_run,
    VcuRun: vcu_run,
}


def execute(instructions: Sequence[Instruction], context: Context, where: Callable[[int], str] | None = None) -> None:
    """Run ``instructions`` in order, changing the context's memories and registers.

    ``where`` gives the source of an instruction by index, for errors. Raises SimulationError (mostly
    AccessError), which names the instruction; what ran before it stays done.
    """
    context.state = State()
    index = 0
    try:
        for index, instruction in enumerate(instructions):  # noqa: B007
            SEMANTICS[type(instruction)](context, instruction)
    except SimulationError as error:
        source = where(index) if where is not None else ""
        raise type(error)(describe(index, instructions[index], source) + f": {error}") from None


def describe(index: int, instruction: Instruction, source: str = "") -> str:
    """How errors name an instruction: its index, mnemonic and source."""
    return f"instruction {index} ({instruction.mnemonic})" + (f" of {source}" if source else "")
