"""Costs: closed forms, completeness over the table, and the helpers that the compiler shares."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import cost as costs
from isa.cycles import ALL_STEPS, CHEAP_FUNCS, dma_cycles, mmu_cycles, vcu_cycles, vcu_passes, weight_fill_cycles
from isa.encoding import INSTRUCTIONS
from isa.energy import Event
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
    MmuWindow,
    Operand,
    Reduce,
    Space,
    StoreCopy,
    VcuConvert,
    VcuOp,
    VcuParams,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuWindow,
)
from isa.machine import Machine
from isa.numerics.functions import STEPS
from isa.pricing import KEYS, price
from isa.state import SETTERS, State
from tests.isa.strategies import instructions
from tests.thinning import examples

EDGE, TINY = Machine.load("edge28"), Machine.load("tiny")


def state_of(*setup) -> State:
    state = State()
    for inst in setup:
        assert state.apply(inst)
    return state


def test_every_instruction_has_a_cost():
    assert set(costs.COSTS) == set(INSTRUCTIONS.values())


def test_every_instruction_of_variable_cost_has_a_key():
    fixed = {kind for kind, function in costs.COSTS.items() if function is costs.COSTS[next(iter(SETTERS))]}
    assert set(KEYS) == set(INSTRUCTIONS.values()) - fixed


def test_every_function_has_its_steps():
    assert {func.name.lower() for func in Func if func not in CHEAP_FUNCS} == set(ALL_STEPS)


@pytest.mark.parametrize("kind", [kind for kind in INSTRUCTIONS.values() if kind not in KEYS])
def test_setup_and_sync_take_one_cycle(kind):
    assert costs.cycles(kind(), State(), EDGE) == 1
    assert costs.events(kind(), State(), EDGE) == {Event.INSTRUCTION: 1}


def test_dense_run():
    state = state_of(MmuInput(channels=64), MmuWindow(kernel_h=3, kernel_w=3), MmuOutput(height=14, width=14))
    run = MmuRun(n=100)
    # K = 576 in 18 tiles, n in 4 tiles, M = 196 in 4 chunks of 49; pipeline 8, weight fill 16, drain 49
    assert costs.cycles(run, state, EDGE) == 8 + 16 + 18 * 4 * 196 + 49
    found = costs.events(run, state, EDGE)
    assert found[Event.MAC_W8A8] == 196 * 576 * 100
    assert found[Event.MAC_W8A8] + found[Event.IDLE_W8A8] == 196 * 18 * 4 * 1024
    assert found[Event.ACC_WRITE_WORD] == 196 * 100 * 4 // 32
    assert Event.ACC_READ_WORD not in found
    accumulated = costs.events(dataclasses.replace(run, accumulate=1), state, EDGE)
    assert accumulated[Event.ACC_READ_WORD] == 196 * 100 * 4 // 32


def test_few_rows_are_bound_by_the_weight_port():
    # One row: every weight tile takes its fill of 16 cycles.
    assert mmu_cycles(1, 2048, 1000, EDGE) == 8 + 16 + 64 * 32 * 16 + 1
    assert weight_fill_cycles(EDGE.mmu) == 16


def test_chunks_are_even_so_that_a_remainder_never_waits_for_weights():
    # 65 rows are 33 + 32, not 64 + 1
    assert mmu_cycles(65, 32, 32, EDGE) == 8 + 16 + 65 + 32


def test_depthwise_run():
    state = state_of(MmuInput(channels=48), MmuWindow(kernel_h=5, kernel_w=5), MmuOutput(height=7, width=7))
    run = MmuRun(n=48, depthwise=1)
    assert costs.cycles(run, state, EDGE) == 8 + 49 * 3 * 2
    assert costs.events(run, state, EDGE)[Event.MAC_W8A8] == 49 * 25 * 48


def test_depthwise_windows_reread_only_what_slides_in():
    """A row of the window's columns stays buffered: stride_w new columns per output, all of them when dilated."""
    for stride, dilation, fresh in ((1, 1, 3), (2, 1, 6), (4, 1, 9), (1, 2, 9)):
        window = MmuWindow(kernel_h=3, kernel_w=3, stride_w=stride, dilation_w=dilation)
        state = state_of(MmuInput(channels=64), window, MmuOutput(height=7, width=7))
        weights = 9 * 64 // 32
        words = costs.events(MmuRun(n=64, depthwise=1), state, EDGE)[Event.SRAM_READ_WORD]
        assert words == 49 * fresh * 2 + weights


def test_vector_run_counts_passes():
    ops = [VcuOp(slot=i, func=Func.ADD) for i in range(5)]
    state = state_of(*ops, VcuShape(n0=10, n1=10, n2=64))
    assert costs.cycles(VcuRun(count=4), state, EDGE) == 12 + 100
    assert costs.cycles(VcuRun(count=5), state, EDGE) == 12 + 200


