"""Graphs whose values move between kernels: heads of attention, tokens and images, shuffled pixels, repeated rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from tests.compiler.alias_graphs import UNIT, concat, permute, reshape
from tests.compiler.kern_graphs import add, const, conv, dq, linear, q, relu

CODES_OF_SCORES = UNIT


def cut(x: SSAValue, axis: int, start: int, size: int, step: int = 1) -> SSAValue:
    """``size`` indices of one dimension."""
    rank = len(shape_of(x))
    starts, sizes, steps = [0] * rank, list(shape_of(x)), [1] * rank
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return qnn.SliceOp(x, starts, sizes, steps).output


def expand(x: SSAValue, *shape: int) -> SSAValue:
    return qnn.ExpandOp(x, shape).output


def matmul(a: SSAValue, b: SSAValue) -> SSAValue:
    return qnn.MatmulOp(a, b).output


def scores(x: SSAValue) -> SSAValue:
    return q(qnn.SigmoidOp(x).output, UNIT)


def fused_heads(x: SSAValue) -> SSAValue:
    """[B, T, C] -> one linear for queries, keys and values of two heads -> products -> tokens -> linear."""
    b, t, c = shape_of(x)
    qkv = q(linear(q(x), 3 * c))
    heads = permute(reshape(qkv, b, t, 3, 2, c // 2), 2, 0, 3, 1, 4)
    query, key, value = (reshape(cut(heads, 0, i, 1), b * 2, t, c // 2) for i in range(3))
    mixed = q(matmul(scores(matmul(query, permute(key, 0, 2, 1))), value))
    tokens = reshape(permute(reshape(mixed, b, 2, t, c // 2), 0, 2, 1, 3), b, t, c)
    return add(linear(tokens, c), x)


def separate_heads(x: SSAValue) -> SSAValue:
    """Three linears; keys are transposed by the kernel that makes them."""
    b, t, c = shape_of(x)
    codes = q(x)
    query = reshape(permute(reshape(q(linear(codes, c)), b, t, 2, c // 2), 0, 2, 1, 3), b * 2, t, c // 2)
    key = reshape(permute(reshape(q(linear(codes, c)), b, t, 2, c // 2), 0, 2, 3, 1), b * 2, c // 2, t)
    value = reshape(permute(reshape(q(linear(codes, c)), b, t, 2, c // 2), 0, 2, 1, 3), b * 2, t, c // 2)
    mixed = q(matmul(scores(matmul(query, key)), value))
    return linear(reshape(permute(reshape(mixed, b, 2, t, c // 2), 0, 2, 1, 3), b, t, c), c)


def tokens_to_image(x: SSAValue) -> SSAValue:
    """[1, T, C] without the first token -> [1, C, h, w] -> convolution."""
    _, t, c = shape_of(x)
    y = q(linear(q(x), c))
    image = reshape(permute(cut(y, 1, 1, t - 1), 0, 2, 1), 1, c, 3, (t - 1) // 3)
    return q(conv(image, 4, 3))


def class_token(x: SSAValue) -> SSAValue:
    """Patches of an image as tokens behind a class token, two residual adds, and the class token again."""
    patches = q(conv(q(x), 8, 2, strides=(2, 2), pad=0))
    n, c, h, w = shape_of(patches)
    tokens = permute(reshape(patches, n, c, h * w), 0, 2, 1)
    joined = concat(expand(q(const(1, 1, c)), n, 1, c), tokens)
    y = q(add(linear(joined, c), dq(joined)))
    y = q(add(linear(y, c), dq(y)))
    return linear(reshape(cut(y, 1, 0, 1), n, c), 5)


def sub_pixels(x: SSAValue) -> SSAValue:
    """Pixel shuffle by 2 with channels (C, i, j) as PyTorch has it, then a convolution."""
    n, _, h, w = shape_of(x)
    y = reshape(q(conv(q(x), 12)), n, 3, 2, 2, h, w)
    return q(conv(reshape(permute(y, 0, 1, 4, 2, 5, 3), n, 3, 2 * h, 2 * w), 4, 3))


def sub_pixels_last(x: SSAValue) -> SSAValue:
    """Pixel shuffle by 2 with channels (i, j, C)."""
    n, _, h, w = shape_of(x)
    y = reshape(q(conv(q(x), 12)), n, 2, 2, 3, h, w)
    return q(conv(reshape(permute(y, 0, 3, 4, 1, 5, 2), n, 3, 2 * h, 2 * w), 4, 3))


def sub_rows(x: SSAValue) -> SSAValue:
    """Pixel shuffle by 2 from one convolution per row, which write the rows of one image."""
    n, _, h, w = shape_of(x)
    codes = q(x)
    rows = [reshape(permute(q(conv(codes, 6)), 0, 2, 3, 1), n * h, 1, w * 6) for _ in range(2)]
    image = reshape(concat(*rows, axis=1), n, 2 * h, 2 * w, 3)
    return q(conv(permute(image, 0, 3, 1, 2), 4, 3))


def split_channels(x: SSAValue) -> SSAValue:
    """Two halves of the channels go different ways and meet."""
    y = q(conv(q(x), 8))
    a, b = cut(y, 1, 0, 4), cut(y, 1, 4, 4)
    return q(conv(concat(a, q(conv(b, 4, 3))), 5))


def shuffle_channels(x: SSAValue) -> SSAValue:
    """ShuffleNet's exchange of channels between two groups."""
    y = q(conv(q(x), 8))
    n, c, h, w = shape_of(y)
    return q(conv(reshape(permute(reshape(y, n, 2, c // 2, h, w), 0, 2, 1, 3, 4), n, c, h, w), 6, 3, groups=2))


def strided_pixels(x: SSAValue) -> list[SSAValue]:
    """Every second row and column, read by a convolution, by an add, and returned."""
    y = q(conv(q(x), 4))
    _, _, h, w = shape_of(y)
    even = cut(cut(y, 2, 0, h // 2, 2), 3, 0, w // 2, 2)
    odd = cut(cut(y, 2, 1, h // 2, 2), 3, 1, w // 2, 2)
    return [q(conv(even, 4, 3)), q(add(dq(even), dq(odd))), odd]


def repeated(x: SSAValue) -> list[SSAValue]:
    """A row that is repeated: as a factor of products, in an add, as an output."""
    y = q(linear(q(x), 8))
    b, _, c = shape_of(y)
    row = expand(cut(y, 1, 1, 1), b, 4, c)
    return [linear(row, 3), q(add(dq(row), dq(cut(y, 1, 0, 4)))), row, matmul(y, expand(cut(y, 1, 0, 1), b, c, c))]


def returned_moves(x: SSAValue) -> list[SSAValue]:
    """Outputs that are moved: written in place, or copied."""
    a, b, c = (q(conv(q(x), 4)) for _ in range(3))
    n, k, h, w = shape_of(a)
    tokens = reshape(permute(b, 0, 2, 3, 1), n, h * w, k)
    return [permute(a, 2, 3, 0, 1), tokens, cut(c, 1, 1, 2), reshape(c, n, k * h, w)]


def moved_twice(x: SSAValue) -> list[SSAValue]:
    """A chain that is no single walk, and views of what it gives."""
    y = q(linear(q(x), 6))
    b, t, c = shape_of(y)
    narrow = reshape(cut(y, 2, 1, 4), b, t * 4)
    return [linear(narrow, 3), linear(cut(narrow, 1, 2, 8), 3), linear(reshape(permute(y, 0, 2, 1), b, t, c), 2)]


def channels_last(x: SSAValue) -> SSAValue:
    """A ConvNeXt block: channels last for two linears and a gamma, then the residual add of images."""
    y = q(conv(q(x), 6))
    c = shape_of(y)[1]
    inner = q(relu(linear(permute(q(conv(y, c, 3, groups=c)), 0, 2, 3, 1), 8)))
    scaled = qnn.MulOp(linear(inner, c), const(c)).output
    return q(add(dq(y), permute(scaled, 0, 3, 1, 2)))


def channels_last_residual(x: SSAValue) -> list[SSAValue]:
    """Residual adds of [B, H, W, C] tensors, as in Swin."""
    y = permute(q(conv(q(x), 6)), 0, 2, 3, 1)
    c = shape_of(y)[-1]
    y = q(add(dq(y), linear(y, c)))
    y = q(add(dq(y), linear(q(relu(linear(y, 8))), c)))
    n, h, w, _ = shape_of(y)
    return [dq(permute(y, 0, 3, 1, 2)), linear(reshape(y, n, h * w, c), 3)]


def convex_upsampling(x: SSAValue) -> SSAValue:
    """Sums of nine taps of two maps, weighted for each of 2 x 2 new pixels: products of rank 7, and a constant."""
    n, _, h, w = shape_of(x)
    weights = reshape(q(conv(q(x), 36, 3)), n, 1, 9, 2, 2, h, w)
    padded = qnn.PadOp(q(conv(q(x), 2, 3)), (0, 0, 0, 0, 1, 1, 1, 1), 0.0).output
    shifted = [cut(cut(padded, 2, i // 3, h), 3, i % 3, w) for i in range(9)]
    taps = reshape(concat(*(reshape(tap, n, 2, 1, h * w) for tap in shifted), axis=2), n, 2, 9, 1, 1, h, w)
    product = q(add(qnn.MulOp(dq(weights), dq(taps)).output, const(9, 1, 2, 1, 1)))
    found = reshape(qnn.ReduceOp(permute(product, 0, 1, 3, 4, 5, 6, 2), "sum", 6).output, n, 2, 2, 2, h, w)
    return reshape(permute(found, 0, 1, 4, 2, 5, 3), n, 2, 2 * h, 2 * w)


def taps_innermost(x: SSAValue) -> SSAValue:
    """The same with taps innermost and nothing quantized between the product and its sum: one kernel."""
    n, _, h, w = shape_of(x)
    weights = reshape(permute(q(conv(q(x), 36, 3)), 0, 2, 3, 1), n, 1, h * w, 4, 9)
    taps = reshape(permute(q(conv(q(x), 18, 3)), 0, 2, 3, 1), n, 1, h * w, 2, 9)
    product = qnn.MulOp(dq(weights), dq(reshape(permute(taps, 0, 3, 2, 1, 4), n, 2, h * w, 1, 9))).output
    rows = reshape(product, n * 2 * h * w * 4, 9)
    found = reshape(qnn.ReduceOp(rows, "sum", 1, True).output, n, 2, h, w, 2, 2)
    return reshape(permute(found, 0, 1, 2, 4, 3, 5), n, 2, 2 * h, 2 * w)


VIEWS: dict[str, tuple[Sequence[tuple[int, ...]], Callable[..., SSAValue | Sequence[SSAValue]]]] = {
    "fused_heads": ([(1, 5, 8)], fused_heads),
    "fused_heads_batch": ([(2, 5, 8)], fused_heads),
    "separate_heads": ([(1, 5, 8)], separate_heads),
    "tokens_to_image": ([(1, 13, 8)], tokens_to_image),
    "class_token": ([(1, 3, 6, 8)], class_token),
    "class_token_batch": ([(2, 3, 6, 8)], class_token),
    "sub_pixels": ([(1, 3, 4, 5)], sub_pixels),
    "sub_pixels_last": ([(1, 3, 4, 5)], sub_pixels_last),
    "sub_rows": ([(2, 3, 4, 5)], sub_rows),
    "split_channels": ([(1, 3, 6, 5)], split_channels),
    "shuffle_channels": ([(1, 3, 6, 5)], shuffle_channels),
    "strided_pixels": ([(1, 3, 6, 8)], strided_pixels),
    "repeated": ([(1, 5, 8)], repeated),
    "returned_moves": ([(1, 3, 6, 5)], returned_moves),
    "channels_last": ([(1, 3, 6, 5)], channels_last),
    "channels_last_residual": ([(2, 3, 6, 5)], channels_last_residual),
    "convex_upsampling": ([(1, 3, 4, 5)], convex_upsampling),
    "convex_upsampling_batch": ([(2, 3, 4, 5)], convex_upsampling),
    "taps_innermost": ([(1, 3, 4, 5)], taps_innermost),
    "taps_innermost_batch": ([(2, 3, 4, 5)], taps_innermost),
    "moved_twice": ([(1, 5, 8)], moved_twice),
}
