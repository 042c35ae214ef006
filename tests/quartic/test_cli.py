"""The command: one error style, JSON on every command, no tracebacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quartic.cli import main
from quartic.cli.console import table

COMMANDS = (
    "asm",
    "assign",
    "bench",
    "check",
    "compile",
    "dis",
    "doctor",
    "machines",
    "quantize",
    "recipes",
    "report",
    "run",
    "sensitivity",
    "sqnr",
)


def outcome(*arguments: str) -> int:
    """Exit code of the command."""
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_offers_json_and_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(command, "--help") == 0
    assert "--json" in capsys.readouterr().out


def test_names_in_tables_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table("net.py:two: what it loses", ["module"], [[":zero:"], ["[bold]x"]])
    out = capsys.readouterr().out
    assert "net.py:two: what" in out
    assert ":zero:" in out
    assert "[bold]x" in out


def test_machines_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("machines", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["edge28"]["MAC/cycle"] == 2048  # of its fastest mode


def test_printed_machine_is_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("machines", "tiny") == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert outcome("machines", str(tmp_path / "mine.toml"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("recipes", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows["w4a8"][role] for role in ("weight", "activation", "elementwise", "wide")] == [4, 8, 8, 16]
    assert (rows["w8a32"]["compiles"], rows["f32"]["compiles"]) == (False, True)


def test_printed_recipe_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("recipes", "w4a4") == 0
    (tmp_path / "mine.toml").write_text(text := capsys.readouterr().out)
    assert outcome("recipes", str(tmp_path / "mine.toml"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["activation"], found["toml"]) == ("w4a4", 4, text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipes", "w8a9"), "unknown recipe 'w8a9': known recipes are f32, "),
        (("recipes", "gone.toml"), "recipe 'gone.toml': No such file or directory; presets: f32, "),
        (("machines", "no-such"), "machine 'no-such'"),
        (("compile", "gone.pt2", "-o", "m.qbin"), "gone.pt2: no such file; expected a .pt2"),
        (("compile", "gone.pt2", "-o", "no/m.qbin"), "no/m.qbin: its folder does not exist; create no first"),
        (("compile", "gone.pt2", "-o", "m.qbin", "--emit-schedule", "no/s"), "no/s: its folder does not exist"),
        (("report", "gone.qbin", "-o", "tests"), "tests: is a folder; give the name of a file to write"),
        (("run", "gone.qbin", "--timing-only", "--trace", "no/t.json"), "no/t.json: its folder does not exist"),
        (("quantize", "gone:build", "-o", "q.bin", "--calibration", "x.npy"), "q.bin: a quantized model is written as"),
        (("run", "gone.qbin"), "needs --input (the model's inputs), or --timing-only"),
        (("run", "gone.qbin", "--timing-only"), "gone.qbin: cannot be read: No such file or directory"),
        (("dis", "gone.qbin"), "gone.qbin: cannot be read: No such file or directory"),
        (("check", "gone.qbin"), "gone.qbin: cannot be read: No such file or directory"),
        (("asm", "gone.s", "-o", "m.qbin"), "gone.s: no such file; expected assembly text"),
        (("quantize", "gone:build", "-o", "q.pt2", "--calibration", "x.npy"), "x.npy: no such file"),
        (("bench", "gone.pt2", "--schedule", "a.toml"), "a.toml: no such file; expected a schedule"),
        (("run", "gone.qbin", "--timing-only", "--input", "x.npy"), "--timing-only reads no values; leave out --input"),
        (("check", "gone.qbin", "--machine", "tiny"), "a binary holds its machine and its widths; leave out --machine"),
        (("compile", "gone.pt2", "-o", "m.qbin", "--emit-schedule", "m.qbin"), "m.qbin: is the name of two results"),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quartic: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", "m.npy", "-o", "m.npy"),
        ("compile", "m.pt2", "-o", "m.qbin", "--machine", "m.npy", "--emit-schedule", "m.npy"),
        ("report", "m.npy", "-o", "m.npy"),
        ("run", "m.qbin", "--input", "m.npy", "-o", "m.npy"),
        ("asm", "m.npy", "-o", "m.npy"),
        ("quantize", "m.py:build", "--calibration", "x.npy", "--recipe", "m.npy", "-o", "m.npy"),
        ("sensitivity", "m.pt2", "--calibration", "m.npy", "--plot", "m.npy"),
        ("assign", "m.pt2", "--calibration", "m.npy", "--latency", "1ms", "--save", "m.npy"),
    ],
)
def test_what_is_read_is_not_written_over(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.npy").write_bytes(b"mine")
    assert outcome(*arguments) == 2
    assert "m.npy: is read by this command and would be lost; give its result another name" in capsys.readouterr().err
    assert (tmp_path / "m.npy").read_bytes() == b"mine"


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("frobnicate") == 2
    assert "No such command 'frobnicate'" in capsys.readouterr().err
