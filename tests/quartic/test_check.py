"""``quartic check`` and ``quartic sqnr`` as a user meets them: shares, refusals, texts, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import quartic
from quartic.models import load_program, save_program
from tests.bits import assert_same
from tests.quartic.test_cli import outcome


class Small(nn.Module):
    """A convolution, a norm over channels and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 3, 6, 6] to [1, 36, 36]."""
        y = self.norm(torch.relu(self.conv(x)).flatten(2).transpose(1, 2))
        return self.out(y) @ y.transpose(1, 2)


class Odd(Small):
    """With operators that no machine of ours has, one of them of two results."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 3, 6, 6] to [1, 8, 6, 6]."""
        y = torch.cumsum(self.conv(x), 1)
        return torch.cumsum(torch.sort(y.relu(), -1)[0], 1) + self.conv(x)


class Wide(nn.Module):
    """A softmax over more than the SRAM of the smallest machine holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of any length."""
        return torch.softmax(x, -1)


MACS = 6 * 6 * 8 * 3 * 9 + 36 * 8 * 8 + 36 * 36 * 8
X = (torch.linspace(-1, 1, 108).reshape(1, 3, 6, 6),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of both models: float, and quantized to w4a8 and f32."""
    path = tmp_path_factory.mktemp("check")
    torch.manual_seed(0)
    for name, model in (("small", Small().eval()), ("odd", Odd().eval())):
        torch.export.save(torch.export.export(model, X), path / f"{name}.pt2")
        for recipe in ("w4a8", "f32"):
            save_program(quartic.quantize(model, X, [X], recipe), X, path / f"{name}-{recipe}.pt2")
    np.save(path / "x.npy", np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32))
    np.save(path / "none.npy", np.zeros((0, 3, 6, 6), np.float32))
    torch.export.save(torch.export.export(Wide().eval(), (torch.zeros(1, 2, 20000),)), path / "wide.pt2")
    (path / "noise.pt2").write_bytes(bytes(range(256)) * 8)
    (path / "cut.pt2").write_bytes((path / "small.pt2").read_bytes()[:-500])
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert outcome(*arguments) == code
    return capsys.readouterr().out


def checks(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict]:
    found = json.loads(said(capsys, "check", *arguments, "--json", code=code))
    assert found["ok"] is (code == 0)
    return found["checks"]


@pytest.mark.slow
def test_a_float_model_is_asked_about_at_w8a8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = checks(capsys, str(folder / "small.pt2"))
    assert found["recipe"] == "w8a8"
    assert found["total"]["macs"] == MACS
    assert found["supported"]["operators_percent"] == found["supported"]["macs_percent"] == 100
    assert found["widths"]["w8a8"] == {"operators": 3, "operators_percent": 37.5, "macs": MACS, "macs_percent": 100}
    assert found["instructions"] > 0


@pytest.mark.slow
def test_all_recipes_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = checks(capsys, str(folder / "small.pt2"), "--recipe", "all")
    assert [each["recipe"] for each in found] == ["f32", "w16a16", "w4a4", "w4a8", "w8a16", "w8a8"]
    for each in found:
        assert sum(row["macs"] for row in each["widths"].values()) == each["total"]["macs"] == MACS
        assert each["recipe"] in each["widths"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w4a8", "f32"])
def test_a_quantized_model_is_checked_as_it_is(recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = checks(capsys, str(folder / f"small-{recipe}.pt2"))
    assert "recipe" not in found
    assert found["widths"][recipe]["macs"] == MACS - found["widths"].get("w8a8", {"macs": 0})["macs"]
    assert ("w8a8" in found["widths"]) == (recipe == "w4a8")  # a product of two activations


@pytest.mark.slow
def test_the_binary32_baseline_compiles_from_its_file(folder: Path) -> None:
    exe = quartic.compile(folder / "small-f32.pt2")
    reference = quartic.reference(load_program(folder / "small-f32.pt2").module())
    assert_same(quartic.simulate(exe, *X).outputs, reference(*X))


@pytest.mark.slow
def test_text_of_a_supported_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "small-w4a8.pt2"
    lines = said(capsys, "check", str(path)).splitlines()
    assert lines[0].startswith(f"{path}: every operator is supported; ")
    assert lines[0].endswith(" instructions on edge28")
    assert lines[1:] == [
        "  width       operators      %         MMAC      %",
        "  w8a8                1   12.5         0.01   50.7",
        "  w4a8                2   25.0         0.01   49.3",
        "  16-bit              3   37.5         0.00    0.0",
        "  8-bit               1   12.5         0.00    0.0",
        "  f32                 1   12.5         0.00    0.0",
        "  supported           8  100.0         0.02  100.0",
        "  of                  8                0.02",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("odd.pt2", "--recipe", "w4a8"), ("odd-w4a8.pt2",)])
def test_refused_operators_are_listed_below_their_rule(
    arguments: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "check", str(folder / arguments[0]), *arguments[1:], code=1).splitlines()
    assert lines[0].endswith(": 3 operators refused")
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "cumsum(self" in text)
    start = lines.index("1. aten.cumsum.default: the operator is not supported")
    advice = "   do: replace it by supported operators (docs/api.md lists them), or leave it out of the model"
    assert lines[start + 1 :] == [
        advice,
        f"   - node cumsum, module Odd, tests/quartic/test_check.py:{line}",
        f"   - node cumsum_1, module Odd, tests/quartic/test_check.py:{line + 1}",
        "2. aten.sort.default: the operator is not supported",
        advice,
        f"   - node sort, module Odd, tests/quartic/test_check.py:{line + 1}",
    ]


@pytest.mark.slow
def test_refusals_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = checks(capsys, str(folder / "odd.pt2"), code=1)
    assert found["supported"]["macs_percent"] == 100
    assert [each["node"] for each in found["refused"]][:2] == ["cumsum", "sort"]
    assert set(found["refused"][0]) == {"operator", "node", "module", "source", "macs", "rule", "advice"}
    assert "instructions" not in found


@pytest.mark.slow
def test_a_limit_of_the_machine_is_no_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder / "wide.pt2")
    lines = said(capsys, "check", path, "--machine", "tiny", code=1).splitlines()
    assert lines[0] == f"{path} at w8a8: does not fit tiny"
    assert lines[-1].startswith("tiny refuses it: kernel 'softmax' (node softmax, module Wide, tests/quartic/")
    assert lines[-1].endswith("in any tiling that was tried: use a larger machine or split the operator")
    assert said(capsys, "check", path).startswith(f"{path} at w8a8: every operator is supported; ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "noise.pt2"), "noise.pt2: cannot be read as a torch.export program"),
        (("check", "cut.pt2"), "cut.pt2: cannot be read as a torch.export program"),
        (("check", "x.npy"), "x.npy: cannot be read as a torch.export program"),
        (("check", "small.pt2", "--recipe", "w3a3"), "unknown recipe 'w3a3': known recipes are f32, qat-w4a8, "),
        (("check", "small.pt2", "--machine", "moon"), "machine 'moon'"),
        (("check", "small-w4a8.pt2", "--recipe", "w8a8"), "is quantized already, so --recipe asks nothing of it"),
        (("sqnr", "small.pt2", "--calibration", "none.npy"), "none.npy: holds no samples; give at least one per input"),
        (("sqnr", "small.pt2", "--calibration", "x.npy", "--recipe", "w3a3"), "unknown recipe 'w3a3'"),
        (("sqnr", "noise.pt2", "--calibration", "x.npy"), "noise.pt2: cannot be read as a torch.export program"),
        (("sqnr", "small-w4a8.pt2", "--calibration", "x.npy"), "the model is quantized already"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert outcome(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.slow
def test_sqnr_prints_every_layer_the_noisiest_and_the_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("sqnr", str(folder / "small.pt2"), "--calibration", str(folder / "x.npy"), "--recipe", "w4a8")
    layers = json.loads(said(capsys, *arguments, "--json"))["layers"]
    assert {row["module"] for row in layers} >= {"conv", "norm", "out"}
    lines = said(capsys, *arguments).splitlines()
    assert len(lines) == len(layers) + 5
    for line, word, key in ((lines[-3], "lowest", "sqnr_db"), (lines[-2], "own", "own_db")):
        worst = min((row for row in layers if row[key] is not None), key=lambda row: row[key])
        assert line.split() == [word, f"{worst[key]:.1f}", worst["node"], "in", worst["module"] or "(root)"]
    assert lines[-1].split() == ["last", f"{layers[-1]['sqnr_db']:.1f}", layers[-1]["node"]]
    first = layers[0]
    numbers = [f"{first[key]:.1f}" for key in ("sqnr_db", "own_db")]
    assert lines[2].split()[:4] == [*numbers, first["node"], first["module"]]


@pytest.mark.slow
def test_sqnr_of_equal_layers_is_null(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("sqnr", str(folder / "small.pt2"), "--calibration", str(folder / "x.npy"), "--recipe", "f32")
    layers = json.loads(said(capsys, *arguments, "--json"), parse_constant=pytest.fail)["layers"]
    assert all(row["sqnr_db"] is None or row["sqnr_db"] > 100 for row in layers)
