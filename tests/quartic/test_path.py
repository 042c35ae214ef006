"""The commands one after another on a small network, as the README shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import quartic
from quartic.models import load_program
from runtime import session
from tests.bits import assert_same
from tests.quartic.test_cli import outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a quantized model, its schedule and its binary."""
    path = tmp_path_factory.mktemp("path")
    images = np.random.default_rng(0).standard_normal((4, 3, 12, 12)).astype(np.float32)
    np.save(path / "images.npy", images)
    np.save(path / "image.npy", images[:1])
    source = "benchmarks.zoo.toys:Plain"
    assert outcome("quantize", source, "--calibration", str(path / "images.npy"), "-o", str(path / "net.pt2")) == 0
    emit = ("--emit-schedule", str(path / "net.toml"))
    assert outcome("compile", str(path / "net.pt2"), "-o", str(path / "net.qbin"), *emit) == 0
    return path


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """What the command prints with --json."""
    capsys.readouterr()
    assert outcome(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


RECIPE = """
base = "w4a8"
[activation]
range = { by = "percentile", percent = 99.9 }
[[override]]
layer = "last"
why = "logits"
weight = { bits = 8 }
[[override]]
layer = "embedding"
weight = { bits = 8 }
"""
TOLD = "layer 'last': weight bits 8 (logits)", "layer 'embedding': weight bits 8"


@pytest.fixture
def mine(folder: Path) -> tuple[str, ...]:
    """The command that quantizes by a recipe's file."""
    (folder / "mine.toml").write_text(RECIPE)
    source, images = "benchmarks.zoo.toys:Plain", str(folder / "images.npy")
    return ("quantize", source, "--calibration", images, "-o", str(folder / "mine.pt2"), "--recipe",
            str(folder / "mine.toml"))  # fmt: skip


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_reported(mine: tuple[str, ...], folder: Path, capsys) -> None:
    found = result(capsys, *mine)
    last = found["layers"][-1]
    assert found["recipe"] == "mine"
    assert found["overrides"] == {TOLD[0]: [last["node"]], TOLD[1]: []}
    assert (last["weight"]["bits"], last["overrides"]) == (8, [TOLD[0]])
    assert {each["weight"]["bits"] for each in found["layers"][:-1] if each["weight"]} == {4}
    total = found["constants in bytes"]
    assert sum(each["size"]["total"] for each in found["layers"]) == total["total"] < total["in binary32"] / 3
    assert result(capsys, "check", str(folder / "mine.pt2"))["ok"] is True


@pytest.mark.slow
def test_a_reconstruction_goes_on_where_it_was(folder: Path) -> None:
    (folder / "round.toml").write_text('base = "w4a8"\n[compensate]\n[round]\niterations = 5\n')
    source, images, kept = "benchmarks.zoo.toys:Plain", str(folder / "images.npy"), folder / "kept"
    command = ("quantize", source, "--calibration", images, "--recipe", str(folder / "round.toml"))
    options = ("--seed", "1", "--device", "cpu", "--resume", str(kept))
    for name in ("first.pt2", "again.pt2"):
        torch.manual_seed(0)  # the network draws its weights
        assert outcome(*command, "-o", str(folder / name), *options) == 0
        (units,) = kept.iterdir()
        assert sorted(path.name for path in units.iterdir())[0] == "unit0000.pt"
    x = torch.from_numpy(np.load(folder / "image.npy"))
    first, again = (load_program(folder / name).module()(x) for name in ("first.pt2", "again.pt2"))
    assert all(map(torch.equal, first, again)) if isinstance(first, tuple) else torch.equal(first, again)


@pytest.mark.slow
def test_the_report_reads_as_text(mine: tuple[str, ...], capsys) -> None:
    capsys.readouterr()
    assert outcome(*mine) == 0
    text = capsys.readouterr().out
    assert f"{TOLD[1]}      no layer of this model" in text
    assert "Constants in bytes, by the operator that reads them" in text
    assert "8 per channel" in text


@pytest.mark.slow
def test_a_recipe_that_fits_no_module_is_one_line(mine: tuple[str, ...], folder: Path, capsys) -> None:
    (folder / "mine.toml").write_text(RECIPE.replace('layer = "last"', 'modules = "heads"'))
    assert outcome(*mine) == 2
    assert "recipe mine: override of modules 'heads': matches no module of the model; near are " in (
        capsys.readouterr().err
    )


def test_run_writes_the_bits_of_the_reference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--input", str(folder / "image.npy"), "--output", str(folder / "out.npy"))
    found = result(capsys, "run", str(folder / "net.qbin"), *files, "--trace", str(folder / "trace.json"))
    q = load_program(folder / "net.pt2").module()
    assert_same([np.load(folder / "out.npy")], quartic.reference(q)(torch.from_numpy(np.load(folder / "image.npy"))))
    assert found["cycles"] > 0
    assert len(json.loads((folder / "trace.json").read_text())["traceEvents"]) > 10


def test_timing_only_gives_the_same_cycles(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = result(capsys, "run", str(folder / "net.qbin"), "--input", str(folder / "image.npy"))
    assert result(capsys, "run", str(folder / "net.qbin"), "--timing-only") == full


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("run", ("net.qbin", "--timing-only")), ("report", ("net.qbin", "-o", "net.html")), ("bench", ("net.pt2",))],
)
def test_progress_is_shown_until_time_is_simulated(
    command: str, arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulations, ends = Mock(wraps=session.simulate_time), []

    @contextmanager
    def progress(what: str) -> Iterator[Callable[[str], None]]:
        yield lambda _what: None
        ends.append(simulations.call_count)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(f"quartic.cli.{command}.progress", progress)
    monkeypatch.setattr(session, "simulate_time", simulations)
    assert outcome(command, *arguments) == 0
    assert ends[-1] == simulations.call_count == 1


def test_emitted_schedule_compiles_to_the_same_bytes(folder: Path) -> None:
    again = folder / "again.qbin"
    given = ("--schedule", str(folder / "net.toml"))
    assert outcome("compile", str(folder / "net.pt2"), "-o", str(again), *given) == 0
    assert again.read_bytes() == (folder / "net.qbin").read_bytes()


def test_a_schedule_and_what_it_decides_are_not_both_given(folder: Path, capsys) -> None:
    given = ("--schedule", str(folder / "net.toml"), "--no-fuse")
    assert outcome("compile", str(folder / "net.pt2"), "-o", str(folder / "no.qbin"), *given) == 2
    assert "a schedule says itself what is fused, double-buffered and shared: leave out" in capsys.readouterr().err


def test_disassembly_from_behind_the_last_instruction(folder: Path, capsys) -> None:
    assert outcome("dis", str(folder / "net.qbin"), "--start", "99999") == 2
    assert "--start 99999 is behind the last" in capsys.readouterr().err


@pytest.mark.slow
def test_samples_that_fill_no_batch_are_counted(folder: Path, capsys) -> None:
    images = ("--calibration", str(folder / "images.npy"), "--batch", "3")
    found = result(capsys, "quantize", "benchmarks.zoo.toys:Plain", *images, "-o", str(folder / "three.pt2"))
    assert (found["batches"], found["samples left out"]) == (1, 1)


def test_disassembly_assembles_to_the_same_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert outcome("dis", str(folder / "net.qbin")) == 0
    (folder / "net.s").write_text(capsys.readouterr().out)
    into = ("--into", str(folder / "net.qbin"))
    assert outcome("asm", str(folder / "net.s"), "-o", str(folder / "back.qbin"), *into) == 0
    first, second = (quartic.load(folder / name).binary for name in ("net.qbin", "back.qbin"))
    assert first.code == second.code


def test_disassembly_names_every_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = result(capsys, "dis", str(folder / "net.qbin"))
    modules = {row["location"].split(" | ")[1] for row in rows if row["location"].count("|") == 2}
    assert {"0.0", "1", "4"} <= modules


@pytest.mark.parametrize("command", ["compile", "bench"])
def test_a_schedule_of_another_model_is_named(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.toml"
    other.write_text((folder / "net.toml").read_text().replace('"conv2d"', '"conv2d_9"'))
    result = ("-o", str(folder / "other.qbin")) * (command == "compile")
    assert outcome(command, str(folder / "net.pt2"), "--schedule", str(other), *result) == 2
    assert f"quartic: error: {other}: the schedule lacks kernel 'conv2d'" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_compares_schedules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "net.toml").read_text()
    (folder / "edited.toml").write_text(text.replace("_slots = 2", "_slots = 1"))
    given = [part for name in ("net", "edited") for part in ("--schedule", str(folder / f"{name}.toml"))]
    own, same, edited = result(capsys, "bench", str(folder / "net.pt2"), *given)
    assert {key: own[key] for key in own if key != "schedule"} == {key: same[key] for key in own if key != "schedule"}
    assert edited["cycles"] > own["cycles"]


def test_check_accepts_binary_and_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert result(capsys, "check", str(folder / "net.qbin"))["ok"] is True
    assert result(capsys, "check", str(folder / "net.pt2"))["ok"] is True


def test_report_is_one_page(folder: Path) -> None:
    assert outcome("report", str(folder / "net.qbin"), "-o", str(folder / "net.html")) == 0
    assert "</html>" in (folder / "net.html").read_text()


def test_doctor_finds_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(row["ok"] for row in result(capsys, "doctor"))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:8], lambda b: b"", lambda b: b[:-1], lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]]
)
def test_damaged_binary_is_one_line(damage, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.qbin").write_bytes(damage((folder / "net.qbin").read_bytes()))
    assert outcome("run", str(folder / "bad.qbin"), "--timing-only") == 2
    message = capsys.readouterr().err
    assert message.startswith("quartic: error: ")
    assert "bad.qbin" in message
    assert message.count("\n") == 1


def test_wrong_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "wrong.npy", np.zeros((1, 3, 12, 11), np.float32))
    assert outcome("run", str(folder / "net.qbin"), "--input", str(folder / "wrong.npy")) == 2
    assert "has shape (1, 3, 12, 11): must be (1, 3, 12, 12)" in capsys.readouterr().err


