"""Graphs whose values share bytes, move them, or leave the graph in unusual ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import shape_of
from tests.compiler.kern_graphs import POSITIVE, add, const, conv, dq, linear, q, relu

UNIT = IntType(8, 1 / 255, -128)


def concat(*values: SSAValue, axis: int = 1) -> SSAValue:
    return qnn.ConcatOp(values, axis).output


def pad(x: SSAValue, padding: Sequence[int], value: float = 0.0) -> SSAValue:
    return qnn.PadOp(x, padding, value).output


def reshape(x: SSAValue, *shape: int) -> SSAValue:
    return qnn.ReshapeOp(x, shape).output


def permute(x: SSAValue, *order: int) -> SSAValue:
    return qnn.PermuteOp(x, order).output


def max_pool(x: SSAValue, kernel: int = 3, stride: int = 1, margin: int = 1) -> SSAValue:
    return qnn.MaxPool2dOp(x, (kernel, kernel), (stride, stride), (margin,) * 4).output


def adaptive(x: SSAValue) -> SSAValue:
    return q(qnn.AdaptiveAvgPool2dOp(x, (4, 3)).output)


def sigmoid(x: SSAValue) -> SSAValue:
    return q(qnn.SigmoidOp(x).output, UNIT)


def nested_concat(x: SSAValue) -> SSAValue:
    a, b = q(conv(q(x), 8)), q(conv(q(x), 4))
    return q(conv(concat(concat(a, b), q(conv(a, 3))), 5, 3))


def shared_operands(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 8))
    b = q(conv(a, 4))
    return q(conv(concat(concat(a, b), a, concat(b, a)), 5, 3))


def doubled(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 4))
    return concat(a, a)


def returned_nested(x: SSAValue) -> list[SSAValue]:
    a = q(conv(q(x), 4))
    b = q(conv(a, 4))
    y = concat(a, b)
    return [concat(y, b), y, a]


def concat_of_input(x: SSAValue) -> SSAValue:
    return concat(x, relu(x), conv(q(x), 5, 3), x)


def concat_of_constant(x: SSAValue) -> list[SSAValue]:
    a = q(conv(q(x), 4))
    return [concat(x, const(1, 2, 9, 8)), concat(a, q(const(1, 2, 9, 8)))]


def concat_rows(x: SSAValue) -> SSAValue:
    return q(conv(concat(q(conv(q(x), 4)), q(conv(q(x), 4)), axis=2), 3, 3))


def concat_columns(x: SSAValue) -> SSAValue:
    return q(conv(concat(q(conv(q(x), 4)), q(conv(q(x), 4)), axis=3), 3, 3))


def concat_batch(x: SSAValue) -> SSAValue:
    return q(conv(concat(q(conv(q(x), 4)), q(conv(q(x), 4)), axis=0), 3, 3))


def view_of_concat(x: SSAValue) -> list[SSAValue]:
    n, _, h, w = shape_of(x)
    y = concat(q(conv(q(x), 4)), q(conv(q(x), 4)))
    return [linear(reshape(y, n, 8 * h * w), 5), y]


def returned_views(x: SSAValue) -> list[SSAValue]:
    n, _, h, w = shape_of(x)
    a = q(conv(q(x), 4))
    v = reshape(permute(a, 0, 2, 3, 1), n, h * w, 4)
    return [linear(v, 3), v, reshape(reshape(a, n, 4 * h * w), n, 4, h, w)]


def padded_into_concat(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 4))
    return q(conv(concat(pad(a, (0, 0, 0, 0, 1, 1, 0, 0)), pad(a, (0, 0, 0, 0, 2, 0, 0, 0))), 4, 3))


def pads(x: SSAValue) -> list[SSAValue]:
    a = pad(q(conv(q(x), 4)), (0, 0, 1, 2, 3, 1, 2, 0))
    b = q(conv(a, 4, 3))
    return [b, pad(b, (0, 1, 0, 0, 0, 0, 0, 0), 0.5), pad(x, (0, 0, 0, 0, 1, 1, 1, 1), -2.0)]


def same_input(x: SSAValue) -> SSAValue:
    return x


def inputs_and_copies(x: SSAValue) -> list[SSAValue]:
    r = relu(x)
    return [r, x, x, r]


def same_value_twice(x: SSAValue) -> list[SSAValue]:
    a = q(conv(q(x), 4))
    return [a, a, dq(a)]


def views_of_input(x: SSAValue) -> list[SSAValue]:
    n, c, h, w = shape_of(x)
    flat = reshape(x, n, c * h * w)
    return [linear(q(flat), 7), flat, permute(x, 0, 2, 3, 1), permute(q(x), 3, 1, 0, 2)]


def intermediates(x: SSAValue) -> list[SSAValue]:
    a = q(conv(q(x), 4))
    b = q(conv(a, 4))
    return [relu(dq(b)), a, b]


def input_and_residual(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 8))
    b = q(add(conv(a, 8, 3), dq(a)))
    m = q(add(dq(max_pool(b)), dq(b)))
    return q(qnn.MulOp(dq(m), dq(m)).output)


def gate(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 8))
    c = shape_of(a)[1]
    mean = q(qnn.AvgPool2dOp(a, shape_of(a)[2:], (1, 1)).output)
    return q(qnn.MulOp(dq(a), dq(sigmoid(conv(mean, c)))).output)


def uneven_pool(x: SSAValue) -> list[SSAValue]:
    a, b = q(conv(q(x), 5)), q(conv(q(x), 3))
    y = concat(a, b)
    u, v = adaptive(a), adaptive(y)
    return [y, u, concat(u, v), q(add(qnn.AdaptiveAvgPool2dOp(y, (4, 3)).output, dq(v)))]


def grouped(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 24))
    return q(conv(q(conv(a, 36, 3, groups=12)), 24, 3, groups=4))


def depthwise_multiplier(x: SSAValue) -> SSAValue:
    return q(conv(q(conv(q(x), 12)), 24, 3, groups=12))


def deep(x: SSAValue) -> SSAValue:
    """More input channels than tiny's SRAM holds of one pixel's window: the reduction is cut."""
    return q(conv(q(conv(q(x), 2048)), 24, 3), POSITIVE)


def matrix_of_itself(x: SSAValue) -> SSAValue:
    n, c, h, w = shape_of(x)
    a = q(reshape(x, n * c, h, w))
    return qnn.MatmulOp(a, permute(a, 0, 2, 1)).output


def unused(x: SSAValue) -> SSAValue:
    relu(x)
    return q(conv(q(x), 3))


def broadcast(x: SSAValue, y: SSAValue) -> SSAValue:
    return add(x, y)


def broadcast_slices(x: SSAValue, y: SSAValue) -> list[SSAValue]:
    """A tensor of lower rank that also is a slice of a join."""
    a, b = q(relu(y)), sigmoid(y)
    return [concat(a, a, axis=2), concat(a, q(relu(dq(b))), axis=1), add(x, dq(a)), add(x, dq(b))]


def shuffled(x: SSAValue) -> SSAValue:
    """Of each row the even pixels, then the odd ones."""
    n, c, h, w = shape_of(x)
    return reshape(permute(reshape(x, n, c, h, w // 2, 2), 0, 1, 2, 4, 3), n, c, h, w)


def planes(x: SSAValue) -> list[SSAValue]:
    """Moves that leave as one plane, alone and beside others; parts of a join that lie whole, and some that do not."""
    n, _, h, w = shape_of(x)
    one, two = (relu(qnn.SliceOp(x, (0, i, 0, 0), (n, 1, h, w), (1, 1, 1, 1)).output) for i in range(2))
    codes = [shuffled(q(v)) for v in (one, two)]
    rows = concat(*(reshape(permute(relu(v), 0, 2, 3, 1), n, h * w, 1) for v in (one, two)), axis=2)
    joined = concat(shuffled(one), relu(one), shuffled(two), shuffled(relu(one)))
    stacked = relu(concat(shuffled(two), shuffled(relu(two)), axis=2))
    return [shuffled(one), shuffled(two), codes[0], q(relu(dq(concat(*codes)))), joined, stacked, rows]


Body = Callable[..., "SSAValue | list[SSAValue]"]
IMAGE = (1, 3, 9, 8)
IMAGES = (3, 3, 9, 8)

ONE_INPUT: tuple[Body, ...] = (
    nested_concat, shared_operands, doubled, returned_nested, concat_of_input, concat_rows, concat_columns,
    concat_batch, view_of_concat, returned_views, padded_into_concat, pads, same_input, inputs_and_copies,
    same_value_twice, views_of_input, intermediates, input_and_residual, gate, uneven_pool, grouped,
    depthwise_multiplier, matrix_of_itself, unused, planes,
)  # fmt: skip

CASES: dict[str, tuple[list[tuple[int, ...]], Body]] = {
    **{body.__name__: ([IMAGE], body) for body in (*ONE_INPUT, concat_of_constant, deep)},
    **{f"{body.__name__}_batch": ([IMAGES], body) for body in ONE_INPUT},
    "rows_wider_than_sram": ([(1, 16, 2, 6000)], lambda x: q(conv(q(x), 16))),
    "rows_of_three_taps": ([(1, 4, 3, 5000)], lambda x: q(conv(q(conv(q(x), 16)), 8, 3))),
    "one_pixel": ([(1, 1500, 1, 1)], lambda x: q(conv(q(x), 700))),
    "broadcast_channels": ([(2, 3, 4, 5), (3, 1, 1)], broadcast),
    "broadcast_batch": ([(2, 3, 4, 5), (1, 1, 4, 5)], broadcast),
    "broadcast_both": ([(2, 3, 1, 5), (1, 3, 4, 1)], broadcast),
    "broadcast_rows": ([(7, 5), (7, 1)], broadcast),
    "broadcast_one": ([(1,), (1,)], broadcast),
    "broadcast_slices": ([(2, 6, 5, 4), (6, 5, 4)], broadcast_slices),
    "broadcast_slices_flat": ([(2, 1, 5, 4), (1, 5, 4)], broadcast_slices),
}
"""Name -> (shapes of the float inputs, body)."""
