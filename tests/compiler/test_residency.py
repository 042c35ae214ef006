"""What stays in SRAM: storage of several writers stays only if each of them says so."""

from dataclasses import replace
from itertools import product

import pytest

from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.memory import kept_by, plan_memory
from compiler.dialects import qnn
from compiler.ir.schedule import Schedule
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.tile_kernels import tile_kernels
from isa.machine import Machine
from tests.compiler.kern_graphs import conv, graph, q

EDGE = Machine.load("edge28")


@pytest.fixture(scope="module")
def joined() -> tuple[KernelGraph, Schedule]:
    """Two convolutions write slices of one join, which a third reads."""

    def body(x):
        a = q(x)
        return q(conv(qnn.ConcatOp([q(conv(a, 4)), q(conv(a, 4, 3))], 1).output, 5))

    module = graph([(1, 3, 9, 8)], body)
    fuse_kernels(module)
    materialize_copies(module)
    before = build_graph(module)
    return before, tile_kernels(module, EDGE)


@pytest.mark.parametrize(("first", "second"), [*product((False, True), repeat=2)])
def test_every_writer_must_say_keep(joined, first, second):
    kernels, schedule = joined
    writers = [s for s in kernels.steps if kernels.placed[s.op.output].storage.bytes == 8 * 9 * 8]
    assert len(writers) == 2
    says = dict(zip((s.spec.name for s in writers), (first, second), strict=True))
    rows = tuple(replace(row, keep=says.get(row.kernel, False)) for row in schedule.kernels)
    edited = Schedule(schedule.machine, rows)
    storage = kernels.placed[writers[0].op.output].storage.index
    assert (storage in kept_by(kernels, edited)) == (first and second)
    assert (storage in plan_memory(kernels, edited, EDGE).resident) == (first and second)
