"""Kernels wait for their readers: the same kernels in a legal order, with the same bits, and no more bytes alive."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.analysis.graph import Storage, build_graph
from compiler.dialects import kern, qnn
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.ir.location import origins
from compiler.ir.signature import main_function
from compiler.passes.delay_kernels import delay_kernels
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from tests.bits import assert_same
from tests.compiler.kern_graphs import conv, graph, inputs, q
from tests.compiler.loop_graphs import modules
from tests.thinning import examples

COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


def kernels(module: ModuleOp) -> list[kern.FusedOp]:
    return [op for op in main_function(module).body.block.ops if isinstance(op, kern.FusedOp)]


def names(module: ModuleOp) -> list[str]:
    return [op.kernel.data for op in kernels(module)]


def fused(module: ModuleOp) -> ModuleOp:
    fuse_kernels(module)
    materialize_copies(module)
    return module


def alive(module: ModuleOp) -> int:
    """Elements times kernels during which what a kernel makes waits for its last reader."""
    position, kernel = dict[object, int](), 0
    for op in main_function(module).body.block.ops:
        kernel += isinstance(op, kern.FusedOp)
        position[op] = kernel

    def last(value: SSAValue) -> int:
        users = [use.operation for use in value.uses]
        return max((last(u.output) if isinstance(u, kern.ViewOp) else position[u] for u in users), default=0)

    made = [op.output for op in kernels(module)]
    sizes = [int(np.prod(value.type.get_shape())) for value in made]
    return sum(size * max(last(v) - position[v.owner], 0) for v, size in zip(made, sizes, strict=True))


@given(modules(batch=1))
@settings(max_examples=examples(20), **COMMON)
def test_the_order_is_legal_and_keeps_no_more_alive(module: ModuleOp) -> None:
    values = inputs(module)
    expected = run_qnn(module, values)
    before = fused(module)
    order, waiting = names(before), alive(before)
    delay_kernels(before)
    before.verify()
    assert sorted(names(before)) == sorted(order)
    assert alive(before) <= waiting
    assert_same(run_kern(before, values), expected)


def skip(x: SSAValue) -> SSAValue:
    """Three convolutions in a row, and one beside them that the last one joins."""
    a = q(x)
    side = q(conv(a, 8))
    for _ in range(3):
        a = q(conv(a, 8, 3))
    return q(conv(qnn.ConcatOp([a, side], 1).output, 4))


def joined(module: ModuleOp) -> Storage:
    """The storage of the join."""
    return max((s for s in build_graph(module).storages if s.region is None), key=lambda s: s.bytes)


def test_the_maker_of_a_skip_connection_waits():
    module = fused(graph([(1, 8, 9, 8)], skip))
    order = names(module)
    assert joined(module).last - joined(module).first == 4
    delay_kernels(module)
    assert names(module) == [order[0], *order[2:5], order[1], order[5]]
    assert joined(module).last - joined(module).first == 2


def test_a_chain_keeps_its_order():
    module = fused(graph([(1, 8, 9, 8)], lambda x: q(conv(q(conv(q(conv(q(x), 4, 3)), 4, 3)), 4, 3))))
    order = names(module)
    delay_kernels(module)
    assert names(module) == order


def test_locations_move_with_their_kernels():
    module = fused(graph([(1, 8, 9, 8)], skip))
    said = {op.kernel.data: origins(op) for op in kernels(module)}
    delay_kernels(module)
    assert {op.kernel.data: origins(op) for op in kernels(module)} == said


def test_what_nobody_reads_stays_where_it_is():
    module = fused(graph([(1, 8, 9, 8)], lambda x: [q(conv(q(x), 16)), q(x)]))
    end = main_function(module).body.block.last_op
    assert end is not None
    end.operands = end.operands[1:]
    order = names(module)
    assert [op.output.uses.get_length() for op in kernels(module)] == [1, 0, 1]
    delay_kernels(module)
    assert names(module) == order
