"""Every level computes the bits of the qnn level: kern, tile and the binary, for graphs that share and move bytes."""

from __future__ import annotations

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from compiler.interpreter.qnn import run_qnn
from compiler.interpreter.tile import run_tile
from compiler.pipeline import Options, Stopwatch, compile_module
from isa.machine import Machine
from runtime.session import run
from tests.bits import assert_same
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, graph, inputs
from tests.compiler.view_graphs import VIEWS

TINY = Machine.load("tiny")
ALL = {**GRAPHS, **CASES, **VIEWS}


def check(name: str, options: Options, machine: Machine = TINY) -> None:
    module = graph(*ALL[name])
    values = inputs(module, 3.0)
    expected = run_qnn(module, values)

    def after(stage: str, module: ModuleOp) -> None:
        if stage in ("fuse-kernels", "materialize-copies", "tile-kernels"):
            assert_same(run_tile(module, values), expected, stage)

    binary = compile_module(module, machine, options, Stopwatch(after)).binary
    assert_same(run(binary, [torch.from_numpy(v) for v in values]).outputs, expected, "binary")


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ALL)
def test_levels_agree(name: str) -> None:
    check(name, Options())


@pytest.mark.thin(1)
@pytest.mark.parametrize(
    "name", ["nested_concat", "uneven_pool", "pads", "views_of_input", "grouped", "zoo", "attention"]
)
@pytest.mark.parametrize("options", [Options(fuse=False), Options(double_buffer=False)], ids=["alone", "single"])
def test_levels_agree_without_fusion_or_double_buffers(name: str, options: Options) -> None:
    check(name, options)


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ["shared_operands", "returned_views", "uneven_pool_batch", "zoo"])
def test_levels_agree_where_everything_fits(name: str) -> None:
    check(name, Options(), Machine.load("edge28"))
