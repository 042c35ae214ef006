"""``quartic sensitivity`` and ``quartic assign``: what they print and write, and their errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from quantizer import Recipe
from quantizer.sensitivity import Sensitivity
from quartic.cli import main
from quartic.cli.console import table
from quartic.quantities import quantity

MODEL = "benchmarks.zoo.digits:trained"


def run(*arguments: str) -> None:
    """The command, which succeeds."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code in (None, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).random((4, 1, 8, 8), np.float32))
    return path


@pytest.mark.slow
def test_sensitivity_as_table_json_and_page(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "map.html"
    asked = ["sensitivity", MODEL, "--calibration", str(data), "--by", "fisher"]
    run(*asked, "--json")
    found = Sensitivity.from_json(capsys.readouterr().out)
    run(*asked, "--plot", str(page))
    shown = capsys.readouterr().out
    assert found.by == "fisher"
    assert all(layer.module in shown for layer in found.layers)
    assert "loss by fisher when one layer is quantized" in shown
    text = page.read_text()
    assert "Plotly.newPlot" in text
    assert "<script src=" not in text  # the page needs no network


@pytest.mark.slow
def test_stages_that_take_no_part_are_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("sensitivity", MODEL, "--calibration", str(data), "--by", "fisher", "--recipe", "w4a8-quartdepth")
    shown = " ".join(capsys.readouterr().out.split())
    assert "loss by fisher when one layer is quantized, without [compensate], [round]" in shown


def test_tables_keep_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    table("without [round]", ("what",), [("blocks[0]",), ("[fold] of it",)])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "without [round]", "what", "blocks[0]", "[fold] of it"
    ]  # fmt: skip


@pytest.mark.slow
def test_assign_saves_the_recipe_and_the_front(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses, recipe, page = tmp_path / "losses.json", tmp_path / "mine.toml", tmp_path / "front.html"
    run("sensitivity", MODEL, "--calibration", str(data), "--by", "fisher", "--json")
    losses.write_text(capsys.readouterr().out)
    asked = ["assign", MODEL, "--calibration", str(data), "--machine", "tiny", "--sensitivity", str(losses)]
    asked += ["--energy", "1mJ", "--save", str(recipe), "--plot", str(page), "--points", "3", "--simulate", "0"]
    run(*asked, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["simulated"]["energy_joules"] <= 1e-3
    assert set(found["widths"].values()) == {"w16a16"}  # the budget is no bound
    assert {o.weight.bits for o in Recipe.load(recipe).overrides if o.weight} == {16}
    assert "energy in mJ" in page.read_text()


@pytest.mark.thin(1)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "10"], "--latency '10': must be a number and its unit, as 10ms"),
        (["--energy", "2 W"], "--energy '2 W': must be a number and its unit, as 2mJ"),
        (["--sqnr", "-dB"], "--sqnr '-dB': must be a number and its unit, as 30dB"),
        ([], "one budget must be given, a latency, an energy or an SQNR; here is none"),
        (["--latency", "1s", "--minimise", "energy"], "--minimise is of --sqnr, at which latency or energy is least"),
        (["--latency", "1s", "--energy", "1J"], "here is latency and energy"),
        (["--latency", "1s", "--machine", "edge29"], "machine 'edge29': No such file or directory"),
        (["--latency", "1s", "--sensitivity", "none.json"], "none.json: no such file; expected what `quartic sens"),
        (["--latency", "1s", "--save", "no/such/mine.toml"], "no/such/mine.toml: its folder does not exist"),
    ],
)
def test_errors(data: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["assign", MODEL, "--calibration", str(data), *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "found"), [("10ms", 1e-2), ("2e3us", 2e-3), ("0.5 s", 0.5), ("3µs", 3e-6)])
def test_quantities(text: str, found: float) -> None:
    assert quantity(text, "s", "--latency", "10ms") == pytest.approx(found)


def test_no_quantity() -> None:
    from isa.errors import InputError

    with pytest.raises(InputError, match=re.escape("--x '1.2.3ms': must be a number and its unit, as 1ms")):
        quantity("1.2.3ms", "s", "--x", "1ms")
