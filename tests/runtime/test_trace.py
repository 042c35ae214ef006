"""Perfetto export: tracks, slices, locations; deterministic and atomic."""

import json

import pytest

from isa.container import Binary, Location
from isa.files import write_atomically
from isa.instructions import Halt, LoadCopy, MmuRun, MmuSync
from isa.machine import Machine
from isa.program import encode
from runtime.timing import ENGINES, simulate_time
from runtime.trace import trace, write_trace

EDGE = Machine.load("edge28")
PROGRAM = [LoadCopy(bytes=640, signal_a=1), MmuSync(wait_a=1), MmuRun(n=32), Halt()]
LOCATIONS = (Location("k", "conv", "features.0", "net.py:3", 5), Location("", "overhead:end", "", "", 0))


@pytest.fixture
def run():
    binary = Binary(EDGE, encode(PROGRAM), b"", (), (), 0, 0, 0, LOCATIONS, ((3, 0), (1, 1)), {})
    return binary, simulate_time(binary.instructions, EDGE)


def test_every_engine_is_a_track(run):
    names = [row["args"]["name"] for row in trace(*run)["traceEvents"] if row["name"] == "thread_name"]
    assert names == [engine.value for engine in ENGINES]


def test_every_instruction_is_a_slice_with_its_location(run):
    rows = [row for row in trace(*run)["traceEvents"] if row["ph"] == "X" and row["cat"] != "wait"]
    assert [row["args"]["mnemonic"] for row in rows] == [inst.mnemonic for inst in PROGRAM]
    assert rows[2]["args"]["source"] == "net.py:3"
    assert rows[3]["cat"] == "overhead"
    assert rows[0]["args"]["signals"] == [1]


def test_a_wait_is_a_slice_up_to_the_start(run):
    rows = trace(*run)["traceEvents"]
    (wait,) = [row for row in rows if row.get("cat") == "wait"]
    after = next(row for row in rows if row["name"] == "mmu.sync")
    assert wait["name"] == "wait semaphore 1"
    assert wait["ts"] + wait["dur"] == pytest.approx(after["ts"])


def test_same_run_same_file(run, tmp_path):
    write_trace(*run, tmp_path / "a.json")
    write_trace(*run, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text())["otherData"]["machine"] == "edge28"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
