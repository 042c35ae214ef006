"""What instructions do: one short function per class, executed in program order without time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

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
from runtime.functional.context import Context, Semantics, Step
from runtime.functional.dma import load_copy, load_tile, store_copy, store_tile
from runtime.functional.mmu import mmu_run
from runtime.functional.vcu import vcu_run

__all__ = ["SEMANTICS", "Context", "Step", "bind", "describe", "execute"]


def _setup(context: Context, instruction: Instruction) -> Iterator[Step]:
    context.state.apply(instruction)
    yield from ()


def _nothing(context: Context, instruction: Instruction) -> Iterator[Step]:
    """Synchronization orders engines; in program order there is nothing to do."""
    yield from ()


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


def bind(
    instructions: Iterable[Instruction], context: Context, where: Callable[[int], str] | None = None
) -> Iterator[Step]:
    """Check ``instructions`` one by one against the context and give the steps that do them, in order.

    The steps may be kept and called again. ``where`` gives the source of an instruction by index, for errors.
    Raises SimulationError (mostly AccessError), which names the instruction.
    """
    context.state = State()
    context.memory.forget()
    for index, instruction in enumerate(instructions):
        try:
            yield from SEMANTICS[type(instruction)](context, instruction)
        except SimulationError as error:
            source = where(index) if where is not None else ""
            raise type(error)(f"{describe(index, instruction, source)}: {error}") from None


def execute(instructions: Sequence[Instruction], context: Context, where: Callable[[int], str] | None = None) -> None:
    """Run ``instructions`` in order, changing the context's memories; see :func:`bind`.

    After an error, what ran before it stays done.
    """
    for step in bind(instructions, context, where):
        step()


def describe(index: int, instruction: Instruction, source: str = "") -> str:
    """How errors name an instruction: its index, mnemonic and source."""
    return f"instruction {index} ({instruction.mnemonic})" + (f" of {source}" if source else "")
