"""Which bytes a value is: joins alias, views rename, lifetimes span first write to last read."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.analysis.graph import KernelGraph, build_graph, concat_slice
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import float_tensor
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from isa.errors import UnsupportedError
from isa.instructions import Region
from tests.compiler.alias_graphs import concat, max_pool, reshape
from tests.compiler.kern_graphs import conv, graph, linear, q, relu


def built(body, *shapes: tuple[int, ...]) -> KernelGraph:
    module = graph(list(shapes) or [(1, 3, 9, 8)], body)
    fuse_kernels(module)
    materialize_copies(module)
    return build_graph(module)


def result(found: KernelGraph, step: int):
    return found.placed[found.steps[step].op.output]


def test_nested_joins_are_slices_of_one_storage():
    def body(x: SSAValue) -> SSAValue:
        a, b, c = (q(conv(q(x), n)) for n in (8, 4, 3))
        return q(conv(concat(concat(a, b), c), 5))

    found = built(body)
    slices = [result(found, i) for i, s in enumerate(found.steps) if s.spec.output[3] in (8, 4) and s.spec.macs]
    third = next(result(found, i) for i, s in enumerate(found.steps) if s.spec.output[3] == 3 and s.spec.macs)
    assert [p.offset for p in (*slices, third)] == [0, 8, 12]
    assert {p.strides for p in (*slices, third)} == {(9 * 8 * 15, 8 * 15, 15, 1)}
    assert len({p.storage for p in (*slices, third)}) == 1
    assert third.storage.bytes == 9 * 8 * 15
    assert not third.packed


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((2, 3, 4, 5), 0, (0, 2)), ((2, 3, 4, 5), 1, (3, 3)), ((2, 3, 4, 5), 2, (1, 4)), ((2, 3, 4, 5), -1, (2, 5)),
        ((2, 3, 4), 0, (0, 2)), ((2, 3, 4), 1, (2, 3)), ((2, 3, 4), 2, (3, 4)),
        ((3, 4), 0, (2, 3)), ((3, 4), 1, (3, 4)),
        ((4,), 0, (3, 4)),
    ],
)  # fmt: skip
def test_a_join_along_any_axis_of_any_rank(shape, axis, expected):
    values = [qnn.ConstantOp(np.zeros(shape, np.float32)).output for _ in range(2)]
    joined = list(shape)
    joined[axis] *= 2
    assert concat_slice(kern.ConcatOp("c", values, axis, float_tensor(joined)), 1) == expected


def test_a_view_is_its_operands_bytes():
    def body(x: SSAValue) -> SSAValue:
        return linear(reshape(max_pool(q(x), 9, 1, 0), 1, 3), 4)

    found = built(body, (1, 3, 9, 9))
    pooled = result(found, 1)
    last = found.steps[2]
    assert last.values[0] is not None
    assert found.placed[last.values[0]].storage is pooled.storage
    assert [s.spec.output for s in found.steps] == [(1, 9, 9, 3), (1, 1, 1, 3), (1, 1, 1, 4)]


def test_a_storage_lives_from_its_first_write_to_its_last_read():
    def body(x: SSAValue) -> SSAValue:
        a = q(conv(q(x), 4))
        return q(conv(concat(q(conv(a, 4)), q(conv(a, 4))), 4))

    found = built(body)
    spans = {i: (result(found, i).storage.first, result(found, i).storage.last) for i in range(5)}
    assert spans == {0: (0, 1), 1: (1, 3), 2: (2, 4), 3: (2, 4), 4: (4, 4)}
    assert result(found, 1).storage.readers == 2


def test_inputs_and_outputs_lie_in_pytorchs_order_in_their_regions():
    found = built(lambda x: conv(q(x), 4))
    given, made = found.placed[found.inputs[0]], result(found, len(found.steps) - 1)
    assert (given.storage.region, given.strides) == (Region.INPUT, (3 * 72 * 4, 8 * 4, 4, 72 * 4))
    assert (made.storage.region, made.strides) == (Region.OUTPUT, (4 * 72 * 4, 8 * 4, 4, 72 * 4))
    assert (made.storage.argument, made.element) == (0, 4)


def test_bytes_with_gaps_are_seen_only_as_they_are():
    found = built(lambda x: conv(q(x), 4))
    planar = found.placed[found.inputs[0]]
    assert planar.seen_as((1, 9, 8, 3)) is planar
    with pytest.raises(AssertionError, match="materialize-copies must come first"):
        planar.seen_as((1, 1, 1, 216))


def test_copies_come_from_no_node():
    found = built(lambda x: x)
    assert [(s.spec.name, s.nodes) for s in found.steps] == [("copy_0", ())]


def test_an_operation_outside_of_kernels_is_refused():
    module: ModuleOp = graph([(2, 2)], relu)
    with pytest.raises(UnsupportedError, match=r"^qnn\.relu stands outside of a kernel: run fuse-kernels first$"):
        build_graph(module)
