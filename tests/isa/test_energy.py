"""Energy tables: schema with provenance, typed units, and integer femtojoules per event for a machine."""

import dataclasses
import re

import pytest

from isa.energy import EVENT_COMPONENT, IDLE_EVENTS, MAC_EVENTS, Component, EnergyModel, EnergyTable, Entry, Event
from isa.errors import DescriptionError
from isa.instructions import Mode
from isa.machine import Machine

TEXT = EnergyTable.load("28nm").to_toml()
EDGE = Machine.load("edge28")


def entries(table: EnergyTable) -> dict[str, Entry]:
    found = {row.name: getattr(table, row.name) for row in dataclasses.fields(table)}
    return {name: entry for name, entry in found.items() if isinstance(entry, Entry)}


def test_shipped_tables():
    assert EnergyTable.shipped() == ("28nm", "7nm")


@pytest.mark.parametrize("name", EnergyTable.shipped())
def test_canonical_text_round_trips(name):
    table = EnergyTable.load(name)
    assert EnergyTable.from_toml(table.to_toml()) == table
    assert EnergyTable.from_toml(table.to_toml()).digest == table.digest


def test_every_machine_has_its_table():
    for name in Machine.shipped():
        machine = Machine.load(name)
        assert EnergyModel.of(machine).table.name == machine.energy


@pytest.mark.parametrize("name", EnergyTable.shipped())
def test_bands_are_bands_for_every_event(name):
    model = EnergyModel.of(EDGE, EnergyTable.load(name))
    for bands in (model.event, model.clock, model.cycle):
        assert all(0 <= band.low <= band.nominal <= band.high for band in bands.values())
    assert all(model.event[event].low > 0 for event in Event)


def test_every_event_has_a_component():
    assert set(EVENT_COMPONENT) == set(Event)


def test_events_in_femtojoules_at_28nm():
    model = EnergyModel.of(EDGE)
    assert model.event[Event.MAC_W8A8].nominal == 200
    assert model.event[Event.IDLE_W8A8].nominal == 20
    assert model.event[Event.DRAM_READ_BYTE].nominal == 64_000
    assert model.event[Event.INSTRUCTION].nominal == 8_000
    assert model.clock[Event.MAC_W8A8].nominal == 50
    assert model.clock[Event.DRAM_READ_BYTE].nominal == 0


@pytest.mark.parametrize(
    ("table", "mode", "mac", "idle", "clock"),
    [
        # At 28 nm W8A8 is 0.2 pJ; W4A8 x 0.49 and W4A4 x 0.44 (synthesised lanes); W8A16 x 1.84 and W16A16 x 3.44
        # (partial products); binary32 (3.7 + 0.9) x 0.55, rounded. An idle lane is a tenth, clock and control a
        # quarter, both in whole femtojoules, halves to even.
        ("28nm", Mode.W8A8, 200, 20, 50),
        ("28nm", Mode.W4A8, 98, 10, 24),
        ("28nm", Mode.W4A4, 88, 9, 22),
        ("28nm", Mode.W8A16, 368, 37, 92),
        ("28nm", Mode.W16A16, 688, 69, 172),
        ("28nm", Mode.F32, 2500, 250, 625),
        # At 7 nm W8A8 is 0.1 pJ, by the same ratios; binary32 1.31 + 0.38 (TPUv4i).
        ("7nm", Mode.W8A8, 100, 10, 25),
        ("7nm", Mode.W4A8, 49, 5, 12),
        ("7nm", Mode.W4A4, 44, 4, 11),
        ("7nm", Mode.W8A16, 184, 18, 46),
        ("7nm", Mode.W16A16, 344, 34, 86),
        ("7nm", Mode.F32, 1690, 169, 422),
    ],
)
def test_a_product_of_every_mode(table: str, mode: Mode, mac: int, idle: int, clock: int):
    model = EnergyModel.of(EDGE, EnergyTable.load(table))
    assert model.event[MAC_EVENTS[mode]].nominal == mac
    assert model.event[IDLE_EVENTS[mode]].nominal == idle
    assert model.clock[MAC_EVENTS[mode]].nominal == clock


