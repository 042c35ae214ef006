"""What the compiler makes of fixed graphs: schedule, assembly, cycles and energy, as files that reviews can read.

The inputs are text, so nothing depends on a machine's float sums. ``make golden`` rewrites the expectations.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser

from compiler.dialects.qnn import Qnn
from compiler.pipeline import Options, compile_module
from isa.assembler import disassemble
from isa.machine import Machine
from runtime.session import run_timing

HERE = Path(__file__).parent
GRAPHS = sorted(path.stem for path in HERE.glob("*.mlir"))


def parse(path: Path) -> ModuleOp:
    """The module in ``path``, verified."""
    context = Context()
    for dialect in (Builtin, Func, Qnn):
        context.load_dialect(dialect)
    module = Parser(context, path.read_text(encoding="utf-8"), path.name).parse_module()
    module.verify()
    return module


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_binary_is_the_expected_one(graph: str, machine: str) -> None:
    compiled = compile_module(parse(HERE / f"{graph}.mlir"), Machine.load(machine), Options())
    profile = run_timing(compiled.binary, checks=True).profile
    energy, constants = profile.energy.total_fj.nominal, len(compiled.binary.constants)
    figures = f"{profile.cycles} cycles, {energy} fJ, {constants} constant bytes\n"
    actual = "\n".join((figures, compiled.schedule.to_toml(), disassemble(compiled.binary.instructions)))
    path = HERE / f"{graph}.{machine}.txt"
    if "QUARTIC_UPDATE_GOLDEN" in os.environ:
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8"), "if this is meant, run `make golden` and read the diff"
