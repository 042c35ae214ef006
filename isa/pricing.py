"""Costs of a whole program from its words, fast enough for a profile of a network in milliseconds.

Most instructions of a program cost what an earlier one did. So runs are grouped by what their cost follows from,
their own fields and the setup words in force, with array operations; only the first of a group is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.cost import ONE_CYCLE, Cost, cost
from isa.encoding import OPCODE_BITS, SEMAPHORE_FIELDS, WORD_BYTES, Instruction, decode_word
from isa.instructions import (
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    MmuCodes,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuWindow,
    StoreCopy,
    StoreShape,
    StoreStrides,
    StoreTile,
    VcuConvert,
    VcuOp,
    VcuReduce,
    VcuResize,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuWindow,
)
from isa.instructions.vcu import STREAM_OUTPUT
from isa.machine import Machine
from isa.program import Program, Words, as_words, column, opcodes
from isa.state import SETTERS, State

Ints = NDArray[np.int64]
DEFAULT, UNUSED = -1, -2
"""Numbers of a register that no setup word has written yet, and of one that a run does not read."""


class Prices(NamedTuple):
    """Costs of a program: ``costs`` are distinct, ``which`` int64 has one entry per instruction."""

    costs: tuple[Cost, ...]
    which: Ints


@dataclass(frozen=True)
class Key:
    """What the cost of a class follows from: fields (``offset``: its place in a DRAM burst) and registers.

    ``slots`` names the field by which a class of setup words has several registers.
    """

    fields: tuple[str, ...]
    registers: tuple[type[Instruction], ...] = ()


SLOTS: dict[type[Instruction], str] = {VcuOp: "slot", VcuStream: "id", VcuConvert: "id", VcuResize: "axis"}
KEYS: dict[type[Instruction], Key] = {
    LoadCopy: Key(("offset", "bytes")),
    StoreCopy: Key(("offset", "bytes")),
    LoadTile: Key(("offset",), (LoadShape, LoadStrides)),
    StoreTile: Key(("offset",), (StoreShape, StoreStrides)),
    MmuRun: Key(("n", "accumulate", "depthwise", "mode"), (MmuInput, MmuWindow, MmuOutput, MmuCodes)),
    VcuRun: Key(
        ("streams", "first", "count"),
        (VcuShape, VcuWindow, VcuReduce, VcuResize, VcuStream, VcuConvert, VcuOp),
    ),
}


def price(program: Program, machine: Machine) -> Prices:
    """Costs of every instruction, in program order; equal configurations are evaluated once."""
    words = as_words(program)
    found = _Pricing(words, machine)
    present = set(found.opcodes.tolist())
    for kind, key in KEYS.items():
        if kind.opcode in present:
            found.price(kind, key)
    return Prices(tuple(found.costs), found.which)


class _Pricing:
    def __init__(self, words: Words, machine: Machine) -> None:
        self.words, self.machine = words, machine
        self.opcodes = opcodes(words)
        self.state = State()
        self.costs = [ONE_CYCLE]
        self.numbers = {ONE_CYCLE: 0}
        self.which = np.zeros(len(words), dtype=np.int64)

    def price(self, kind: type[Instruction], key: Key) -> None:
        """Prices of all instructions of ``kind``."""
        runs = np.flatnonzero(self.opcodes == kind.opcode)
        words = self.words[runs]
        fields = {name: column(words, kind, name) for name in key.fields}
        if "offset" in fields:
            fields["offset"] %= self.machine.dram.burst_bytes
        columns = list(fields.values())
        registers = [register for setter in key.registers for register in self._registers(setter, runs, fields)]
        groups, firsts = _distinct([*columns, *(register.numbers for register in registers)])
        first_words = _Words(words[firsts])
        prices = np.zeros(len(firsts), dtype=np.int64)
        for group, i in enumerate(firsts):
            for register in registers:
                register.hold(self.state, i)
            prices[group] = self._number(cost(first_words[group], self.state, self.machine))
        self.which[runs] = prices[groups]

    def _number(self, found: Cost) -> int:
        number = self.numbers.setdefault(found, len(self.costs))
        if number == len(self.costs):
            self.costs.append(found)
        return number

    def _registers(self, setter: type[Instruction], runs: Ints, fields: dict[str, Ints]) -> list[_Register]:
        """The registers that words of ``setter`` write, each with what ``runs`` find there."""
        at = np.flatnonzero(self.opcodes == setter.opcode)
        words = self.words[at]
        words[:, 0] &= ~np.uint64(_SEMAPHORE_BITS)  # a copy: they change no cost
        numbers, firsts = _distinct([words[:, 0].view(np.int64), words[:, 1].view(np.int64)])
        distinct = _Words(words[firsts])
        if setter not in SLOTS:
            return [_Register(SETTERS[setter], distinct, _in_force(at, numbers, runs))]
        found: list[_Register] = []
        slots = column(words, setter, SLOTS[setter])
        for slot in sorted(set(slots.tolist())):
            mine = slots == slot
            seen = np.where(_reads(setter, slot, fields), _in_force(at[mine], numbers[mine], runs), UNUSED)
            found.append(_Register(SETTERS[setter], distinct, seen))
        return found


class _Words:
    """Distinct words by number, each decoded when it is first asked for."""

    def __init__(self, words: Words) -> None:
        raw = words.tobytes()
        self._raw = [raw[i : i + WORD_BYTES] for i in range(0, len(raw), WORD_BYTES)]
        self._decoded: dict[int, Instruction] = {}

    def __getitem__(self, number: int) -> Instruction:
        if (found := self._decoded.get(number)) is None:
            found = self._decoded[number] = decode_word(int.from_bytes(self._raw[number], "little"))
        return found


class _Register:
    """One register of the state: ``numbers`` say which of ``words`` every run finds in it."""

    def __init__(self, put: Callable[[State, Instruction], None], words: _Words, numbers: Ints) -> None:
        self.put, self.words, self.numbers = put, words, numbers
        self.held = DEFAULT

    def hold(self, state: State, i: int) -> None:
        """Bring ``state`` to what run ``i`` finds."""
        # Runs are asked for in program order, in which no register returns to its default: nothing to undo.
        if (number := int(self.numbers[i])) >= 0 and number != self.held:
            self.held = number
            self.put(state, self.words[number])


_SEMAPHORE_BITS = sum(row.mask << row.low for row in LoadCopy.layout() if row.name in SEMAPHORE_FIELDS)
assert _SEMAPHORE_BITS == (1 << 32) - (1 << OPCODE_BITS)


def _reads(setter: type[Instruction], slot: int, fields: dict[str, Ints]) -> NDArray[Any]:
    """Which runs of the VCU, given their fields, read register ``slot`` of ``setter``."""
    if setter is VcuResize:
        return np.full(len(fields["first"]), True)
    if setter is VcuOp:
        return (slot >= fields["first"]) & (slot < fields["first"] + fields["count"])
    return (fields["streams"] > slot) & (slot < 4) | (slot == STREAM_OUTPUT)


def _in_force(at: Ints, numbers: Ints, runs: Ints) -> Ints:
    """The number of the last word, of those ``at`` these places, that stands before each run."""
    return np.append(DEFAULT, numbers)[np.searchsorted(at, runs)]


def _distinct(columns: Sequence[Ints]) -> tuple[Ints, list[int]]:
    """Rows that are equal in all columns get one number, by first appearance; also the first row of each."""
    table = np.stack(columns, axis=1)
    rows: list[bytes] = table.view(np.dtype((np.void, table.strides[0]))).ravel().tolist()
    known = {row: number for number, row in enumerate(dict.fromkeys(rows))}
    groups = np.fromiter(map(known.__getitem__, rows), dtype=np.int64, count=len(rows))
    firsts = np.full(len(known), len(rows), dtype=np.int64)
    np.minimum.at(firsts, groups, np.arange(len(rows)))
    return groups, firsts.tolist()