def test_sram_formula_on_the_machines_bank():
    # 91 + 1.08 * 256 + (307 + 8.24 * 256) * sqrt(64) = 19699 fJ
    assert EnergyModel.of(EDGE).event[Event.SRAM_READ_WORD].nominal == 19_699
    # 8 KB, 64 bit: the reference's example of 2.5 pJ
    sram = dataclasses.replace(EDGE.sram, bank_bytes=8192, word_bytes=8)
    model = EnergyModel.of(dataclasses.replace(EDGE, sram=sram))
    assert model.event[Event.SRAM_READ_WORD].nominal == 2_520


def test_per_cycle_energy_scales_with_the_clock():
    slow = dataclasses.replace(EDGE, clock_hz=EDGE.clock_hz // 2)
    fast_cycle = EnergyModel.of(EDGE).cycle[Component.DRAM_BACKGROUND]
    slow_cycle = EnergyModel.of(slow).cycle[Component.DRAM_BACKGROUND]
    assert fast_cycle.nominal == 40_000
    assert slow_cycle.nominal == 80_000


def test_leakage_adds_memory_and_logic():
    # 1280 KB * 25 uW + (1024 * 165 + 256 * 4600) um2 * 20 nW/um2 = 32000 + 26931.2 uW, 1 fJ per uW at 1 GHz
    assert EnergyModel.of(EDGE).cycle[Component.LEAKAGE].nominal == 58_931


def change(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


MAC = "[mac_w8a8]\nvalue = 0.2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (change("[mac_idle]", "[mac_idel]"), r"unknown key 'mac_idel'; did you mean 'mac_idle'\?"),
        (change("[mac_idle]\n", "[mac_w8a8.x]\n"), r"missing key 'mac_idle'"),
        (change(MAC, "[mac_w8a8]\n"), r"\[mac_w8a8\] missing key 'value'"),
        (change(MAC, "[mac_w8a8]\nvalue = 0.5\n"), r"\[mac_w8a8\] value = 0.5: must be in its band 0.13 .. 0.28"),
        (change(MAC, '[mac_w8a8]\nvalue = "x"\n'), r"\[mac_w8a8\] value = 'x': must be a number, not str"),
        (change('unit = "pJ"', 'unit = "fJ"'), r"mac_w8a8.unit = 'fJ': must be 'pJ'"),
        (change('quality = "D"', 'quality = "X"'), r"quality = 'X': must be one of P, D, C, A"),
        (change("low = 0.13", "low = -1"), r"\[mac_w8a8\] low = -1: must be in 0 .. 1000000"),
        (change("high = 0.28", "high = inf"), r"high = Infinity: must be in 0 .. 1000000"),
        (change("high = 0.28", "high = 1e999999"), r"high = 1E\+999999: must be in 0 .. 1000000"),
        (change("value = 0.2", "value = nan"), r"value = NaN: must be in 0 .. 1000000"),
        (re.sub(r'source = ".*"', 'source = ""', TEXT, count=1), r"\[mac_w8a8\] source = '': every number names"),
        (re.sub(r'source = ".*"\n', "", TEXT, count=1), r"\[mac_w8a8\] missing key 'source'"),
        (re.sub(r"\[mac_w8a8\]\n(.+\n)+", "", TEXT).replace("\n\n", "\nmac_w8a8 = 0.2\n", 1), "must be a table"),
        (change("[clock_factor]\nvalue = 1.25\nlow = 1.15", "[clock_factor]\nvalue = 1.25\nlow = 0.5"), "at least 1"),
    ],
)
def test_bad_table_names_key_and_rule(text, message):
    with pytest.raises(DescriptionError, match=message):
        EnergyTable.from_toml(text)


def test_unknown_table_lists_the_shipped_ones():
    with pytest.raises(DescriptionError, match=r"energy table '28mn': .*shipped: 28nm, 7nm"):
        EnergyTable.load("28mn")
