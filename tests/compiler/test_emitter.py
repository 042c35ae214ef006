"""Setup that would change nothing is not said again."""

from __future__ import annotations

from math import copysign

from compiler.backend.emitter import Emitter
from isa.instructions import DType, Func, Halt, LoadCopy, MmuOutput, Operand, Space, VcuConvert, VcuOp, VcuStream


def test_the_same_setup_is_said_once():
    emitter = Emitter()
    for width in (4, 4, 5, 4):
        emitter.setup(MmuOutput, 2, width, 32)
    assert [i.width for i in emitter.instructions] == [4, 5, 4]


def test_streams_and_conversions_are_kept_apart_by_their_index():
    emitter = Emitter()
    for _ in range(2):
        for index in (0, 1):
            emitter.setup(VcuStream, index, DType.I8, Space.SRAM, 8, 2, 1)
            emitter.setup(VcuConvert, index, 3, 0.5)
    assert [(type(i), i.id) for i in emitter.instructions] == [
        (VcuStream, 0), (VcuConvert, 0), (VcuStream, 1), (VcuConvert, 1),
    ]  # fmt: skip


def test_zeros_of_different_sign_are_different_immediates():
    emitter = Emitter()
    for value in (0.0, -0.0, -0.0, 0.0):
        emitter.setup(VcuOp, 2, Func.MAX, 0, 0, Operand.IMMEDIATE, 0, value)
    assert [copysign(1, i.immediate) for i in emitter.instructions] == [1, -1, 1]


def test_work_is_never_elided_and_keeps_the_location_of_its_time():
    emitter = Emitter()
    emitter.run(LoadCopy(bytes=4))
    emitter.location = 7
    emitter.run(LoadCopy(bytes=4))
    emitter.setup(MmuOutput, 1, 1, 4)
    emitter.run(Halt())
    assert len(emitter.instructions) == 4
    assert emitter.locations == [0, 7, 7, 7]
