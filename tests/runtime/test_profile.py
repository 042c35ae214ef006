"""Profiles: rows of every level add up to the run's totals, exactly."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.container import Binary, Location
from isa.encoding import Instruction
from isa.energy import EnergyModel, Event
from isa.instructions import Halt, LoadCopy, MmuInput, MmuOutput, MmuRun, Mode, Region, StoreCopy
from isa.machine import Machine
from isa.program import encode
from runtime.energy import account_energy
from runtime.profile import LEVELS, Profile, make_profile
from runtime.timing import ENGINES, simulate_time
from tests.runtime.programs import programs
from tests.thinning import examples

EDGE = Machine.load("edge28")
LOCATIONS = (
    Location("conv_relu", "conv", "features.0", "net.py:3", 1000),
    Location("conv_relu", "relu", "features.1", "net.py:4", 0),
    Location("", "overhead:start", "", "", 0),
)


def profile(program: list[Instruction], spans: tuple[tuple[int, int], ...]) -> Profile:
    binary = Binary(EDGE, encode(program), b"", (), (), 0, 0, 0, LOCATIONS, spans, {"tool": "test"})
    timeline = simulate_time(binary.instructions, EDGE)
    model = EnergyModel.of(EDGE)
    return make_profile(binary, timeline, account_energy(timeline, model), model.table)


@pytest.fixture
def small() -> Profile:
    program = [
        LoadCopy(bytes=640, region=Region.CONSTANTS, signal_a=1),
        MmuInput(channels=32),
        MmuOutput(height=8, width=8),
        MmuRun(n=32, wait_a=1),
        StoreCopy(bytes=100, region=Region.OUTPUT),
        Halt(),
    ]
    return profile(program, ((1, 2), (3, 0), (2, 1)))


def test_kernel_rows_are_kernels_then_overheads(small):
    names = [row.name for row in small.rows("kernel")]
    assert names[:2] == ["overhead:start", "conv_relu"]
    assert {"overhead:fetch", "overhead:dispatch", "overhead:leakage"} <= set(names)


def test_node_and_module_rows(small):
    assert [row.name for row in small.rows("node")][:3] == ["overhead:start", "conv", "relu"]
    assert [row.name for row in small.rows("module")][:3] == ["overhead:start", "features.0", "features.1"]


def test_macs_and_utilization_come_from_locations(small):
    row = {row.name: row for row in small.rows("node")}["conv"]
    assert row.macs == 1000
    assert row.utilization == pytest.approx(1000 / (1024 * row.cycles))
    assert small.utilization == pytest.approx(1000 / (1024 * small.cycles))


def test_matrix_instructions_count_macs_in_their_mode(small):
    """64 pixels x 32 channels x 32 outputs, whatever the location says is useful."""
    row = {row.name: row for row in small.rows("node")}["conv"]
    assert {mode: n for mode, n in row.macs_by_mode.items() if n} == {"w8a8": 64 * 32 * 32}
    assert small.macs_by_mode[Mode.W8A8] == 64 * 32 * 32


def test_traffic_is_split_by_region(small):
    total = small.total
    assert total.dram_read_bytes["constants"] == 640
    assert total.dram_write_bytes["output"] == 128
    assert total.dram_read_bytes["code"] == 128


def test_unknown_level_is_an_error(small):
    with pytest.raises(ValueError, match="level 'layer': must be one of kernel, node, module"):
        small.rows("layer")


def test_json_is_plain_and_says_where_numbers_come_from(small):
    found = json.loads(json.dumps(small.to_json(instructions=True)))
    assert found["provenance"]["machine_sha256"] == EDGE.digest
    assert found["provenance"]["binary.tool"] == "test"
    assert sum(row["critical_cycles"] for row in found["kernels"]) == found["cycles"]
    assert found["instructions"][3]["name"] == "3 mmu.run"


def test_text_ends_with_the_total(small):
    lines = small.to_text(top=1).splitlines()
    assert lines[0].split()[:2] == ["cycles", "%"]
    assert lines[-1].split()[:2] == ["total", str(small.cycles)]
    assert "more)" in lines[2]


@settings(max_examples=examples(30), deadline=None)
@given(program=programs(), data=st.data())
def test_rows_add_up_exactly(program, data):
    cut = data.draw(st.integers(0, len(program)))
    spans = tuple((count, index) for index, count in enumerate((cut, len(program) - cut)) if count)
    found = profile(program, spans)
    for rows in (*(found.rows(level) for level in LEVELS), found.instruction_rows(), (found.total,)):
        assert sum(row.cycles for row in rows) == found.cycles
        assert sum(row.instructions for row in rows) == len(program)
        assert sum(sum(row.energy_fj.values()) for row in rows) == found.energy.total_fj.nominal
        for engine in ENGINES:
            assert sum(row.busy_cycles[engine.value] for row in rows) == found.timeline.busy[engine]
        read = sum(sum(row.dram_read_bytes.values()) for row in rows)
        assert read == sum(c * n for c, n in _dram_reads(found)) + found.timeline.fetch_bytes


def _dram_reads(found: Profile):
    prices = found.timeline.prices
    uses = np.bincount(prices.which, minlength=len(prices.costs))
    return [(cost.counts[Event.DRAM_READ_BYTE], int(n)) for cost, n in zip(prices.costs, uses, strict=True)]
