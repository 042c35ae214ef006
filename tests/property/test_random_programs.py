"""Random instructions: accesses are what they touch, and nothing crashes, hangs or leaves its space."""

import contextlib
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import program
from isa.access import Box, Memory, accesses
from isa.container import Binary, Location
from isa.encoding import Instruction
from isa.errors import QuarticError, SimulationError
from isa.instructions import (
    DType,
    Func,
    Halt,
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    MmuCodes,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuWeight,
    MmuWindow,
    Operand,
    Reduce,
    Region,
    RowReduce,
    Space,
    StoreCopy,
    StoreShape,
    StoreStrides,
    StoreTile,
    VcuBase,
    VcuConvert,
    VcuOp,
    VcuParams,
    VcuReduce,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuWindow,
)
from isa.instructions.vcu import STREAM_OUTPUT
from isa.machine import Acc, Machine, Sram
from isa.state import State
from runtime.functional import Context, execute
from runtime.memory import Memories
from runtime.session import run
from tests.isa import strategies
from tests.runtime.machine import TINY, context
from tests.thinning import examples

N = st.integers(1, 3)
BYTE = st.integers(0, 40)
WORD = BYTE.map(lambda i: 4 * i)
STRIDE = st.sampled_from([0, 1, 4, 8, 12, 24])
WIDE = st.sampled_from([0, 4, 8, 12, 48])

DMA = st.one_of(
    st.builds(LoadShape, n0=N, n1=N, run=N),
    st.builds(LoadStrides, dram0=STRIDE, dram1=STRIDE, sram0=STRIDE, sram1=STRIDE),
    st.builds(StoreShape, n0=N, n1=N, run=N),
    st.builds(StoreStrides, dram0=STRIDE, dram1=STRIDE, sram0=STRIDE, sram1=STRIDE),
)
WINDOW = {
    "kernel_h": st.integers(0, 3),
    "kernel_w": st.integers(0, 3),
    "stride_h": st.integers(0, 3),
    "stride_w": st.integers(0, 3),
    "dilation_h": st.integers(0, 2),
    "dilation_w": st.integers(0, 2),
    "pad_top": st.integers(0, 2),
    "pad_left": st.integers(0, 2),
}
SETUPS = st.one_of(
    DMA,
    st.builds(
        MmuInput,
        height=N,
        width=N,
        channels=N,
        row_stride=STRIDE,
        pixel_stride=STRIDE,
    ),
    st.builds(MmuWindow, **WINDOW),
    st.builds(MmuWeight, row_stride=st.sampled_from([4, 32]), transposed=st.integers(0, 1)),
    st.builds(
        MmuCodes,
        act_zero=st.sampled_from([0, -128, 5]),
        weight_zero=st.sampled_from([0, 3]),
        per_channel=st.integers(0, 1),
        weight_zeros=WORD,
        decode=st.sampled_from([0, 0, 0, 1]),
    ),
    st.builds(VcuReduce, kind=st.sampled_from(RowReduce), elements=st.integers(0, 1), dst=WORD),
    st.builds(MmuOutput, height=N, width=N, pixel_stride=st.sampled_from([12, 48])),
    st.builds(VcuShape, n0=N, n1=N, n2=N),
    st.builds(
        VcuStream,
        id=st.sampled_from([0, 1, 2, 3, STREAM_OUTPUT]),
        dtype=st.sampled_from(DType),
        space=st.sampled_from(Space),
        stride0=WIDE,
        stride1=WIDE,
        stride2=WIDE,
    ),
    st.builds(
        VcuConvert, id=st.sampled_from([0, 1, 7]), zero=st.integers(-128, 127), scale=st.sampled_from([0.0, 0.5])
    ),
    st.builds(VcuParams, base=WORD, stride=WIDE),
    st.builds(VcuBase, c=WORD, d=WORD),
    st.builds(VcuWindow, reduce=st.sampled_from(Reduce), height=N, width=N, **WINDOW),
    st.builds(
        VcuOp,
        slot=st.integers(0, 2),
        func=st.sampled_from(Func),
        dst=st.integers(0, 5),
        a=st.integers(0, 5),
        b_kind=st.sampled_from(Operand),
        b=st.integers(0, 5),
    ),
)
MOVES = st.one_of(
    st.builds(LoadCopy, region=st.just(Region.ARENA), offset=BYTE, sram=BYTE, bytes=BYTE),
    st.builds(LoadTile, region=st.sampled_from([Region.INPUT, Region.ARENA]), offset=BYTE, sram=BYTE),
    st.builds(StoreCopy, region=st.sampled_from([Region.OUTPUT, Region.ARENA]), offset=BYTE, sram=BYTE, bytes=BYTE),
    st.builds(StoreTile, region=st.just(Region.ARENA), offset=BYTE, sram=BYTE),
)
MATRIX = st.builds(
    MmuRun, act=BYTE, weight=BYTE, acc=WORD, n=N, accumulate=st.integers(0, 1), depthwise=st.integers(0, 1)
)
VECTOR = st.builds(
    VcuRun, first=st.just(0), count=st.integers(0, 3), streams=st.integers(0, 4), a=WORD, b=WORD, dst=WORD
)
ACTIONS = st.one_of(MOVES, MATRIX, VECTOR)
SMALL = replace(TINY, sram=Sram(1024, 256, 8), acc=Acc(1024))
DRAM = 256
# Outputs that do not overlap themselves, which random strides rarely are.
PLAIN = st.just([VcuStream(id=0), VcuStream(id=STREAM_OUTPUT, dtype=DType.F32, stride0=48, stride1=16, stride2=4)])


