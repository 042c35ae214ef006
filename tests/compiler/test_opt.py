"""The ``quartic opt`` driver: exit codes, error text, times, and lazy registration."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from compiler.opt import main, time_table
from compiler.universe import DIALECTS, PASSES, TARGETS, lazily

MODULE = """\
func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = qnn.relu %x : tensor<2xf32>
  %1 = qnn.relu %0 : tensor<2xf32>
  func.return %1 : tensor<2xf32>
}
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "main.mlir"
    path.write_text(MODULE)
    return str(path)


def test_runs_passes_and_prints_between_them(source, capsys):
    assert main([source, "-p", "canonicalize-qnn,fold-constants", "--print-between-passes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("// after canonicalize-qnn\n")
    assert out.count("qnn.relu") == 2  # one in each printed module


def test_a_failed_pass_leaves_the_output_as_it_was(source, tmp_path, capsys):
    (kept := tmp_path / "out.mlir").write_text("mine")
    assert main([source, "-p", "plan-memory", "-o", str(kept)]) == 2
    assert capsys.readouterr().err.startswith("quartic: error: ")
    assert kept.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.mlir", "out.mlir"]


def test_input_and_output_may_be_one_file(source, tmp_path, capsys):
    assert main([source, "-p", "canonicalize-qnn", "-o", str(tmp_path / "other.mlir")]) == 0
    assert main([source, "-p", "canonicalize-qnn", "-o", source]) == 0
    assert Path(source).read_text() == (tmp_path / "other.mlir").read_text()
    assert "qnn.relu" in Path(source).read_text()
    assert capsys.readouterr().out == ""


def test_an_output_that_is_a_folder(source, tmp_path, capsys):
    assert main([source, "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"quartic: error: {tmp_path}: Is a directory\n"


def test_an_output_in_no_folder(source, tmp_path, capsys):
    assert main([source, "-o", str(tmp_path / "no" / "a.mlir")]) == 2
    assert "a.mlir: its folder does not exist; create " in capsys.readouterr().err


def test_time_passes_prints_a_table_on_stderr(source, capsys):
    assert main([source, "-p", "canonicalize-qnn,fold-constants", "--time-passes"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["canonicalize-qnn", "fold-constants", "total"]


def test_time_table_adds_up():
    assert time_table([("a", 1.0), ("bcd", 3.0)]).splitlines() == [
        "a        1.0000 s  25.0%",
        "bcd      3.0000 s  75.0%",
        "total    4.0000 s",
    ]


def test_time_table_without_passes():
    assert time_table([]) == "total    0.0000 s"


def test_broken_input_is_an_error_with_its_position(tmp_path, capsys):
    path = tmp_path / "bad.mlir"
    path.write_text(MODULE.replace("tensor<2xf32> {", "tensor<2xf32> {{"))
    assert main([str(path)]) == 2
    assert f"error: {path}:1" in capsys.readouterr().err


def test_unknown_pass_is_an_error(source, capsys):
    assert main([source, "-p", "no-such-pass"]) == 2
    assert "no-such-pass" in capsys.readouterr().err


def test_missing_file_is_an_error(capsys):
    assert main(["nowhere.mlir"]) == 2
    assert "nowhere.mlir" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "path"), [*DIALECTS.items(), *PASSES.items(), *TARGETS.items()])
def test_universe_rows_load_and_have_their_name(name, path):
    assert lazily(path)().name == name


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_lies_in_the_file_of_its_name(name):
    assert PASSES[name].split(":")[0] == f"compiler.passes.{name.replace('-', '_')}"
    assert import_module(PASSES[name].split(":")[0])


@pytest.mark.slow
def test_driver_does_not_import_torch():
    code = "import sys, compiler.opt; compiler.opt.QuarticOpt(args=[]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PIPELINE = (
    "fold-constants,legalize-linear,canonicalize-qnn,fuse-kernels,materialize-copies,"
    "tile-kernels{machine=tiny},plan-memory{machine=tiny}"
)


def test_whole_pipeline_from_text_to_assembly(source, capsys):
    assert main([source, "-p", PIPELINE, "-t", "npu{machine=tiny}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("vcu.run") for line in lines)
    assert lines[-1] == "halt"


@pytest.mark.slow
def test_each_level_is_printed_in_text_that_the_rest_of_the_pipeline_reads(source, tmp_path, capsys):
    assert main([source, "-p", PIPELINE, "-t", "npu{machine=tiny}"]) == 0
    whole = capsys.readouterr().out
    path = source
    for i, step in enumerate(PIPELINE.split(",")):
        assert main([str(path), "-p", step]) == 0
        path = tmp_path / f"{i}.mlir"
        path.write_text(capsys.readouterr().out)
    assert main([str(path), "-t", "npu{machine=tiny}"]) == 0
    assert capsys.readouterr().out == whole


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ("tile-kernels", "qnn.relu stands outside of a kernel: run fuse-kernels first"),
        ("fuse-kernels,plan-memory", "kernel 'relu' has no schedule: run tile-kernels first"),
    ],
)
def test_a_pass_in_front_of_what_it_needs_is_an_error(source, capsys, passes, expected):
    assert main([source, "-p", passes]) == 2
    assert expected in capsys.readouterr().err


def test_target_without_addresses_is_an_error(source, capsys):
    steps = PIPELINE.rsplit(",", 1)[0]
    assert main([source, "-p", steps, "-t", "npu{machine=tiny}"]) == 2
    assert "has no addresses: run plan-memory first" in capsys.readouterr().err
