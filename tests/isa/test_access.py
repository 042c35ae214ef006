"""Boxes of bytes, their overlap, and what each instruction touches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.access import ACCESSES, NOTHING, Accesses, Box, Memory, accesses, make_box, reach, taps
from isa.encoding import INSTRUCTIONS
from isa.instructions import (
    DType,
    Func,
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuWeight,
    MmuWindow,
    Operand,
    Reduce,
    Region,
    Space,
    StoreCopy,
    VcuBase,
    VcuOp,
    VcuParams,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuWindow,
)
from isa.state import State

LOOPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), max_size=3)


def covered(boxes: tuple[Box, ...]) -> set[int]:
    """The bytes of ``boxes``."""
    found: set[int] = set()
    for box in boxes:
        i, j, k, byte = np.ix_(range(box.n0), range(box.n1), range(box.n2), range(box.run))
        found |= set(np.ravel(box.start + i * box.stride0 + j * box.stride1 + k * box.stride2 + byte).tolist())
    return found


def naive(start: int, run: int, loops: list[tuple[int, int]]) -> set[int]:
    found = set(range(start, start + run))
    for n, stride in loops:
        found = {byte + i * stride for byte in found for i in range(n)}
    return found


def under(*setups: object) -> State:
    state = State()
    for setup in setups:
        assert state.apply(setup)  # type: ignore[arg-type]
    return state


def test_every_instruction_has_an_entry():
    assert set(ACCESSES) == set(INSTRUCTIONS.values())


@given(st.integers(0, 20), st.integers(0, 6), LOOPS)
def test_the_normal_form_has_the_bytes_of_the_loops(start, run, loops):
    boxes = make_box(Memory.SRAM, start, run, *loops)
    assert covered(boxes) == naive(start, run, loops)
    for box in boxes:
        assert box.stop == max(covered(boxes)) + 1
        assert not box.dense or len(covered(boxes)) == box.run


@given(st.integers(0, 30), st.integers(1, 6), LOOPS, st.integers(0, 30), st.integers(1, 6), LOOPS)
def test_boxes_that_share_a_byte_overlap(start_a, run_a, loops_a, start_b, run_b, loops_b):
    a, b = make_box(Memory.SRAM, start_a, run_a, *loops_a), make_box(Memory.SRAM, start_b, run_b, *loops_b)
    if covered(a) & covered(b):
        assert a[0].overlaps(b[0])
        assert b[0].overlaps(a[0])


@given(st.integers(0, 30), st.integers(1, 6), st.integers(0, 30), st.integers(1, 6))
def test_overlap_of_contiguous_boxes_is_exact(start_a, run_a, start_b, run_b):
    a, b = Box(Memory.SRAM, start_a, run_a), Box(Memory.SRAM, start_b, run_b)
    assert a.overlaps(b) == bool(covered((a,)) & covered((b,)))


def test_channel_slices_of_one_tensor_are_apart():
    first = Box(Memory.SRAM, 0, 16, 8, 64)
    assert not first.overlaps(Box(Memory.SRAM, 16, 48, 8, 64))
    assert first.overlaps(Box(Memory.SRAM, 15, 48, 8, 64))


def test_columns_of_one_tensor_are_apart_also_when_they_are_channel_slices():
    left = Box(Memory.SRAM, 0, 16, 8, 1024, 4, 64)
    right = Box(Memory.SRAM, 4 * 64, 16, 8, 1024, 12, 64)
    assert not left.overlaps(right)


def test_equal_addresses_in_two_spaces_are_apart():
    assert not Box(Memory.SRAM, 0, 4).overlaps(Box(Memory.ACC, 0, 4))
    assert not Box(Memory.INPUT, 0, 4).overlaps(Box(Memory.ARENA, 0, 4))


def test_copies_touch_both_sides():
    load = LoadCopy(region=Region.CONSTANTS, offset=100, sram=8, bytes=12)
    assert accesses(load, State()) == Accesses((Box(Memory.CONSTANTS, 100, 12),), (Box(Memory.SRAM, 8, 12),))
    store = StoreCopy(region=Region.OUTPUT, offset=100, sram=8, bytes=12)
    assert accesses(store, State()) == Accesses((Box(Memory.SRAM, 8, 12),), (Box(Memory.OUTPUT, 100, 12),))


def test_a_tile_load_gathers_into_a_dense_box():
    state = under(LoadShape(n0=2, n1=3, run=4), LoadStrides(dram0=100, dram1=10, sram0=12, sram1=4))
    load = LoadTile(region=Region.INPUT, offset=7, sram=64)
    assert accesses(load, state) == Accesses((Box(Memory.INPUT, 7, 4, 2, 100, 3, 10),), (Box(Memory.SRAM, 64, 24),))


def test_setup_and_empty_runs_touch_nothing():
    assert accesses(MmuInput(), State()) == NOTHING
    assert accesses(VcuRun(), under(VcuShape(n0=0))) == NOTHING
    assert accesses(LoadCopy(bytes=0), State()) == NOTHING


@given(*(st.integers(low, high) for low, high in [(0, 6), (0, 4), (0, 4), (0, 3), (0, 4), (0, 9)]))
def test_taps_cover_what_a_window_visits(out, kernel, stride, dilation, pad, size):
    rows = {y * stride + i * dilation - pad for y in range(out) for i in range(kernel)} & set(range(size))
    parts = taps(out, kernel, stride, dilation, pad, size)
    assert {first + i * step for first, count, step in parts for i in range(count)} == rows
    assert set(reach(out, kernel, stride, dilation, pad, size)) == (
        set(range(min(rows), max(rows) + 1)) if rows else set()
    )


def test_a_strided_pointwise_convolution_reads_only_its_pixels():
    state = under(
        MmuInput(height=5, width=5, channels=8, row_stride=40, pixel_stride=8),
        MmuWindow(stride_h=2, stride_w=2),
        MmuWeight(row_stride=8),
        MmuOutput(height=3, width=3, pixel_stride=16),
    )
    found = accesses(MmuRun(act=0, weight=512, acc=0, n=4), state)
    assert found.reads == (Box(Memory.SRAM, 0, 8, 3, 80, 3, 16), Box(Memory.SRAM, 512, 32))
    assert found.writes == (Box(Memory.ACC, 0, 144),)


def test_taps_outside_the_tile_are_not_read():
    state = under(
        MmuInput(height=4, width=4, channels=2, row_stride=8, pixel_stride=2),
        MmuWindow(kernel_h=3, kernel_w=3, pad_top=1, pad_left=1),
        MmuWeight(row_stride=18),
        MmuOutput(height=4, width=4, pixel_stride=4),
    )
    assert accesses(MmuRun(act=100, weight=512), state).reads[0] == Box(Memory.SRAM, 100, 32)


def test_accumulating_reads_the_accumulators():
    assert accesses(MmuRun(accumulate=1), State()).reads[-1] == Box(Memory.ACC, 0, 4)
    assert accesses(MmuRun(), State()).reads[-1].space is Memory.SRAM


@pytest.mark.parametrize(
    ("transposed", "depthwise", "box"),
    [
        (0, 0, Box(Memory.SRAM, 0, 12, 6, 32)),
        (1, 0, Box(Memory.SRAM, 0, 6, 12, 32)),
        (0, 1, Box(Memory.SRAM, 0, 6, 4, 32)),
    ],
)
def test_weight_rows(transposed, depthwise, box):
    state = under(
        MmuInput(channels=3, height=2, width=2),
        MmuWindow(kernel_h=2, kernel_w=2),
        MmuWeight(row_stride=32, transposed=transposed),
    )
    assert accesses(MmuRun(n=6, depthwise=depthwise), state).reads[1] == box


def test_a_vector_run_reads_its_streams_and_only_the_parameters_it_uses():
    state = under(
        VcuShape(n0=2, n1=3, n2=4),
        VcuStream(id=0, dtype=DType.I32, space=Space.ACC, stride0=48, stride1=16, stride2=4),
        VcuStream(id=2, dtype=DType.F32, stride0=0, stride1=0, stride2=4),
        VcuStream(id=7, stride0=96, stride1=32),
        VcuBase(c=1024),
        VcuParams(base=2048, stride=256),
        VcuOp(slot=0, func=Func.MUL, b_kind=Operand.PARAMETER, b=1),
        VcuOp(slot=1, func=Func.COPY, b_kind=Operand.PARAMETER, b=3),
    )
    found = accesses(VcuRun(count=2, streams=3, a=0, b=512, dst=4096), state)
    assert found.reads == (
        Box(Memory.ACC, 0, 96),
        Box(Memory.SRAM, 512, 4),
        Box(Memory.SRAM, 1024, 16),
        Box(Memory.SRAM, 2048 + 256, 16),
    )
    assert found.writes == (Box(Memory.SRAM, 4096, 4, 2, 96, 3, 32),)


def test_a_window_reduction_reads_the_tile_of_its_taps():
    state = under(
        VcuShape(n0=2, n1=2, n2=8),
        VcuStream(id=0, stride0=40, stride1=8),
        VcuStream(id=7, stride0=16, stride1=8),
        VcuWindow(reduce=Reduce.MAX, kernel_h=2, kernel_w=2, stride_h=2, stride_w=2, height=5, width=5),
    )
    assert accesses(VcuRun(a=0, dst=512), state).reads == (Box(Memory.SRAM, 0, 32, 4, 40),)
