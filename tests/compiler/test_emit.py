"""Binaries: what their tensors, regions and locations say, and instructions in the machine's bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.pipeline import Options, compile_module
from isa.access import Memory, accesses
from isa.container import Binary, TensorInfo
from isa.errors import UnsupportedError
from isa.instructions import DType, Halt
from isa.machine import Machine
from isa.program import decode
from isa.state import State
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, add, conv, dq, graph, q, relu

TINY = Machine.load("tiny")
ALL = {**GRAPHS, **{n: c for n, c in CASES.items() if not n.endswith("_batch")}}


def emitted(body, *shapes: tuple[int, ...]) -> Binary:
    return compile_module(graph(list(shapes) or [(1, 3, 9, 8)], body), TINY, Options()).binary


def test_tensors_are_described_in_order():
    binary = emitted(lambda x, y: [q(relu(x)), relu(y)], (1, 3, 5, 5), (2, 4))
    assert binary.inputs == (
        TensorInfo("input0", (1, 3, 5, 5), DType.F32, 0),
        TensorInfo("input1", (2, 4), DType.F32, 320),
    )
    assert binary.outputs == (
        TensorInfo("output0", (1, 3, 5, 5), DType.I8, 0),
        TensorInfo("output1", (2, 4), DType.F32, 128),
    )
    assert (binary.input_bytes, binary.output_bytes) == (384, 192)


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ALL)
def test_every_access_lies_inside_of_its_memory(name):
    binary = compile_module(graph(*ALL[name]), TINY, Options()).binary
    sizes = {
        Memory.SRAM: TINY.sram.bytes,
        Memory.ACC: TINY.acc.bytes,
        Memory.CONSTANTS: len(binary.constants),
        Memory.INPUT: binary.input_bytes,
        Memory.OUTPUT: binary.output_bytes,
        Memory.ARENA: binary.arena_bytes,
    }
    state = State()
    for instruction in decode(binary.code):
        state.apply(instruction)
        touched = accesses(instruction, state)
        for box in (*touched.reads, *touched.writes):
            assert box.start >= 0
            assert box.stop <= sizes[box.space], f"{instruction} reaches {box}"


def test_a_program_ends_with_halt():
    assert isinstance(decode(emitted(relu).code)[-1], Halt)


def test_a_network_that_stays_on_chip_needs_no_arena():
    binary = emitted(lambda x: conv(q(conv(q(x), 4)), 4))
    assert binary.arena_bytes == 0


def test_equal_weights_are_stored_once():
    def shared(x):
        first = q(conv(q(x), 3, 3))
        weights = first.owner.operands[0].owner.w
        again = conv(first, 3, 3)
        again.owner.operands[1] = weights
        return again

    def apart(x):
        return conv(q(conv(q(x), 3, 3)), 3, 3)

    assert len(emitted(shared).constants) < len(emitted(apart).constants)


def test_a_residual_belongs_to_the_add_that_reads_it():
    def body(x):
        a = q(conv(q(x), 8))
        return q(relu(add(conv(a, 8, 3), dq(a))))

    nodes = [location.node for location in emitted(body).locations]
    assert nodes[-1] == "overhead:end of program"
    assert "n3" in nodes


def test_a_vector_unit_too_small_for_a_program_is_an_error():
    small = replace(TINY, name="small", vcu=replace(TINY.vcu, slots=1))
    module = graph([(1, 3, 9, 8)], lambda x: q(relu(add(relu(x), x))))
    with pytest.raises(UnsupportedError, match=r"its vector program needs \d+ slots, small has \[vcu\] slots = 1"):
        compile_module(module, small, Options())
