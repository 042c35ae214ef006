"""Energy: event counts times the table, with parts that add up to the total exactly."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from isa.energy import Component, EnergyModel, EnergyTable, Event
from isa.instructions import Halt, LoadCopy, MmuInput, MmuOutput, MmuRun, Mode, VcuSync
from isa.machine import Machine
from runtime.energy import COMPONENTS, account_energy
from runtime.timing import simulate_time
from tests.runtime.programs import programs
from tests.thinning import examples

TINY, EDGE = Machine.load("tiny"), Machine.load("edge28")
MODEL = EnergyModel.of(EDGE)


def test_one_sync_costs_one_instruction():
    energy = account_energy(simulate_time([VcuSync()], EDGE), MODEL)
    row = energy.instruction_fj[0]
    assert row[COMPONENTS.index(Component.INSTRUCTION)] == 8_000
    assert row[COMPONENTS.index(Component.CLOCK)] == 2_000
    assert row.sum() == 10_000


def test_load_pays_for_whole_bursts():
    energy = account_energy(simulate_time([LoadCopy(bytes=65)], EDGE), MODEL)
    assert energy.instruction_fj[0, COMPONENTS.index(Component.DRAM)] == 2 * 64 * 64_000
    assert energy.instruction_fj[0, COMPONENTS.index(Component.SRAM)] == 3 * 19_699
    # The program itself is one burst.
    assert energy.overhead_fj["fetch"] == {Component.DRAM: 64 * 64_000}


def test_padded_lanes_cost_the_idle_factor():
    setup = [MmuInput(channels=16), MmuOutput(height=1, width=64)]
    energy = account_energy(simulate_time([*setup, MmuRun(n=32)], EDGE), MODEL)
    assert energy.events[Event.MAC_W8A8] == 64 * 16 * 32
    assert energy.events[Event.IDLE_W8A8] == 64 * 16 * 32


@pytest.mark.parametrize(
    ("mode", "products", "idle", "weights", "sums", "read", "accumulators"),
    [
        # 64 x 16 x 32 = 32,768 products on edge28, and what other lanes its array has in the cycles that they take.
        # Weights: 512 in bytes; sums: 64 x 32 per step over k, in 32 bits; read: activations and weights in words of 32
        # bytes; accumulators: 64 x 32 in such words.
        (Mode.W8A8, 200, 20 * 32_768, 512, 2048, 64 + 16, 256),  # 32 x 32 lanes, 64 cycles
        (Mode.W4A8, 98, 10 * 98_304, 256, 2048, 64 + 8, 256),  # 32 x 64, 64 cycles
        (Mode.W4A4, 88, 9 * 98_304, 256, 2048, 64 + 8, 256),  # 64 x 32, 64 cycles
        (Mode.W8A16, 368, 0, 512, 2 * 2048, 64 + 16, 512),  # 16 x 32, 64 cycles; int64
        (Mode.W16A16, 688, 0, 1024, 2 * 2048, 128 + 32, 512),  # 16 x 16, 128 cycles; int64
        (Mode.F32, 2500, 0, 2048, 8 * 2048, 128 + 64, 256),  # 2 x 32, 512 cycles
    ],
)
def test_a_run_of_every_mode(
    mode: Mode, products: int, idle: int, weights: int, sums: int, read: int, accumulators: int
) -> None:
    setup = [MmuInput(channels=16), MmuOutput(height=1, width=64)]
    row = account_energy(simulate_time([*setup, MmuRun(n=32, mode=mode)], EDGE), MODEL).instruction_fj[2]
    # A latched byte is 26 fJ, a sum read and written 416 + 480, a word of either memory 19,699.
    array = 32_768 * products + idle + 26 * weights + 896 * sums
    assert row[COMPONENTS.index(Component.MMU)] == array
    assert row[COMPONENTS.index(Component.SRAM)] == 19_699 * read
    assert row[COMPONENTS.index(Component.ACC)] == 19_699 * accumulators


def test_leakage_is_per_cycle():
    timeline = simulate_time([LoadCopy(bytes=6400), Halt()], EDGE)
    energy = account_energy(timeline, MODEL)
    assert energy.component_fj(Component.LEAKAGE) == 58_931 * timeline.cycles
    assert energy.overhead_fj["dram_background"] == {Component.DRAM_BACKGROUND: 40_000 * timeline.cycles}


def test_more_femtojoules_than_64_bits_hold():
    """A DRAM of one byte per second: leakage alone is beyond them."""
    dram = dataclasses.replace(TINY.dram, bytes_per_second=1)
    slow = dataclasses.replace(TINY, dram=dram)
    timeline = simulate_time([LoadCopy(bytes=2**15)] * 8, slow)
    model = EnergyModel.of(slow)
    energy = account_energy(timeline, model)
    assert energy.total_fj.nominal > 2**63
    assert energy.component_fj(Component.LEAKAGE) == model.cycle[Component.LEAKAGE].nominal * timeline.cycles


@settings(max_examples=examples(40), deadline=None)
@given(program=programs())
def test_parts_add_up_to_the_total(program):
    for table in EnergyTable.shipped():
        model = EnergyModel.of(TINY, EnergyTable.load(table))
        energy = account_energy(simulate_time(program, TINY), model)
        overhead = sum(sum(row.values()) for row in energy.overhead_fj.values())
        assert int(energy.instruction_fj.sum()) + overhead == energy.total_fj.nominal
        assert sum(band.nominal for band in energy.band_fj.values()) == energy.total_fj.nominal
        assert energy.total_fj.low <= energy.total_fj.nominal <= energy.total_fj.high


@settings(max_examples=examples(20), deadline=None)
@given(program=programs())
def test_energy_is_what_the_events_say(program):
    model = EnergyModel.of(TINY)
    energy = account_energy(simulate_time(program, TINY), model)
    dynamic = sum(
        count * (model.event[event].nominal + model.clock[event].nominal) for event, count in energy.events.items()
    )
    static = sum(sum(energy.overhead_fj[name].values()) for name in ("leakage", "dram_background"))
    assert dynamic + static == energy.total_fj.nominal
    assert np.all(energy.instruction_fj >= 0)
