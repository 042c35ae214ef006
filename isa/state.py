"""The sticky registers that setup instructions write, one set per engine."""

from __future__ import annotations

from collections.abc import Callable

from isa.encoding import Instruction
from isa.instructions import (
    LoadShape,
    LoadStrides,
    MmuCodes,
    MmuInput,
    MmuOutput,
    MmuTable,
    MmuWeight,
    MmuWindow,
    StoreShape,
    StoreStrides,
    VcuBase,
    VcuConvert,
    VcuOp,
    VcuParams,
    VcuReduce,
    VcuResize,
    VcuShape,
    VcuStream,
    VcuThreshold,
    VcuWindow,
)

VCU_SLOTS = 64
VCU_STREAMS = 8
CODEBOOK = 16


class State:
    """The last setup instruction of every class; ``vcu.op`` per slot, streams and conversions per id.

    Before a program starts every register holds its class defaults. Registers belong to one engine and
    change in that engine's queue order, so walking a program in order gives each instruction its state.
    """

    __slots__ = (
        "load_shape",
        "load_strides",
        "mmu_codes",
        "mmu_input",
        "mmu_output",
        "mmu_tables",
        "mmu_weight",
        "mmu_window",
        "store_shape",
        "store_strides",
        "vcu_base",
        "vcu_converts",
        "vcu_ops",
        "vcu_params",
        "vcu_reduce",
        "vcu_resizes",
        "vcu_shape",
        "vcu_streams",
        "vcu_thresholds",
        "vcu_window",
    )

    def __init__(self) -> None:
        self.load_shape = LoadShape()
        self.load_strides = LoadStrides()
        self.store_shape = StoreShape()
        self.store_strides = StoreStrides()
        self.mmu_input = MmuInput()
        self.mmu_window = MmuWindow()
        self.mmu_weight = MmuWeight()
        self.mmu_output = MmuOutput()
        self.mmu_codes = MmuCodes()
        self.mmu_tables: list[MmuTable] = [MmuTable(index=index) for index in range(CODEBOOK)]
        self.vcu_shape = VcuShape()
        self.vcu_params = VcuParams()
        self.vcu_window = VcuWindow()
        self.vcu_base = VcuBase()
        self.vcu_reduce = VcuReduce()
        self.vcu_resizes: list[VcuResize] = [VcuResize(axis=axis) for axis in range(2)]
        self.vcu_thresholds: list[VcuThreshold] = [VcuThreshold(index=index) for index in range(CODEBOOK)]
        self.vcu_ops: list[VcuOp] = [VcuOp(slot=slot) for slot in range(VCU_SLOTS)]
        self.vcu_streams: list[VcuStream] = [VcuStream(id=stream) for stream in range(VCU_STREAMS)]
        self.vcu_converts: list[VcuConvert] = [VcuConvert(id=stream) for stream in range(VCU_STREAMS)]

    def apply(self, instruction: Instruction) -> bool:
        """Take a setup instruction into the registers; False, and no change, for any other instruction."""
        if (setter := SETTERS.get(type(instruction))) is None:
            return False
        setter(self, instruction)
        return True

    def program(self, first: int, count: int) -> tuple[VcuOp, ...]:
        """The vector program of ``vcu.run``; slots past the last are left out (running them is an error)."""
        return tuple(self.vcu_ops[first : first + count])


def _sticky(register: str) -> Callable[[State, Instruction], None]:
    def put(state: State, instruction: Instruction) -> None:
        setattr(state, register, instruction)

    return put


def _put_op(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, VcuOp)
    state.vcu_ops[instruction.slot] = instruction


def _put_stream(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, VcuStream)
    state.vcu_streams[instruction.id] = instruction


def _put_convert(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, VcuConvert)
    state.vcu_converts[instruction.id] = instruction


def _put_table(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, MmuTable)
    state.mmu_tables[instruction.index] = instruction


def _put_resize(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, VcuResize)
    state.vcu_resizes[instruction.axis] = instruction


def _put_threshold(state: State, instruction: Instruction) -> None:
    assert isinstance(instruction, VcuThreshold)
    state.vcu_thresholds[instruction.index] = instruction


SETTERS: dict[type[Instruction], Callable[[State, Instruction], None]] = {
    LoadShape: _sticky("load_shape"),
    LoadStrides: _sticky("load_strides"),
    StoreShape: _sticky("store_shape"),
    StoreStrides: _sticky("store_strides"),
    MmuInput: _sticky("mmu_input"),
    MmuWindow: _sticky("mmu_window"),
    MmuWeight: _sticky("mmu_weight"),
    MmuOutput: _sticky("mmu_output"),
    VcuShape: _sticky("vcu_shape"),
    VcuParams: _sticky("vcu_params"),
    VcuWindow: _sticky("vcu_window"),
    VcuBase: _sticky("vcu_base"),
    VcuOp: _put_op,
    VcuStream: _put_stream,
    VcuConvert: _put_convert,
    MmuCodes: _sticky("mmu_codes"),
    MmuTable: _put_table,
    VcuReduce: _sticky("vcu_reduce"),
    VcuResize: _put_resize,
    VcuThreshold: _put_threshold,
}
