"""The HTML report: self-contained, escaped, deterministic, with provenance."""

import numpy as np
import pytest

from isa.container import Binary, Location
from isa.energy import EnergyModel
from isa.instructions import Halt, LoadCopy, MmuInput, MmuOutput, MmuRun, MmuSync
from isa.machine import Machine
from isa.program import encode
from runtime.energy import account_energy
from runtime.profile import Profile, make_profile
from runtime.report import html, occupation, write_report
from runtime.timing import simulate_time

EDGE = Machine.load("edge28")


@pytest.fixture
def profile() -> Profile:
    body = [MmuInput(channels=512), MmuOutput(height=8, width=8), MmuRun(n=64), MmuSync(wait_a=1)]
    program = [LoadCopy(bytes=64_000, signal_a=1), *body, Halt()]
    locations = (Location("<b>conv</b>", "conv", "features.0", "net.py:3", 64 * 512 * 64),)
    binary = Binary(EDGE, encode(program), b"", (), (), 0, 0, 0, locations, ((6, 0),), {"quartic": "9.9.9"})
    model, timeline = EnergyModel.of(EDGE), simulate_time(binary.instructions, EDGE)
    return make_profile(binary, timeline, account_energy(timeline, model), model.table)


def test_page_says_what_made_the_numbers(profile):
    text = html(profile)
    for expected in (EDGE.digest, profile.table.digest, "9.9.9", "28nm", f"{profile.cycles:,} cycles"):
        assert expected in text


def test_page_needs_nothing_else(profile):
    text = html(profile)
    assert "http" not in text
    assert "<script" not in text


def test_names_are_escaped(profile):
    text = html(profile)
    assert "&lt;b&gt;conv&lt;/b&gt;" in text
    assert "<b>conv" not in text


def test_same_run_same_page(profile, tmp_path):
    write_report(profile, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == html(profile)


def test_occupation_adds_up_to_the_time_held(profile):
    timeline = profile.timeline
    held = (timeline.release - timeline.start)[timeline.engine == 2].sum()
    shares = np.array(occupation(timeline, 2, 50))
    assert round(float(shares.sum()) * timeline.cycles / 50) == held
    assert occupation(timeline, 1, 3) == [0.0, 0.0, 0.0]
