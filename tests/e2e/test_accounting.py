"""Every cycle and femtojoule has an owner, every instruction a module, and nothing depends on the process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import quartic
from benchmarks.zoo import NETWORKS
from benchmarks.zoo.layers import work
from quartic import Executable
from runtime.profile import LEVELS
from tests.e2e.support import network, probes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


ANCHORS = {"resnet18": 20 + 1, "mobilenet_v2": 52 + 1}
"""Convolutions and linear layers: each is the anchor of a kernel."""


@pytest.fixture(scope="module", params=ANCHORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def compiled(name: str) -> Executable:
    """A network at reduced resolution: the graph, and so its locations, are those of the full one."""
    q, _ = network(name)
    return quartic.compile(q)


def test_parts_add_up_to_the_total(compiled: Executable) -> None:
    profile = quartic.timing(compiled).profile
    tables = [*(profile.rows(level) for level in LEVELS), profile.instruction_rows()]
    for rows in tables:
        assert sum(row.cycles for row in rows) == profile.cycles
        assert sum(sum(row.energy_fj.values()) for row in rows) == profile.energy.total_fj.nominal
        assert sum(row.instructions for row in rows) == compiled.instructions


def test_every_engines_idle_cycles_have_causes(compiled: Executable) -> None:
    profile = quartic.timing(compiled).profile
    for engine, causes in profile.idle_cycles().items():
        assert profile.total.busy_cycles[engine] + sum(causes.values()) == profile.cycles


def test_every_instruction_names_its_module_and_line(compiled: Executable) -> None:
    binary = compiled.binary
    nameless = [
        place
        for place in (binary.locations[index] for _, index in binary.spans)
        if not place.node.startswith("overhead:") and not (place.module and ".py:" in place.source)
    ]
    overhead = sum(n for n, index in binary.spans if binary.locations[index].node.startswith("overhead:"))
    assert nameless == []
    assert overhead < 0.01 * compiled.instructions


def test_every_layer_with_weights_owns_instructions(name: str, compiled: Executable) -> None:
    owners = {compiled.binary.locations[index] for _, index in compiled.binary.spans}
    assert len({place.module for place in owners if place.macs}) == ANCHORS[name]


def test_macs_are_the_models_own(name: str, compiled: Executable) -> None:
    expected = work(NETWORKS[name].model(), (1, *NETWORKS[name].small)).macs
    assert sum(place.macs for place in compiled.binary.locations) == expected


@pytest.mark.parametrize("small", ["digits", "odd"])
def test_time_depends_on_no_data(small: str) -> None:
    q, shape = network(small)
    exe = quartic.compile(q, "tiny")
    cycles = {quartic.simulate(exe, x).cycles for x in probes(shape)}
    assert cycles == {quartic.timing(exe).cycles}


SCRIPT = """
import hashlib
import quartic
from tests.e2e.support import network
for name, machine in (("digits", "tiny"), ("gates", "edge28"), ("odd", "tiny"), ("pools", "edge28")):
    q, _ = network(name)
    exe = quartic.compile(q, machine)
    profile = quartic.timing(exe).profile
    data = exe.binary.to_bytes()
    print(name, machine, hashlib.sha256(data).hexdigest(), profile.cycles, profile.energy.total_fj.nominal)
"""


def test_a_process_with_another_hash_seed_agrees() -> None:
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(SCRIPT, {})
    assert here.getvalue().count("\n") == 4
    assert done.stdout == here.getvalue()
