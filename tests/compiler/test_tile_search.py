"""Chosen schedules fit; what cannot fit is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.analysis.cost import Residency, kernel_cost
from compiler.analysis.tile_search import check_schedule, choose_schedule
from compiler.ir.kernel import CopyAnchor, KernelSpec, MatrixAnchor, PoolAnchor, Stream, VectorProgram, Window
from compiler.ir.schedule import KernelSchedule
from compiler.ir.tiling import Tiling
from isa.errors import ScheduleError
from isa.instructions import DType, Reduce
from isa.machine import Machine

TINY, EDGE = Machine.load("tiny"), Machine.load("edge28")
CODES = VectorProgram((Stream(None, DType.I32),), (), DType.I8)
NOWHERE = Residency((False, False), False)


def convolution(channels: int, out: int, size: int, taps: int, groups: int = 1, pooled: bool = False) -> KernelSpec:
    depthwise = groups > 1 and channels == out == groups
    anchor = MatrixAnchor(0, 1, Window((taps, taps), pad=(taps // 2,) * 2), groups, 0, depthwise=depthwise)
    inner = (1, size, size, out)
    operands = ((1, size, size, channels), (out, taps, taps, channels // groups))
    spec = KernelSpec("k", operands, (DType.I8, DType.I8), inner, anchor, CODES)
    if not pooled:
        return spec
    pool = PoolAnchor(-1, Window((3, 3), (2, 2), pad=(1, 1)), Reduce.MAX, 0, 0.0)
    half = (size + 1) // 2
    program = VectorProgram((Stream(None, DType.I8),), (), DType.I8)
    return replace(spec, output=(1, half, half, out), inner=inner, pool=pool, pool_program=program)


@st.composite
def kernels(draw: st.DrawFn) -> KernelSpec:
    size, taps = draw(st.integers(1, 60)), draw(st.sampled_from([1, 3, 5]))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    channels, out = groups * draw(st.integers(1, 80)), groups * draw(st.integers(1, 80))
    if draw(st.booleans()):
        groups = out = channels
    return convolution(channels, out, size, taps, groups, draw(st.booleans()))


@pytest.mark.parametrize("output", [(1, 1, 75264, 1), (1, 75264, 1, 1), (1, 1, 1, 75264)])
def test_tiles_are_as_large_as_an_instruction_can_say(output):
    """SRAM of some machines holds more than the 65535 elements of an axis of ``vcu.shape``."""
    roomy = Machine.load("quartdepth28-w4a8")
    program = VectorProgram((Stream(0, DType.F32),), (), DType.I8)
    spec = KernelSpec("k", (output,), (DType.F32,), output, None, program)
    choice = choose_schedule(spec, ("n",), Residency((True,), True), roomy, roomy.sram.bytes)
    assert choice is not None
    assert max(choice[0].tile) <= 65535


@given(kernels(), st.sampled_from([TINY, EDGE]), st.sampled_from([1, 2]), st.integers(4, 16))
def test_the_choice_fits_and_is_legal(spec, machine, slots, sixteenths):
    budget = machine.sram.bytes * sixteenths // 16
    choice = choose_schedule(spec, ("n",), NOWHERE, machine, budget, slots)
    assert choice is not None
    schedule, cost = choice
    assert cost.sram_bytes <= budget
    assert cost.acc_bytes <= machine.acc.bytes
    assert check_schedule(spec, schedule, NOWHERE, machine, budget) == cost
    assert kernel_cost(Tiling(spec, schedule), NOWHERE, machine) == cost


def test_nothing_fits_into_nothing():
    assert choose_schedule(convolution(8, 8, 8, 3), ("n",), NOWHERE, TINY, 0) is None


def test_what_fits_only_once_gets_rings_of_one_slot():
    spec = convolution(8, 8, 8, 3)
    once = choose_schedule(spec, ("n",), NOWHERE, TINY, TINY.sram.bytes, 1)
    assert once is not None
    needed = once[1].sram_bytes
    while (less := choose_schedule(spec, ("n",), NOWHERE, TINY, needed - 1, 1)) is not None:
        once, needed = less, less[1].sram_bytes
    assert choose_schedule(spec, ("n",), NOWHERE, TINY, needed) == once
    assert choose_schedule(spec, ("n",), NOWHERE, TINY, needed, stripes=(8,)) is None


def test_a_pool_that_reads_much_more_than_it_gives_is_cut():
    """A row of 32 outputs fits many times, the 16 rows of 512 pixels that it reads do not fit once."""
    pool = PoolAnchor(0, Window((16, 16), (16, 16)), Reduce.MAX, 0, 0.0)
    program = VectorProgram((Stream(None, DType.I8),), (), DType.I8)
    spec = KernelSpec("k", ((1, 512, 512, 16),), (DType.I8,), (1, 32, 32, 16), pool, program)
    choice = choose_schedule(spec, ("n",), Residency((False,), False), TINY, TINY.sram.bytes)
    assert choice is not None
    assert choice[0].tile_w < 32
    assert choice[0].stream_slots == 2


def test_more_room_is_never_worse():
    spec = convolution(64, 64, 28, 3)
    costs = [choose_schedule(spec, ("n",), NOWHERE, TINY, TINY.sram.bytes // d) for d in (1, 2, 4)]
    prices = [c[1].cycles + 0.02 * c[1].dma for c in costs if c is not None]
    assert len(prices) == 3
    assert prices[0] <= prices[1] * 1.05 <= prices[2] * 1.05**2


def test_a_deep_reduction_is_cut_only_where_it_does_not_fit():
    deep = convolution(4096, 8, 1, 3)
    on_tiny = choose_schedule(deep, ("n",), NOWHERE, TINY, TINY.sram.bytes)
    on_edge = choose_schedule(deep, ("n",), NOWHERE, EDGE, EDGE.sram.bytes)
    assert on_tiny is not None
    assert on_edge is not None
    assert on_tiny[0].tile_k < 4096
    assert on_tiny[0].tile_k % TINY.mmu.lanes.w8a8.k == 0
    assert on_edge[0].tile_k == 4096


def test_a_copy_moves_its_tensor_whole():
    spec = KernelSpec("k", ((1, 4, 5, 6),), (DType.I8,), (1, 5, 4, 6), CopyAnchor(0, (120,), (1,), (1,)), CODES)
    choice = choose_schedule(spec, ("n",), Residency((False,), False), TINY, TINY.sram.bytes)
    assert choice is not None
    assert (choice[0].tile_h, choice[0].tile_w, choice[0].tile_c) == (5, 4, 6)


def test_a_chunk_of_the_reduction_stays_inside_of_a_group():
    spec = convolution(16, 16, 8, 3, groups=4)
    legal = KernelSchedule("k", (), 4, 8, 4, 2)
    check_schedule(spec, legal, NOWHERE, TINY, TINY.sram.bytes)
    with pytest.raises(
        ScheduleError, match=r"^kernel 'k': tile_c = 8 spans groups, so tile_k must cover a whole group"
    ):
        check_schedule(spec, replace(legal, tile_c=8), NOWHERE, TINY, TINY.sram.bytes)
    with pytest.raises(ScheduleError, match=r"^kernel 'k': tile_c = 3 spans groups of 4 outputs, so tile_k must cover"):
        check_schedule(spec, replace(legal, tile_c=3), NOWHERE, TINY, TINY.sram.bytes)


def test_groups_of_a_prime_number_of_outputs_are_cut_to_single_ones():
    spec = convolution(16, 82, 1, 5, groups=2)
    choice = choose_schedule(spec, ("n",), NOWHERE, TINY, TINY.sram.bytes // 4, 2)
    assert choice is not None
    assert choice[0].tile_c == 1


def test_pixels_too_wide_for_the_instruction_are_cut():
    spec = convolution(70000, 4, 1, 1)
    choice = choose_schedule(spec, ("n",), NOWHERE, EDGE, EDGE.sram.bytes)
    assert choice is not None
    assert choice[0].tile_k < 1 << 16
    assert choose_schedule(spec, ("n",), Residency((True, False), False), EDGE, EDGE.sram.bytes) is None
