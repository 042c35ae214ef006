"""Bytes that a binary's instructions move, counted from the instructions themselves."""

from __future__ import annotations

from collections import Counter

from isa.access import Memory, accesses
from isa.instructions import LoadCopy, LoadTile, Region, StoreCopy, StoreTile, VcuRun
from isa.state import State
from quartic import Executable

Traffic = Counter[tuple[str, str]]


def traffic(exe: Executable) -> Traffic:
    """Bytes that the executed instructions move, by mover and space: "load", "store" and a DRAM region, or "sram" for
    their other side; "vcu" and the memory that vector programs write."""
    state, moved = State(), Counter[tuple[str, str]]()
    for instruction in exe.binary.instructions:
        if isinstance(instruction, (LoadCopy, LoadTile, StoreCopy, StoreTile)):
            touched, kind = accesses(instruction, state), instruction.mnemonic.split(".")[0]
            region = Region(instruction.region).name
            for box in (*touched.reads, *touched.writes):
                side = kind if box.space is not Memory.SRAM else f"{kind} sram"
                moved[side, region] += box.run * box.n0 * box.n1 * box.n2
        elif isinstance(instruction, VcuRun):
            for box in accesses(instruction, state).writes:
                moved["vcu", box.space.name] += box.run * box.n0 * box.n1 * box.n2
        state.apply(instruction)
    return moved
