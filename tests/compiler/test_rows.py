"""Row operations and attention: qnn, kern, tile and the binary compute the same bits, whatever the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from compiler.analysis.graph import build_graph
from compiler.dialects import kern
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.interpreter.tile import run_tile
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.tile_kernels import tile_kernels
from compiler.pipeline import Options as PipelineOptions
from compiler.pipeline import compile_module
from isa.machine import Machine
from runtime.session import run
from tests.bits import assert_same
from tests.compiler.kern_graphs import graph, inputs
from tests.compiler.row_graphs import EXTREMES, GRAPHS

TINY, EDGE = Machine.load("tiny"), Machine.load("edge28")


def kernels(module: ModuleOp) -> list[kern.FusedOp]:
    return [op for op in module.walk() if isinstance(op, kern.FusedOp)]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_level_gives_the_same_bits(name: str, fuse: bool):
    module = graph(*GRAPHS[name])
    values = inputs(module)
    expected = run_qnn(module, values)
    fuse_kernels(module, Options(fuse))
    materialize_copies(module)
    assert_same(run_kern(module, values), expected)
    for machine, slots in ((TINY, 2), (TINY, 1), (EDGE, 2)):
        tiled = module.clone()
        tile_kernels(tiled, machine, None, slots)
        assert_same(run_tile(tiled, values), expected)


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("name", ["softmax", "layer_norm_float", "layer_norm_wide", "sum_float", "attention"])
def test_extreme_rows_give_the_same_bits(name: str, extreme: str):
    module = graph(*GRAPHS[name])
    values = [EXTREMES[extreme](shape) for shape in GRAPHS[name][0]]
    expected = run_qnn(module, values)
    fuse_kernels(module)
    materialize_copies(module)
    tile_kernels(module, TINY)
    assert_same(run_tile(module, values), expected)


@pytest.mark.parametrize("name", ["attention", "masked_attention", "attention_narrow"])
def test_attention_is_one_kernel(name: str):
    module = graph(*GRAPHS[name])
    fuse_kernels(module)
    found = [k for k in kernels(module) if any(type(m).name == "qnn.matmul" for m in k.members)]
    assert [[m.name for m in found[0].members].count(n) for n in ("qnn.matmul", "qnn.softmax")] == [2, 1]
    assert len(found) == 1


def test_scores_that_the_accumulators_cannot_hold_are_stored():
    module = graph(*GRAPHS["attention"])
    fuse_kernels(module, Options(row_elements=20))
    assert sum(any(m.name == "qnn.matmul" for m in k.members) for k in kernels(module)) == 2


def test_factors_that_the_sram_cannot_hold_are_read_by_kernels_of_their_own():
    """Keys and values of a head take 21 x 16 bytes each; a softmax needs all keys at once."""
    names: dict[int, list[list[str]]] = {}
    for limit in (672, 671, 335):
        module = graph(*GRAPHS["attention"])
        fuse_kernels(module, Options(factor_bytes=limit))
        names[limit] = [[m.name.removeprefix("qnn.") for m in k.members] for k in kernels(module)][3:]
    scores, rows, product = ["matmul", "mul"], ["softmax", "quantize"], ["matmul", "quantize"]
    assert names == {672: [scores + rows + product], 671: [scores + rows, product], 335: [scores, rows, product]}


@pytest.mark.thin(1)
@pytest.mark.parametrize(("sram", "acc", "slots"), [
    (65536, 16384, (2, 2)), (12288, 16384, (1, 2)), (12288, 2048, (1, 1)),
])  # fmt: skip
def test_attention_over_long_rows_takes_fewer_slots(sram: int, acc: int, slots: tuple[int, int]):
    """Keys and values of a head take 4 KiB each, a row of scores 1 KiB of the accumulators."""
    module = graph([(2, 256, 16)] * 3, GRAPHS["attention"][1])
    values = inputs(module)
    expected = run_qnn(module, values)
    machine = replace(TINY, sram=replace(TINY.sram, bytes=sram), acc=replace(TINY.acc, bytes=acc))
    tiled = module.clone()
    fuse_kernels(tiled)
    materialize_copies(tiled)
    row = next(row for row in tile_kernels(tiled, machine).kernels if len(row.nodes) > 1)
    assert (row.weight_slots, row.output_slots) == slots
    assert_same(run_tile(tiled, values), expected)
    binary = compile_module(module, machine, PipelineOptions()).binary
    assert_same(run(binary, [torch.from_numpy(v) for v in values]).outputs, expected)


def test_a_tile_holds_whole_rows():
    module = graph([(1, 64, 640)], GRAPHS["softmax"][1])
    fuse_kernels(module)
    materialize_copies(module)
    schedule = tile_kernels(module, TINY)
    assert [k.tile_c for k in schedule.kernels] == [640]


def test_rows_whose_rings_fill_the_sram_are_cut():
    """All 183 pixels are less than a quarter of the SRAM, but two slots of both rings are more than is free."""
    module = graph([(1, 183, 2048)], GRAPHS["layer_norm_float"][1])
    fuse_kernels(module)
    materialize_copies(module)
    schedule = tile_kernels(module, Machine.load("quartdepth28-f32"))
    assert all(k.tile_w < 183 for k in schedule.kernels)


def test_rows_that_fit_only_once_have_rings_of_one_slot():
    """Two slots of the rings of 2048 channels are 64 bytes more than the SRAM."""
    module = graph([(1, 3, 2048)], GRAPHS["layer_norm_float"][1])
    values = inputs(module)
    expected = run_qnn(module, values)
    compiled = compile_module(module, TINY, PipelineOptions())
    assert [(k.stream_slots, k.output_slots) for k in compiled.schedule.kernels] == [(1, 1)]
    assert_same(run(compiled.binary, [torch.from_numpy(v) for v in values]).outputs, expected)


def test_scores_and_probabilities_have_no_storage():
    module = graph(*GRAPHS["attention"])
    fuse_kernels(module)
    materialize_copies(module)
    sizes = {s.bytes for s in build_graph(module).storages}
    assert not sizes & {3 * 21 * 21, 4 * 3 * 21 * 21}
