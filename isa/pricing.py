"""Costs of a whole program in one walk, fast enough for a profile of a network in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from isa.cost import ONE_CYCLE, Cost, cost
from isa.encoding import Instruction
from isa.instructions import LoadCopy, LoadTile, MmuRun, StoreCopy, StoreTile, VcuRun
from isa.machine import Machine
from isa.state import SETTERS, State


class Prices(NamedTuple):
    """Costs of a program: ``costs`` are distinct, ``which`` has one entry per instruction."""

    costs: tuple[Cost, ...]
    which: list[int]


def price(instructions: Sequence[Instruction], machine: Machine) -> Prices:
    """Costs of every instruction, in program order; equal configurations are evaluated once."""
    state = State()
    costs: list[Cost] = [ONE_CYCLE]
    numbers: dict[Cost, int] = {ONE_CYCLE: 0}
    known: dict[tuple[object, ...], int] = {}
    which = [0] * len(instructions)
    for i, inst in enumerate(instructions):
        kind = type(inst)
        if (setter := SETTERS.get(kind)) is not None:
            setter(state, inst)
            continue
        if (key_of := KEYS.get(kind)) is None:
            continue
        key = key_of(inst, state, machine)
        number = known.get(key)
        if number is None:
            found = cost(inst, state, machine)
            number = numbers.setdefault(found, len(costs))
            if number == len(costs):
                costs.append(found)
            known[key] = number
        which[i] = number
    return Prices(tuple(costs), which)


# Keys hold the identity of registers, which the program keeps alive, as hashing dataclasses costs more than
# the rest of the walk. Addresses are not part of a key, except a DRAM offset's place in its burst.
def _copy_key(inst: LoadCopy | StoreCopy, _state: State, machine: Machine) -> tuple[object, ...]:
    return inst.opcode, inst.offset % machine.dram.burst_bytes, inst.bytes


def _load_key(inst: LoadTile, state: State, machine: Machine) -> tuple[object, ...]:
    offset = inst.offset % machine.dram.burst_bytes
    return inst.opcode, offset, id(state.load_shape), id(state.load_strides)


def _store_key(inst: StoreTile, state: State, machine: Machine) -> tuple[object, ...]:
    offset = inst.offset % machine.dram.burst_bytes
    return inst.opcode, offset, id(state.store_shape), id(state.store_strides)


def _mmu_key(inst: MmuRun, state: State, _machine: Machine) -> tuple[object, ...]:
    registers = id(state.mmu_input), id(state.mmu_window), id(state.mmu_output)
    return inst.opcode, inst.n, inst.accumulate, inst.depthwise, *registers


def _vcu_key(inst: VcuRun, state: State, _machine: Machine) -> tuple[object, ...]:
    return (
        inst.opcode,
        inst.streams,
        id(state.vcu_shape),
        id(state.vcu_window),
        *map(id, state.vcu_streams),
        *map(id, state.vcu_converts),
        inst.first,
        *map(id, state.vcu_ops[inst.first : inst.first + inst.count]),
    )


KEYS: dict[type[Instruction], Callable[..., tuple[object, ...]]] = {
    LoadCopy: _copy_key,
    StoreCopy: _copy_key,
    LoadTile: _load_key,
    StoreTile: _store_key,
    MmuRun: _mmu_key,
    VcuRun: _vcu_key,
}
