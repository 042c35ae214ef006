"""4-bit codes move by whole bytes or as 8-bit codes."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.analysis.graph import build_graph
from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import int_type, is_int
from compiler.interpreter.qnn import run_qnn
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.prepare_kernels import prepare
from isa.errors import UnsupportedError
from tests.compiler.alias_graphs import concat, pad, permute, reshape
from tests.compiler.kern_graphs import checked, dq, graph, inputs, q
from tests.compiler.view_graphs import cut

NARROW = IntType(4, 0.3, -1)
SHAPE = (1, 4, 3, 6)


def moved(move) -> tuple[ModuleOp, int]:
    """The kern level of a move of 4-bit codes, bits checked, and the widest codes that moved."""
    module = checked(graph([SHAPE], lambda x: dq(move(q(x, NARROW)))), fuse_kernels)
    copies = (*kern.MOVES, qnn.PadOp)
    values = [op.results[0] for op in module.walk() if isinstance(op, (*copies, kern.ConcatOp))]
    return module, max(int_type(v).width.data for v in values if is_int(v))


@pytest.mark.parametrize(
    "move",
    [
        lambda x: permute(reshape(x, 1, 4, 18), 0, 2, 1),
        lambda x: cut(x, 1, 2, 2),
        lambda x: cut(x, 3, 1, 3),
        lambda x: reshape(permute(x, 0, 2, 3, 1), 1, 18, 4),
        lambda x: reshape(permute(reshape(permute(x, 0, 2, 3, 1), 3, 3, 2, 4), 2, 0, 1, 3), 6, 3, 4),
        lambda x: concat(x, x),
        lambda x: concat(x, cut(x, 1, 0, 3)),
    ],
    ids=["tokens", "even channels", "columns", "rows", "pairs stay", "join", "join of an odd rest"],
)
def test_whole_bytes_move_as_they_are(move):
    assert moved(move)[1] == 4


@pytest.mark.parametrize(
    "move",
    [
        lambda x: cut(x, 1, 1, 2),
        lambda x: cut(x, 1, 0, 2, 2),
        lambda x: reshape(permute(x, 0, 3, 1, 2), 6, 4, 3),
        lambda x: concat(cut(x, 1, 0, 3), x),
        lambda x: pad(x, (0, 0, 1, 0, 0, 0, 0, 0)),
    ],
    ids=["odd channels", "every second", "transposed", "join behind an odd one", "pad"],
)
def test_torn_bytes_move_as_8_bit_codes(move):
    assert moved(move)[1] == 8


BOOK = IntType(4, 0.1, 2, [-90, -64, -45, -30, -20, -12, -6, -1, 2, 7, 13, 21, 33, 48, 70, 100])
THRESHOLDS = np.linspace(-2, 2, 15)


def coded(x: SSAValue, thresholds: np.ndarray = THRESHOLDS) -> SSAValue:
    return qnn.QuantizeOp(x, BOOK, None, thresholds).output


def product(x: SSAValue) -> SSAValue:
    weights = qnn.ConstantOp(np.arange(2 * x.type.get_shape()[-1]).reshape(2, -1).astype(np.int8)).output
    return qnn.LinearOp(x, weights, qnn.ConstantOp(np.ones(2, np.float32)).output, None).output


@pytest.mark.parametrize(
    "move",
    [
        lambda x: cut(coded(x), 1, 1, 2),
        lambda x: reshape(permute(coded(x), 0, 3, 1, 2), 6, 4, 3),
        lambda x: concat(cut(coded(x), 1, 0, 3), coded(x)),
    ],
    ids=["odd channels", "transposed", "join behind an odd one"],
)
def test_a_torn_codebook_is_made_behind_the_move(move):
    module = graph([SHAPE], lambda x: product(move(x)))
    arrays = inputs(module)
    (want,) = run_qnn(module, arrays)
    prepare(next(iter(module.ops)).body.block)
    module.verify()
    assert np.array_equal(run_qnn(module, arrays)[0], want)
    assert [v for op in module.walk() if isinstance(op, kern.MOVES) for v in op.results if is_int(v)] == []


def test_codebooks_of_other_thresholds_cannot_join_when_torn():
    def body(x: SSAValue) -> SSAValue:
        return product(concat(cut(coded(x), 1, 0, 3), coded(x, THRESHOLDS * 2)))

    with pytest.raises(UnsupportedError, match=r"qnn\.concat tears 4-bit codes of a codebook apart"):
        prepare(next(iter(graph([SHAPE], body).ops)).body.block)


def test_a_torn_codebook_that_was_always_codes_is_refused():
    codes = IntType(4, 0.3, 0, tuple(range(16)))

    def body(x: SSAValue) -> SSAValue:
        return cut(qnn.ConstantOp(np.zeros(SHAPE, np.int8), codes).output, 1, 1, 2)

    module = graph([SHAPE], body)
    with pytest.raises(UnsupportedError, match=r"qnn\.slice tears 4-bit codes of a codebook apart"):
        prepare(next(iter(module.ops)).body.block)


def test_two_codes_lie_in_a_byte():
    def body(x: SSAValue) -> SSAValue:
        y = q(x, NARROW)
        return dq(concat(cut(y, 1, 2, 2), y))

    module = graph([SHAPE], body)
    fuse_kernels(module)
    materialize_copies(module)
    placed = build_graph(module).placed
    joined = next(v for v in placed if isinstance(v.owner, kern.ConcatOp))
    parts = [placed[v] for v in joined.owner.inputs]
    assert (placed[joined].storage.bytes, placed[joined].shape) == (3 * 6 * 3, (1, 3, 6, 3))
    assert [(p.offset, p.shape, p.strides) for p in parts] == [
        (0, (1, 3, 6, 1), (54, 18, 3, 1)),
        (1, (1, 3, 6, 2), (54, 18, 3, 1)),
    ]
