"""Table 3: the published figures, the bounds, and files that are whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

import quartic
from benchmarks import table3
from isa.machine import Machine
from runtime import session


def stated() -> dict[str, dict[str, Any]]:
    """The rows of the results."""
    return table3.known(table3.RESULTS / "table3.json")


def test_the_published_efficiencies_are_of_constant_power() -> None:
    """A slip in a figure would break the ratio of powers, which is the same in all rows but one of the paper's own."""
    assert len(table3.PUBLISHED) == 18
    for model in "sl":
        for side in (256, 512, 1024):
            f32, w4a8, w4a4 = (table3.PUBLISHED[f"{model}{side}-{p}"] for p in ("f32", "w4a8", "w4a4"))
            base = f32.milliseconds * f32.gmac_per_joule
            expected = 0.933 if (model, side) == ("l", 256) else 0.893
            assert base / (w4a8.milliseconds * w4a8.gmac_per_joule) == pytest.approx(expected, abs=2e-3)
            assert base / (w4a4.milliseconds * w4a4.gmac_per_joule) == pytest.approx(0.967, abs=2e-3)


@pytest.mark.parametrize(("precision", "peak"), [("f32", 512e9), ("w4a8", 1536e9), ("w4a4", 2048e9)])
def test_bounds_are_those_of_the_machine(precision: str, peak: float) -> None:
    machine = Machine.load(f"quartdepth28-{precision}")
    compute, dram = table3.bounds(10**9, 8 * 10**6, 252, precision, machine)
    assert compute == pytest.approx(1e9 / peak)
    bits = 32 if precision == "f32" else 4
    assert dram == pytest.approx((8e6 * bits / 8 + 4 * 9 * 252**2) / 19.2e9)


@pytest.mark.slow
def test_time_is_simulated_while_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 8)
    q = quartic.quantize(torch.nn.Linear(8, 8).eval(), (x,), [(x,)], recipe="w4a4")
    simulations = Mock(wraps=session.simulate_time)
    monkeypatch.setattr(session, "simulate_time", simulations)
    monkeypatch.setattr(table3, "quantized", lambda *_: q)
    monkeypatch.setattr(table3, "time", SimpleNamespace(process_time=lambda: simulations.call_count))
    assert table3.measure("s256-w4a4")["cpu seconds"] == {"quantize": 0, "compile": 0, "timing": 1}


def test_rows_are_chosen_by_the_beginning_of_their_name() -> None:
    assert table3.selected(["s256", "l1024-w4a4"]) == ["s256-f32", "s256-w4a8", "s256-w4a4", "l1024-w4a4"]
    assert table3.selected([]) == list(table3.PUBLISHED)
    with pytest.raises(SystemExit, match="no row starts with 'm'"):
        table3.selected(["m"])


def test_targets_are_those_of_the_model_and_the_side() -> None:
    by_width = [[table3.PUBLISHED[f"{model}{side}-w4a8"].least for side in (256, 512, 1024)] for model in "sl"]
    assert by_width == [[1.5, 1.5, 1.2], [1 / 1.3] * 3]
    row = stated()["l512-f32"]
    published = table3.PUBLISHED["l512-f32"].milliseconds / 1e3
    assert table3.cells({**row, "seconds": 1.29 * published})[4:7] == ("0.78", "0.77", "yes")
    assert table3.cells({**row, "seconds": 1.31 * published})[4:7] == ("0.76", "0.77", "**no**")


def test_the_stated_rows_are_all_there_and_meet_the_targets_of_the_page() -> None:
    rows = stated()
    assert list(rows) == list(table3.PUBLISHED)
    assert [name for name, row in rows.items() if table3.faster(row) < table3.PUBLISHED[name].least] == []
    assert table3.table(rows.values()) in (table3.RESULTS / "table3.md").read_text()


def test_results_are_written_whole_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table3, "RESULTS", tmp_path)
    row = {
        "row": "s256-w4a4",
        "machine": "quartdepth28-w4a4",
        "macs": 24_000_000_000,
        "seconds": 0.0191,
        "compute bound seconds": 0.0117,
        "DRAM bound seconds": 0.001,
        "DRAM read bytes": 3e7,
        "DRAM write bytes": 1e7,
        "joules": {"total": 0.1},
        "cpu seconds": {"quantize": 1.0, "compile": 2.0, "timing": 0.5},
        "peak bytes": 2**30,
        "provenance": {"machine_sha256": Machine.load("quartdepth28-w4a4").digest},
    }
    text = table3.write({"s256-w4a4": row})
    line = next(line for line in text.splitlines() if line.startswith("| ViT-S 256 W4A4"))
    assert "| 38.3 | 19.1 | 2.01 | 1.50 | yes | 61.3% | 11.7 | 1.0 | 1.63 | 40 | 177.5 | 240.0 | 4 | 1.0 |" in line
    assert (tmp_path / "table3.md").read_text() == text
    assert table3.known(tmp_path / "table3.json") == {"s256-w4a4": row}
    assert json.loads((tmp_path / "table3.json").read_text())["provenance"]["seed"] == table3.SEED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table3.json", "table3.md"]


def test_rows_of_other_sources_are_counted_and_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, asked = ("s256-f32", "s256-w4a8", "s256-w4a4"), list[str]()
    rows = {name: {**stated()[name], "sources": "before"} for name in names}

    def measured(name: str) -> dict[str, Any]:
        asked.append(name)
        return {**rows[name], "sources": "today"}

    monkeypatch.setattr(table3, "RESULTS", tmp_path)
    monkeypatch.setattr(table3, "sources", lambda packages: "today")
    monkeypatch.setattr(table3, "measured", measured)
    del rows["s256-f32"]["sources"]
    table3.write({**rows, "s256-w4a8": {**rows["s256-w4a8"], "sources": "today"}})
    page = tmp_path / "table3.md"
    assert "2 of these rows were measured with other sources than those of this table, today." in page.read_text()
    table3.main(["--rows", "s256"])
    table3.main(["--rows", "s256-f32", "--again"])
    assert asked == ["s256-f32"]
    table3.main(["--rows", "s256", "--again"])
    table3.main(["--rows", "s256-w4a8", "--fresh"])
    assert asked == ["s256-f32", "s256-w4a4", "s256-w4a8"]
    assert "other sources" not in (text := page.read_text())
    page.unlink()
    table3.main(["--report"])
    assert page.read_text() == text


def test_rows_of_an_earlier_machine_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stated()
    monkeypatch.setattr(table3, "RESULTS", tmp_path)
    today = Machine.load("quartdepth28-w4a4").digest
    row = {**found["s256-w4a4"], "provenance": {"machine_sha256": today}}
    older = {**row, "row": "s512-w4a4", "provenance": {"machine_sha256": "0"}}
    text = table3.write({"s256-w4a4": row, "s512-w4a4": older})
    assert "Measured on an earlier description of their machine: ViT-S 512 W4A4.\n" in text
    assert "earlier description" not in table3.write({"s256-w4a4": row})
