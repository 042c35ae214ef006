"""Transposed convolutions and pixel shuffles without a copy; where a product stays whole; and the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import shape_of
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.ir.signature import main_function
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.split_products import split_products
from isa.instructions import Mode
from tests.bits import assert_same
from tests.compiler.alias_graphs import concat, permute, reshape
from tests.compiler.kern_graphs import add, const, conv, graph, inputs, q, relu, scales, weights
from tests.compiler.test_views import copies
from tests.compiler.view_graphs import cut

IMAGE = (2, 3, 6, 5)


def pixels(y: SSAValue, factors: tuple[int, int] = (2, 2), last: bool = True) -> SSAValue:
    """Channels (i, j, C), or (C, i, j) unless ``last``, as pixels."""
    n, k, h, w = shape_of(y)
    sh, sw = factors
    c = k // (sh * sw)
    if last:
        apart = permute(reshape(y, n, sh, sw, c, h, w), 0, 3, 4, 1, 5, 2)
    else:
        apart = permute(reshape(y, n, c, sh, sw, h, w), 0, 1, 4, 2, 5, 3)
    return reshape(apart, n, c, sh * h, sw * w)


def silu(x: SSAValue) -> SSAValue:
    return qnn.MulOp(x, qnn.SigmoidOp(x).output).output


def zeroed(x: SSAValue) -> SSAValue:
    """A convolution with a zero point and a bias for each of 12 channels."""
    w = weights(12, 3, 1, 1)
    return qnn.Conv2dOp(x, w, scales(12), const(12), weight_zeros=[c - 6 for c in range(12)]).output


def two_readers(x: SSAValue) -> list[SSAValue]:
    y = pixels(zeroed(q(x)))
    return [q(relu(y)), q(add(y, y))]


SPLIT: dict[str, Callable[[SSAValue], SSAValue | list[SSAValue]]] = {
    "codes": lambda x: pixels(q(zeroed(q(x)))),
    "floats": lambda x: pixels(zeroed(q(x))),
    "shuffle": lambda x: pixels(q(zeroed(q(x))), last=False),
    "a factor for rows, one for columns": lambda x: pixels(q(zeroed(q(x))), (3, 2), False),
    "rows": lambda x: pixels(q(zeroed(q(x))), (2, 1)),
    "windows": lambda x: pixels(q(conv(q(x), 8, 3))),
    "what computes on it": lambda x: pixels(q(silu(qnn.MulOp(zeroed(q(x)), const(12, 1, 1)).output))),
    "behind the moves": lambda x: q(relu(qnn.MulOp(pixels(zeroed(q(x))), const(1, 3, 1, 1)).output)),
    "silu behind the moves": lambda x: q(silu(pixels(zeroed(q(x))))),
    "two readers": two_readers,
    "tokens": lambda x: permute(reshape(pixels(q(conv(q(x), 8))), 2, 2, 120), 0, 2, 1),
    "a crop": lambda x: conv(cut(pixels(q(zeroed(q(x)))), 2, 1, 10), 4),
    "columns first": lambda x: conv(permute(pixels(q(zeroed(q(x)))), 0, 1, 3, 2), 4),
    "pairs of codes": lambda x: conv(pixels(q(conv(q(x), 8), IntType(4, 0.5, 1))), 4),
}

WHOLE: dict[str, Callable[[SSAValue], SSAValue]] = {
    "groups": lambda x: pixels(q(conv(q(x), 12, groups=3))),
    "a run": lambda x: pixels(q(zeroed(q(x))), (1, 4)),
    "planes": lambda x: reshape(q(zeroed(q(x))), 2, 2, 6, 6, 5),
    "other moves behind": lambda x: permute(pixels(q(zeroed(q(x)))), 2, 3, 0, 1),
    "a join": lambda x: concat(pixels(q(zeroed(q(x)))), pixels(q(zeroed(q(relu(x)))))),
    "another tensor": lambda x: pixels(add(zeroed(q(x)), zeroed(q(relu(x))))),
    "codes that share bytes": lambda x: pixels(q(zeroed(q(x)), IntType(4, 0.5, 1))),
    "an input that is read again": lambda x: pixels(q(conv(q(zeroed(q(x))), 4)), (4, 1)),
}


def products(module: ModuleOp) -> int:
    return sum(isinstance(op, qnn.Conv2dOp) for op in module.walk())


def split(module: ModuleOp) -> ModuleOp:
    split_products(main_function(module).body.block)
    module.verify()
    return module


def settled(module: ModuleOp, **options) -> ModuleOp:
    fuse_kernels(module, Options(**options))
    materialize_copies(module)
    module.verify()
    return module


@pytest.mark.parametrize("name", SPLIT)
def test_nothing_is_copied_and_bits_stay(name: str):
    module = graph([IMAGE], SPLIT[name])
    values = inputs(module)
    expected = run_qnn(module, values)
    before = products(module)
    settled(module)
    assert products(module) > before
    assert [c for c in copies(module) if c != "qnn.pad"] == []  # outputs lie as PyTorch keeps them
    assert_same(run_kern(module, values), expected)


@pytest.mark.parametrize("name", WHOLE)
def test_other_products_stay_whole(name: str):
    module = graph([IMAGE], WHOLE[name])
    before = str(module)
    assert str(split(module)) == before


def test_what_has_other_readers_stays_behind_the_moves():
    module = settled(graph([IMAGE], two_readers))
    kernels = [op for op in module.walk() if isinstance(op, kern.KernelOp)]
    assert sum(isinstance(op.anchor, qnn.Conv2dOp) for op in kernels) == 2
    (join,) = (op for op in module.walk() if isinstance(op, kern.ConcatOp))
    assert shape_of(join.output) == (12, 2, 30)
    assert [[m.name for m in op.members] for op in kernels if any(isinstance(m, qnn.ReluOp) for m in op.members)] == [
        ["qnn.relu", "qnn.quantize"]
    ]


@pytest.mark.parametrize(("lanes", "count"), [(6, 2), (3, 2), (12, 1), (4, 1), (2, 2)])
def test_pieces_fill_the_matrix_unit(lanes: int, count: int):
    module = settled(graph([IMAGE], SPLIT["codes"]), lanes={Mode.W8A8: lanes})
    assert products(module) == count


def test_a_mode_that_the_machine_lacks_splits_nothing():
    assert products(settled(graph([IMAGE], SPLIT["codes"]), lanes={Mode.F32: 2})) == 1
