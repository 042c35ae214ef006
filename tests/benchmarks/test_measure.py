"""What the tables state of a network: bytes by width, and a row of measurements."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import quartic
from benchmarks.bench import DEPTH, chip_table, parts_table, report, targets, write_results
from benchmarks.measure import compared, kept, measure
from benchmarks.parts import parts
from benchmarks.zoo import NETWORKS
from benchmarks.zoo.layers import work
from runtime import session


def test_packed_bytes_are_codes_scales_and_biases() -> None:
    counted = work(torch.nn.Linear(6, 5), (1, 6))
    assert (counted.packed(8), counted.packed(4)) == (30 + 40, 15 + 40)


def test_parameters_of_norms_and_embeddings_stay_binary32() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.LayerNorm(5))
    model.register_parameter("positions", torch.nn.Parameter(torch.zeros(7)))
    assert kept(model) == 2 * 5 + 7


def test_targets_are_those_of_the_network_the_machine_and_the_recipe() -> None:
    row = {
        "network": DEPTH[0], "machine": DEPTH[1], "recipe": DEPTH[2], "compile seconds": 30.0, "peak bytes": 2**30,
        "walls": {"simulate": 3.0, "float": 2.0}, "DRAM read bytes": 20, "DRAM write bytes": 6, "least DRAM bytes": 20,
    }  # fmt: skip
    name = "depth_anything_v2_s w4a8 quartdepth28-w4a8"
    assert targets([row, {**row, "machine": "edge28"}]) == [
        (f"{name}: compile seconds", 30.0, 60.0),
        (f"{name}: simulation / float32", 1.5, 2.0),
        (f"{name}: peak GiB of compile and run", 1.0, 6.0),
        (f"{name}: DRAM bytes / (weights, image, result)", 1.3, 1.3),
    ]


def test_results_are_two_files_that_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "bench.json"
    write_results(path, {"rows": [1]}, "± 1\n")
    with pytest.raises(UnicodeEncodeError):
        write_results(path, {"rows": [2]}, "half a page \ud800")
    assert json.loads(path.read_text()) == {"rows": [2]}
    assert path.with_suffix(".md").read_text() == "± 1\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["bench.json", "bench.md"]


def test_parts_are_the_longest_the_others_and_overheads() -> None:
    q = quartic.quantize(NETWORKS["pools"].model(), (x := NETWORKS["pools"].images(),), [(x,)])
    profile = quartic.timing(quartic.compile(q, "tiny")).profile
    everything, few = parts(profile, 3, 99), parts(profile, 3, 2)
    assert [part.name for part in few[:2]] == [part.name for part in everything[:2]]
    assert few[2].name == f"({len(everything) - 3} more)"
    assert [sum(part.cycles for part in found) for found in (few, everything)] == [profile.cycles] * 2
    assert everything[0].cycles > everything[1].cycles > 0


@pytest.mark.slow
def test_what_is_measured_of_simulations_has_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = NETWORKS["pools"].model(), NETWORKS["pools"].images()
    q = quartic.quantize(model, (x,), [(x,)])
    works = compared(model, q, quartic.reference(q), quartic.compile(q, "tiny"), x)
    simulations = Mock(wraps=session.simulate_time)
    monkeypatch.setattr(session, "simulate_time", simulations)
    for name, run in works.items():
        simulations.reset_mock()
        run()
        assert simulations.call_count == (name in ("first", "simulate", "timing only")), name


@pytest.mark.slow
def test_a_network_is_measured_at_any_width() -> None:
    row = measure("products", "edge28", 1, "w4a4")
    assert row["exact"]
    assert row["cycles"] > 0
    assert row["seconds"] >= row["bound seconds"]
    line = chip_table([row]).splitlines()[-1]
    assert line.startswith("| products w4a4 | edge28 | 0.0 | yes |")
    assert not targets([row])
    assert row["least DRAM bytes"] > row["packed bytes"] > 0
    assert "| products w4a4 |" in report([row], {})
    assert sum(part["cycles"] for part in row["parts"]) == row["cycles"]
    assert sum(part["femtojoules"] for part in row["parts"]) * 1e-15 == pytest.approx(row["joules"]["total"])
    moved = row["DRAM read bytes"] + row["DRAM write bytes"]
    assert sum(part["dram_bytes"] for part in row["parts"]) == moved
    assert parts_table(row).splitlines()[-1].startswith("| leakage and other overheads | 0.00 |")
