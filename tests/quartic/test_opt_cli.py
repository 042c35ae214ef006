"""``quartic opt`` on a quantized model: the same text that the compiler starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quartic
from compiler.frontend.export import import_graph
from quartic.models import load_program, save_program
from tests.quartic.test_cli import outcome

X = (torch.linspace(-1, 1, 108).reshape(1, 3, 6, 6),)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution at w4a8."""
    path = tmp_path_factory.mktemp("opt") / "net.pt2"
    torch.manual_seed(0)
    save_program(quartic.quantize(nn.Conv2d(3, 4, 3).eval(), X, [X], "w4a8"), X, path)
    return path


@pytest.mark.slow
def test_a_model_is_printed_as_the_compiler_imports_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("opt", str(model)) == 0
    assert capsys.readouterr().out.strip() == str(import_graph(load_program(model).module()))


@pytest.mark.slow
def test_passes_run_on_a_model(model: Path, tmp_path: Path) -> None:
    assert outcome("opt", str(model), "-p", "fuse-kernels,materialize-copies", "-o", str(tmp_path / "net.mlir")) == 0
    assert 'kern.kernel "conv2d"' in (tmp_path / "net.mlir").read_text()


@pytest.mark.slow
def test_a_model_is_not_split(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("opt", str(model), "--split-input-file") == 2
    assert "a .pt2 is read whole from its file: name it, without --split-input-file" in capsys.readouterr().err


def test_what_is_no_program_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"text")
    assert outcome("opt", str(tmp_path / "bad.pt2")) == 2
    error = capsys.readouterr().err
    assert error.startswith("quartic: error: ")
    assert "bad.pt2: cannot be read as a torch.export program" in error
    assert error.count("\n") == 1
