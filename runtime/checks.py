"""Every rule that depends on a program alone, checked once per binary: bounds, races, initialisation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import repeat

from isa.access import NOTHING, Accesses, Memory, accesses
from isa.container import Binary
from isa.encoding import Instruction
from isa.errors import AccessError, SimulationError, UninitialisedError
from isa.instructions import VcuRun
from isa.sections import Location
from isa.state import State
from runtime.functional import describe
from runtime.hazards import check_hazards, common_bytes
from runtime.memory import READ_ONLY, Written

REMEMBERED = 16
UNKNOWN = object()
_checked: dict[Hashable, SimulationError | None] = {}


def check_binary(binary: Binary) -> None:
    """Raise AccessError, SemaphoreError, DeadlockError, RaceError or UninitialisedError if any timing breaks a rule.

    The verdict is remembered by content.
    """
    key = identity(binary)
    if (verdict := _checked.get(key, UNKNOWN)) is UNKNOWN:
        if len(_checked) >= REMEMBERED:
            _checked.clear()
        verdict = _checked[key] = _verdict(binary)
    if isinstance(verdict, SimulationError):
        raise type(verdict)(str(verdict))


def _verdict(binary: Binary) -> SimulationError | None:
    try:
        _check(binary)
    except SimulationError as error:
        return error
    return None


def identity(binary: Binary) -> Hashable:
    """Equal for binaries with the same instructions, sizes and locations; constants may differ."""
    return (
        binary.code,
        len(binary.constants),
        binary.machine.digest,
        (binary.inputs, binary.input_bytes),
        (binary.outputs, binary.output_bytes),
        binary.arena_bytes,
        (binary.locations, binary.spans),
    )


def sizes(binary: Binary) -> dict[Memory, int]:
    """Bytes of every space."""
    return {
        Memory.SRAM: binary.machine.sram.bytes,
        Memory.ACC: binary.machine.acc.bytes,
        Memory.CODE: len(binary.code),
        Memory.CONSTANTS: len(binary.constants),
        Memory.INPUT: binary.input_bytes,
        Memory.OUTPUT: binary.output_bytes,
        Memory.ARENA: binary.arena_bytes,
    }


class Names:
    """How messages name the instructions of a binary: index, mnemonic and where it comes from."""

    def __init__(self, binary: Binary) -> None:
        self.binary = binary

    def __call__(self, index: int) -> str:
        """The name of instruction ``index``."""
        return describe(index, self.binary.instructions[index], self.source(index))

    def source(self, index: int) -> str:
        """``node, module, file.py:12`` of instruction ``index``; what is unknown is left out."""
        of_instruction = (i for count, i in self.binary.spans for i in repeat(i, count))
        for at, location in enumerate(of_instruction):
            if at == index:
                return source(self.binary.locations[location])
        return ""


def source(location: Location) -> str:
    """A location in one line."""
    return ", ".join(part for part in (location.node, location.module, location.source) if part)


def _check(binary: Binary) -> None:
    program, names, limits = binary.instructions, Names(binary), sizes(binary)
    touched = trace(program)
    for index, both in enumerate(touched):
        _check_bounds(index, both, limits, names)
        if isinstance(program[index], VcuRun):
            _check_overlay(index, both, names)
    check_hazards(program, touched, binary.machine, names)
    _check_written(binary, touched, limits, names)


def trace(program: Sequence[Instruction]) -> list[Accesses]:
    """What every instruction touches."""
    state = State()
    return [NOTHING if state.apply(inst) else accesses(inst, state) for inst in program]


def _check_bounds(index: int, both: Accesses, limits: dict[Memory, int], names: Names) -> None:
    for verb, boxes in (("reads", both.reads), ("writes", both.writes)):
        for box in boxes:
            if box.stop > limits[box.space]:
                raise AccessError(f"{names(index)} {verb} {box}: {box.space.name} ends at {limits[box.space]:#x}")
            if verb == "writes" and box.space in READ_ONLY:
                raise AccessError(f"{names(index)} writes {box}: {box.space.name} is read-only")


def _check_overlay(index: int, both: Accesses, names: Names) -> None:
    """A vector run reads and writes at once, so what it writes may be what it reads only element by element."""
    for write in both.writes:
        for read in both.reads:
            if read != write and (common := common_bytes(read, write)) is not None:
                raise AccessError(
                    f"{names(index)} writes {write}, of which it also reads {common[0]:#x}..{common[1]:#x} in {read}: "
                    "an output may lie on an input only with the same address, element size and strides"
                )


def _check_written(binary: Binary, touched: Sequence[Accesses], limits: dict[Memory, int], names: Names) -> None:
    written = Written(limits)
    for index, (reads, writes) in enumerate(touched):
        try:
            for box in reads:
                written.read(box)
        except UninitialisedError as error:
            raise UninitialisedError(f"{names(index)} {error}") from None
        for box in writes:
            written.write(box)
    for info in binary.outputs:
        if (at := written.first_unwritten(Memory.OUTPUT, info.offset, info.offset + info.size_bytes)) >= 0:
            raise UninitialisedError(
                f"output {info.name!r}: no instruction wrote OUTPUT address {at:#x}; store all of it before halt"
            )