def covered(boxes: tuple[Box, ...], space: Memory, size: int) -> torch.Tensor:
    """Mask of the bytes of ``space`` in ``boxes``."""
    mask = torch.zeros(size, dtype=torch.bool)
    for box in boxes:
        if box.space is space:
            shape, strides = (box.n0, box.n1, box.n2, box.run), (box.stride0, box.stride1, box.stride2, 1)
            mask.as_strided(shape, strides, box.start).fill_(True)
    return mask


def outcome(steps: list[Instruction], memory: dict[Memory, torch.Tensor]) -> dict[Memory, torch.Tensor]:
    """The memories after ``steps`` on a copy of ``memory``."""
    found = context(dram=DRAM, machine=SMALL)
    for space, data in memory.items():
        found.memory.bytes[space].copy_(data)
    execute(steps, found)
    return found.memory.bytes


@pytest.mark.slow
@pytest.mark.parametrize("actions", [MOVES, MATRIX, VECTOR], ids=["moves", "matrix", "vector"])
@settings(max_examples=examples(120))
@given(st.data())
def test_instructions_touch_exactly_what_their_accesses_say(actions, data):
    setup = [*data.draw(st.lists(SETUPS, max_size=12)), *data.draw(st.one_of(st.just([]), PLAIN))]
    action, state = data.draw(actions), State()
    for instruction in setup:
        state.apply(instruction)
    reads, writes = accesses(action, state)
    before = {space: held.clone() for space, held in context(dram=DRAM, machine=SMALL).memory.bytes.items()}
    try:
        after = outcome([*setup, action], before)
    except SimulationError:
        return
    other = {s: torch.where(covered(reads, s, held.numel()), held, ~held) for s, held in before.items()}
    again = outcome([*setup, action], other)
    for space, held in before.items():
        written = covered(writes, space, held.numel())
        # A byte that was not written would still differ, as its initial values do.
        assert torch.equal(again[space][written], after[space][written])
        assert torch.equal(after[space][~written], held[~written])


def binary(instructions: tuple[Instruction, ...]) -> Binary:
    code = program.encode([*(i for i in instructions if not isinstance(i, Halt)), Halt()])
    count = len(code) // 16
    location = (Location("", "overhead:test", "", ""),)
    return Binary(Machine.load("tiny"), code, bytes(64), (), (), 64, 64, 64, location, ((count, 0),), {})


@settings(max_examples=examples(150))
@given(st.lists(st.one_of(SETUPS, ACTIONS), max_size=15), st.booleans())
def test_plausible_programs_run_or_raise_our_errors(instructions, checks):
    with contextlib.suppress(QuarticError):
        run(binary(tuple(instructions)), (), checks=checks)


@settings(max_examples=examples(100))
@given(strategies.programs())
def test_arbitrary_programs_run_or_raise_our_errors(instructions):
    for checks in (True, False):
        with contextlib.suppress(QuarticError):
            run(binary(instructions), (), checks=checks)


def test_random_order_gives_the_same_bits():
    """Two executions of one program agree, whatever ran between them."""
    machine = Machine.load("tiny")
    shuffled = random.Random(0)
    steps = [
        VcuShape(n2=64),
        *(VcuRun(a=64 * shuffled.randrange(8), dst=64 * shuffled.randrange(8)) for _ in range(50)),
    ]
    results = []
    for _ in range(2):
        memory = Memories(machine, {})
        memory.bytes[Memory.SRAM][:512] = torch.arange(512).to(torch.uint8)
        execute(steps, Context(machine, memory))
        results.append(memory.bytes[Memory.SRAM].clone())
    assert torch.equal(*results)