def test_every_input_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = ("--input", str(folder / "image.npy"))
    assert outcome("run", str(folder / "net.qbin"), *image, *image) == 2
    assert "2 inputs given: must be 1 (input_1)" in capsys.readouterr().err


def test_assembled_instructions_are_named_after_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.s").write_text("# reads past its end\n\nload.copy region=constants, bytes=0xffffff\nhalt\n")
    into = ("-o", str(folder / "bad.qbin"), "--into", str(folder / "net.qbin"))
    assert outcome("asm", str(folder / "bad.s"), *into) == 0
    assert outcome("run", str(folder / "bad.qbin"), "--input", str(folder / "image.npy")) == 2
    assert "bad.s:3 reads CONSTANTS" in capsys.readouterr().err


def test_program_without_halt_names_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "endless.s").write_text("load.copy\n")
    assert outcome("asm", str(folder / "endless.s"), "-o", str(folder / "bad.qbin")) == 2
    assert "endless.s: CODE section: code has no halt" in capsys.readouterr().err


def test_machine_without_an_energy_table_does_not_compile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert outcome("machines", "tiny") == 0
    text = capsys.readouterr().out.replace('energy = "28nm"', 'energy = "3nm"')
    (folder / "own.toml").write_text(text)
    files = (str(folder / "net.pt2"), "-o", str(folder / "own.qbin"))
    assert outcome("compile", *files, "--machine", str(folder / "own.toml")) == 2
    assert "energy table '3nm'" in capsys.readouterr().err
    assert not (folder / "own.qbin").exists()


@pytest.mark.slow
def test_quantized_model_is_not_quantized_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--calibration", str(folder / "images.npy"), "-o", str(folder / "twice.pt2"))
    assert outcome("quantize", str(folder / "net.pt2"), *files) == 2
    assert "the model is quantized already" in capsys.readouterr().err


def test_calibration_in_binary64_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "double.npy", np.zeros((2, 3, 12, 12)))
    files = ("--calibration", str(folder / "double.npy"), "-o", str(folder / "twice.pt2"))
    assert outcome("quantize", "benchmarks.zoo.toys:Plain", *files) == 2
    assert "example input 0 is torch.float64: must be torch.float32; convert it" in capsys.readouterr().err


def test_float_model_does_not_compile_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Conv2d(3, 4, 3).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 8, 8),)), folder / "float.pt2")
    assert outcome("compile", str(folder / "float.pt2"), "-o", str(folder / "float.qbin")) == 2
    message = capsys.readouterr().err
    assert "conv2d" in message
    assert "quantize" in message
    assert not (folder / "float.qbin").exists()


def test_version_is_the_distributions() -> None:
    assert quartic.__version__ == version("quartic-npu")
