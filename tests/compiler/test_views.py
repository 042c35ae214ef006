"""Moves that networks are full of need no kernel: which ones stay, case by case."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from compiler.analysis.graph import build_graph
from compiler.dialects import kern, qnn
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from tests.compiler.kern_graphs import conv, graph, linear, q
from tests.compiler.view_graphs import VIEWS, cut

COPIES = (*kern.MOVES, qnn.PadOp)


def settled(shapes, body) -> ModuleOp:
    module = graph(shapes, body)
    fuse_kernels(module)
    materialize_copies(module)
    module.verify()
    return module


def copies(module: ModuleOp) -> list[str]:
    found = [op for op in module.walk() if isinstance(op, kern.KernelOp) and isinstance(op.members[0], COPIES)]
    return [" ".join(m.name for m in op.members) for op in found]


@pytest.mark.parametrize(
    "name",
    ["fused_heads", "separate_heads", "tokens_to_image", "class_token", "sub_rows", "sub_pixels",
     "sub_pixels_last", "channels_last", "channels_last_residual"],
)  # fmt: skip
def test_no_copy(name: str):
    assert copies(settled(*VIEWS[name])) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shuffle_channels", ["qnn.reshape qnn.permute qnn.reshape"]),
        ("split_channels", ["qnn.pad"]),
    ],
)
def test_one_copy(name: str, expected: list[str]):
    assert copies(settled(*VIEWS[name])) == expected


def test_a_slice_is_read_where_its_operand_lies():
    found = build_graph(settled([(1, 5, 8)], lambda x: linear(cut(cut(q(x), 1, 1, 3), 2, 2, 4), 3)))
    product = found.steps[-1]
    assert product.values[0] is not None
    read = found.placed[product.values[0]]
    whole = found.placed[found.steps[0].op.output]
    assert read.storage is whole.storage
    assert (read.offset, read.strides, read.shape) == (1 * 8 + 2, (0, 0, 8, 1), (1, 1, 3, 4))


def test_moves_with_two_readers_are_one_kernel_if_no_move_reads_them():
    def body(x):
        y = q(conv(q(x), 8))
        shuffled = qnn.ReshapeOp(qnn.PermuteOp(qnn.ReshapeOp(y, (1, 2, 4, 6, 5)), (0, 2, 1, 3, 4)), (1, 8, 6, 5)).output
        return conv(shuffled, 3), conv(shuffled, 4)

    assert len(copies(settled([(1, 3, 6, 5)], body))) == 1


def test_each_move_that_reads_a_move_has_a_chain_of_its_own():
    def body(x):
        both = qnn.PermuteOp(q(linear(q(x), 8)), (1, 0, 2)).output
        return linear(cut(both, 2, 0, 4), 3), linear(cut(both, 2, 4, 4), 3)

    module = settled([(1, 5, 8)], body)
    views = [op for op in module.walk() if isinstance(op, kern.ViewOp)]
    assert [len(v.members) for v in views] == [2, 2]
    assert copies(module) == []