def test_function_takes_its_steps_in_whole_passes():
    state = state_of(VcuOp(slot=0, func=Func.SIGMOID), VcuShape(n0=1, n1=1, n2=64))
    passes = -(-STEPS["sigmoid"] // 4)
    assert costs.cycles(VcuRun(count=1), state, EDGE) == 12 + passes
    assert vcu_passes([Func.SIGMOID], EDGE) == passes


def test_window_takes_a_cycle_per_tap():
    window = VcuWindow(reduce=Reduce.MAX, kernel_h=3, kernel_w=3, height=20, width=20)
    state = state_of(window, VcuShape(n0=10, n1=10, n2=64), VcuStream(id=0, stride0=1280, stride1=64))
    assert costs.cycles(VcuRun(), state, EDGE) == 12 + 900


def test_window_adds_once_per_tap_and_element():
    shape = VcuShape(n0=2, n1=3, n2=8)
    window = VcuWindow(reduce=Reduce.SUM, kernel_h=3, kernel_w=2, height=9, width=9)
    plain = costs.events(VcuRun(), state_of(shape), EDGE)[Event.VCU_ADD]
    pooled = costs.events(VcuRun(), state_of(shape, window), EDGE)[Event.VCU_ADD]
    assert pooled - plain == 48 * 6


def test_gaps_between_elements_cost_a_word_each():
    state = state_of(VcuShape(n0=1, n1=1, n2=6400), VcuStream(id=0, stride2=49))
    # 6400 words for the input and 200 for the dense output, from 16 banks
    assert costs.cycles(VcuRun(), state, EDGE) == 12 + -(-(6400 + 200) // 16)
    assert vcu_cycles(6400, 0, 1, EDGE, strided=True) == 12 + 400


def test_parameters_are_read_once():
    op = VcuOp(func=Func.MUL, b_kind=Operand.PARAMETER)
    acc = VcuStream(id=0, dtype=DType.I32, space=Space.ACC, stride0=2560, stride1=256, stride2=4)
    out = VcuStream(id=7, stride0=640, stride1=64)
    state = state_of(op, acc, out, VcuParams(), VcuShape(n0=10, n1=10, n2=64), VcuConvert(id=7, scale=2.0))
    found = costs.events(VcuRun(count=1), state, EDGE)
    assert found[Event.SRAM_READ_WORD] == 64 * 4 // 32
    assert found[Event.ACC_READ_WORD] == 6400 * 4 // 32
    assert found[Event.SRAM_WRITE_WORD] == 6400 // 32
    # int32 to binary32, the multiplication, and scale, round, add, clamp to int8
    assert found[Event.VCU_MUL] == 2 * 6400
    assert found[Event.VCU_ADD] == 4 * 6400


@settings(max_examples=examples(200), deadline=None)
@given(
    start=st.integers(0, 200),
    run=st.integers(0, 200),
    n0=st.integers(0, 7),
    s0=st.integers(0, 700),
    n1=st.integers(0, 7),
    s1=st.integers(0, 300),
)
def test_bursts_are_those_that_the_runs_touch(start, run, n0, s0, n1, s1):
    found = costs.bursts(start, run, n0, s0, n1, s1, 64)
    firsts = [start + i * s0 + j * s1 for i in range(n0) for j in range(n1)] if run else []
    separate = sum((first + run - 1) // 64 - first // 64 + 1 for first in firsts)
    touched = {burst for first in firsts for burst in range(first // 64, (first + run - 1) // 64 + 1)}
    meets = run in (s0, s1) or run * n1 == s0 or run * n0 == s1
    assert found <= separate
    if not meets:
        assert found == separate
    if s0 and s1:
        assert found >= len(touched) or not firsts


def test_contiguous_runs_are_one():
    assert costs.bursts(0, 56, 10, 560, 10, 56, 64) == -(-5600 // 64)


def test_a_tile_of_billions_of_runs_is_priced_in_closed_form():
    state = state_of(LoadShape(n0=65535, n1=65535, run=3), LoadStrides(dram0=16_000_001, dram1=5))
    assert costs.cycles(LoadTile(), state, EDGE) > 65535 * 65535


def test_scattered_bytes_are_bound_by_sram_words():
    # 1-byte runs that meet in DRAM but not in SRAM: one word written for each
    state = state_of(LoadShape(n0=3, n1=1000, run=1), LoadStrides(dram0=1000, dram1=1, sram0=1, sram1=3))
    assert costs.cycles(LoadTile(), state, EDGE) == 3000
    assert costs.events(LoadTile(), state, EDGE)[Event.DRAM_READ_BYTE] == -(-3000 // 64) * 64


def test_dma_helper_is_the_instruction():
    assert dma_cycles(1, 6400, EDGE) == costs.cycles(LoadCopy(bytes=6400), State(), EDGE)
    assert dma_cycles(1, 6400, TINY) == costs.cycles(StoreCopy(bytes=6400), State(), TINY)


@settings(max_examples=examples(100), deadline=None)
@given(program=st.lists(instructions(), max_size=8))
def test_any_program_has_a_price_and_the_fast_walk_agrees(program):
    prices = price(program, TINY)
    state = State()
    for i, inst in enumerate(program):
        found = costs.cost(inst, state, TINY)
        assert found == prices.costs[prices.which[i]]
        assert found.cycles >= 1
        assert found.dram <= found.cycles
        assert min(found.counts) >= 0
        state.apply(inst)
