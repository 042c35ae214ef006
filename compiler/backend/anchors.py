"""Anchors of kernels: what the matrix unit, a window reduction or a copy does, and how its result enters a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import BlockArgument, Operation, SSAValue

from compiler.backend.registers import ProgramError
from compiler.backend.vectorize import Leaves, Seed
from compiler.backend.widths import Product, dtype_of, product_of
from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntsAttr
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.interpreter.windows import Windows, adaptive_ranges, tap_counts
from compiler.ir.kernel import (
    Anchor,
    MatrixAnchor,
    PoolAnchor,
    ResizeAnchor,
    Shape4,
    Stream,
    Window,
)
from compiler.ir.layout import nhwc, storage_order
from isa import numerics
from isa.errors import UnsupportedError
from isa.instructions import DType, Mode, Reduce, Resize

Array = NDArray[Any]


def accumulators(product: Product) -> Stream:
    """The accumulators of a product as a stream."""
    return Stream(None, product.mode.accumulator)


@dataclass(eq=False)
class Stage:
    """An anchor and how its result enters the vector program."""

    anchor: Anchor = None
    seed: Seed | None = None
    macs: int = 0
    output: Shape4 | None = None


@dataclass(eq=False)
class Operands:
    """Operands numbered as in the op, then those that the lowering adds; shapes as (n, h, w, c)."""

    values: list[SSAValue | None]
    shapes: list[Shape4]
    dtypes: list[DType]
    constants: dict[int, Array] = field(default_factory=dict[int, Array])

    def add(self, array: Array) -> int:
        """A constant of the lowering, given as (n, h, w, c)."""
        self.values.append(None)
        n, h, w, c = array.shape
        self.shapes.append((n, h, w, c))
        self.dtypes.append({"float32": DType.F32, "int16": DType.I16}.get(array.dtype.name, DType.I8))
        self.constants[len(self.values) - 1] = array
        return len(self.values) - 1

    def set(self, index: int, shape: Shape4, array: Array | None = None) -> None:
        """Give operand ``index`` the shape, and for a constant the array, that its reader wants."""
        self.shapes[index] = shape
        if array is not None:
            self.constants[index] = array


def constant_of(value: SSAValue) -> Array | None:
    """The array of a value known at compile time; a kernel's block argument stands for its operand."""
    if isinstance(value, BlockArgument):
        parent = value.block.parent_op()
        if not isinstance(parent, kern.BodyOp):
            return None
        value = parent.inputs[value.index]
    return qnn.constant_array(value.owner) if isinstance(value.owner, qnn.ConstantOp) else None


def stored(array: Array) -> Array:
    """A constant in the storage layout, as (n, h, w, c)."""
    order = storage_order(array.ndim)
    return np.ascontiguousarray(array.transpose(order)).reshape(nhwc(array.shape))


def anchor_stage(op: Operation, operands: Operands, leaves: Leaves) -> Stage:
    """The stage of a matrix or pool op; shapes and arrays of its operands are set as the anchor reads them."""
    match op:
        case qnn.Conv2dOp():
            return _conv2d(op, operands, leaves)
        case qnn.LinearOp():
            return _linear(op, operands, leaves)
        case qnn.MatmulOp():
            return _matmul(op, operands, leaves)
        case qnn.MaxPool2dOp():
            return _max_pool(op, leaves)
        case qnn.AvgPool2dOp():
            return _avg_pool(op, operands, leaves)
        case qnn.AdaptiveAvgPool2dOp():
            return _adaptive(op, operands, leaves)
        case qnn.Resize2dOp():
            return _resize(op, leaves)
        case _:
            raise UnsupportedError(f"{op.name} is no anchor of a kernel")


def trailing_stage(op: Operation, operands: Operands, leaves: Leaves) -> Stage:
    """The stage of a pool or product of the codes that the kernel itself has made (act -1)."""
    if not isinstance(op, qnn.MatmulOp):
        return anchor_stage(op, operands, leaves)
    inner = Leaves({**leaves.operands, op.a: -1}, leaves.constant)
    return _matmul(op, operands, inner)


def _required(value: SSAValue, leaves: Leaves, what: str) -> Array:
    array = leaves.constant(value)
    if array is None:
        raise UnsupportedError(f"{what} must be known at compile time; make it a constant of the graph")
    return array


def _scaled(op: qnn.Conv2dOp | qnn.LinearOp, leaves: Leaves) -> Seed:
    product = product_with(op.w, op.x, op.name, constant=True)
    exact = product.mode is not Mode.F32
    scale = _required(op.scale, leaves, f"scale of {op.name}") if exact else None
    bias = None if op.bias is None else _required(op.bias, leaves, f"bias of {op.name}")
    return Seed(op.output, accumulators(product), scale, bias)


def product_with(weight: SSAValue, act: SSAValue, name: str, constant: bool = False) -> Product:
    """How ``weight`` multiplies ``act``; UnsupportedError where the matrix unit has no mode for the pair."""
    if is_int(weight) and int_type(weight).codebook.data:
        raise UnsupportedError(f"{name}: the second factor has a codebook; quantize it with uniform steps")
    codebook = tuple(v.data for v in int_type(act).codebook.data) if is_int(act) else ()
    return product_of(dtype_of(weight), dtype_of(act), codebook, constant, name)


def _zero(value: SSAValue) -> int:
    return int_type(value).zero.data if is_int(value) else 0


def _weight_zeros(op: qnn.Conv2dOp | qnn.LinearOp) -> tuple[int, tuple[int, ...]]:
    """The zero point of all weights, or 0 and one for each output channel."""
    given = op.properties.get("weight_zeros")
    zeros = given.data if isinstance(given, IntsAttr) else (0,)
    return (zeros[0], ()) if len(set(zeros)) == 1 else (0, zeros)


def anchor_seed(op: Operation, leaves: Leaves) -> Seed | None:
    """How an anchor's result enters a program, as far as the program's size goes; None for a movement."""
    result = op.results[0]
    match op:
        case qnn.Conv2dOp() | qnn.LinearOp():
            return _scaled(op, leaves)
        case qnn.MatmulOp():
            product = product_with(op.b, op.a, op.name)
            exact = product.mode is not Mode.F32
            return Seed(result, accumulators(product), np.ones(1, np.float32) if exact else None)
        case qnn.MaxPool2dOp():
            return Seed(result, Stream(None, DType.I8))
        case qnn.AvgPool2dOp() | qnn.AdaptiveAvgPool2dOp():
            return Seed(result, Stream(None, DType.I32), np.ones(1, np.float32), factor=Stream(-1, DType.F32))
        case qnn.Resize2dOp():
            return Seed(result, Stream(None, DType.F32))
        case _:
            return None


def folded_shape(op: Operation | None) -> Shape4 | None:
    """The (n, h, w, c) of an anchor's result where it is not that of the layout."""
    if not isinstance(op, qnn.AdaptiveAvgPool2dOp):
        return None
    n, h, w, c = nhwc(shape_of(op.output))
    return (n, 1, h * w, c)


def _conv2d(op: qnn.Conv2dOp, operands: Operands, leaves: Leaves) -> Stage:
    weight = _required(op.w, leaves, "weight of qnn.conv2d")
    o, c, kh, kw = weight.shape
    groups = op.groups.value.data
    depthwise = groups > 1 and groups == o and c == 1
    window = _window(op, (kh, kw), op.strides.data, op.dilation.data, op.padding.data)
    product = product_with(op.w, op.x, op.name, constant=True)
    lhs, rhs = leaves.operands[op.x], leaves.operands[op.w]
    zero, zeros = _weight_zeros(op)
    if depthwise:
        operands.set(rhs, (1, kh, kw, o), np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0)))
    else:
        weight, groups = _whole_bytes(weight, groups, zeros or (zero,) * o, operands.dtypes[lhs])
        operands.set(rhs, (o, kh, kw, weight.shape[1]), np.ascontiguousarray(weight.transpose(0, 2, 3, 1)))
    operands.dtypes[rhs] = product.weight
    anchor = MatrixAnchor(
        lhs, rhs, window, groups, _zero(op.x), zero, depthwise, False, False, product.mode, zeros, product.codebook
    )
    return Stage(anchor, _scaled(op, leaves), prod(shape_of(op.output)) * c * kh * kw)


def _whole_bytes(weight: Array, groups: int, zeros: Sequence[int], act: DType) -> tuple[Array, int]:
    """Groups joined until each starts at a byte of 4-bit activations; weights between them are at their zero point."""
    o, c = weight.shape[:2]
    if act is not DType.I4 or groups == 1 or c % 2 == 0:
        return weight, groups
    joined = 2 if groups % 2 == 0 else groups
    fill = np.asarray(zeros, weight.dtype).reshape(o, 1, 1, 1)
    whole = np.empty((o, c * joined, *weight.shape[2:]), weight.dtype)
    whole[...] = fill
    for row in range(o):
        first = row // (o // groups) % joined * c
        whole[row, first : first + c] = weight[row]
    return whole, groups // joined


def _linear(op: qnn.LinearOp, operands: Operands, leaves: Leaves) -> Stage:
    weight = _required(op.w, leaves, "weight of qnn.linear")
    o, k = weight.shape
    product = product_with(op.w, op.x, op.name, constant=True)
    lhs, rhs = leaves.operands[op.x], leaves.operands[op.w]
    if len(shape_of(op.x)) == 4:
        raise UnsupportedError("qnn.linear of rank 4 does not lie with its features innermost; reshape it first")
    operands.set(rhs, (o, 1, 1, k), weight.reshape(o, 1, 1, k))
    operands.dtypes[rhs] = product.weight
    zero, zeros = _weight_zeros(op)
    anchor = MatrixAnchor(
        lhs, rhs, Window(), 1, _zero(op.x), zero, mode=product.mode, weight_zeros=zeros, codebook=product.codebook
    )
    return Stage(anchor, _scaled(op, leaves), prod(shape_of(op.output)) * k)


def _matmul(op: qnn.MatmulOp, operands: Operands, leaves: Leaves) -> Stage:
    lhs, rhs = leaves.operands[op.a], leaves.operands[op.b]
    transposed = "transpose_b" in op.properties
    product = product_with(op.b, op.a, op.name)
    rows, columns = matrix_shape(shape_of(op.a)), matrix_shape(shape_of(op.b))
    if rows[0] != columns[0]:
        raise UnsupportedError(f"qnn.matmul of {rows[0]} by {columns[0]} matrices; repeat the smaller batch")
    for value, index, shape in ((op.a, lhs, rows), (op.b, rhs, columns)):
        if index < 0:
            continue
        array = leaves.constant(value)
        operands.set(index, shape, None if array is None else array.reshape(shape))
    anchor = MatrixAnchor(
        lhs, rhs, Window(), 1, _zero(op.a), _zero(op.b), False, True, transposed, product.mode, (), product.codebook
    )
    scale = None
    if product.mode is not Mode.F32:
        a, b = int_type(op.a), int_type(op.b)
        scale = np.array([numerics.product_scale(a.scale.data, b.scale.data)], np.float32)
    seed = Seed(op.output, accumulators(product), scale)
    return Stage(anchor, seed, prod(shape_of(op.output)) * rows[3])


def matrix_shape(shape: tuple[int, ...]) -> Shape4:
    """A batch of matrices of rank 2 or 3 as (batch, 1, rows, columns)."""
    if len(shape) > 3:
        raise UnsupportedError(f"a matrix product of rank {len(shape)} must be reshaped to rank 3 first")
    batch, rows, columns = (1,) * (3 - len(shape)) + shape
    return (batch, 1, rows, columns)


def _max_pool(op: qnn.MaxPool2dOp, leaves: Leaves) -> Stage:
    kind = dtype_of(op.input)
    if kind not in (DType.I8, DType.I16):
        raise UnsupportedError(
            f"{op.name} takes 8- or 16-bit codes, not {op.input.type}; quantize to 8 bits in front of the pool"
        )
    zero = int_type(op.input).zero.data
    window = _window(op, op.kernel.data, op.strides.data, op.dilation.data, op.padding.data)
    anchor = PoolAnchor(leaves.operands.get(op.input, -1), window, Reduce.MAX, zero, 0.0)
    return Stage(anchor, Seed(op.output, Stream(None, kind, zero)))


def _avg_pool(op: qnn.AvgPool2dOp, operands: Operands, leaves: Leaves) -> Stage:
    codes = int_type(op.input)
    if dtype_of(op.input) is not DType.I8:
        return _summed(op, operands, leaves)
    window = _window(op, op.kernel.data, op.strides.data, (1, 1), op.padding.data)
    scale = numerics.fp32(codes.scale.data)
    anchor = PoolAnchor(leaves.operands.get(op.input, -1), window, Reduce.SUM, codes.zero.data, scale)
    stream = Stream(None, DType.I8, codes.zero.data, scale)
    inverse = _inverse(_tap_counts(op))
    if (inverse == inverse.flat[0]).all():
        return Stage(anchor, Seed(op.output, stream, inverse.reshape(-1)[:1]))
    factor = Stream(operands.add(stored(inverse)), DType.F32)
    return Stage(anchor, Seed(op.output, stream, factor=factor))


def _tap_counts(op: qnn.AvgPool2dOp) -> Array:
    """What each window divides by, [1, 1, h, w]."""
    if op.divisor is not None:
        return np.full((1, 1, 1, 1), op.divisor.value.data)
    windows = Windows(op.kernel.data, op.strides.data, op.padding.data)
    if op.count_include_pad.value.data:
        return np.full((1, 1, 1, 1), windows.kernel[0] * windows.kernel[1])
    return tap_counts(shape_of(op.input)[2:], windows)


def _summed(op: qnn.AvgPool2dOp, operands: Operands, leaves: Leaves) -> Stage:
    """Window sums of codes that the vector unit cannot reduce, as a depthwise product with ones: the same integers."""
    if op.input not in leaves.operands:
        raise ProgramError(f"{op.name} of {op.input.type} reads its codes from memory")
    codes, shape = int_type(op.input), shape_of(op.output)
    window = _window(op, op.kernel.data, op.strides.data, (1, 1), op.padding.data)
    ones = operands.add(np.ones((1, *window.kernel, shape[1]), np.int8))
    operands.constants[ones] = operands.constants[ones][0]
    operands.dtypes[ones] = DType.I8 if codes.width.data == 16 else DType.I4
    product = product_of(operands.dtypes[ones], dtype_of(op.input), (), True, op.name)
    act = leaves.operands[op.input]
    anchor = MatrixAnchor(
        act, ones, window, shape[1], codes.zero.data, depthwise=True, mode=product.mode, codebook=product.codebook
    )
    inverse = np.broadcast_to(_inverse(_tap_counts(op)), (1, 1, *shape[2:]))
    factor = Stream(operands.add(stored(np.ascontiguousarray(inverse))), DType.F32)
    seed = Seed(op.output, accumulators(product), np.array([codes.scale.data], np.float32), factor=factor)
    return Stage(anchor, seed, prod(shape) * window.taps)


def _resize(op: qnn.Resize2dOp, leaves: Leaves) -> Stage:
    """Interpolation of codes gives fp32(q - zero) * scale; the nearest code stays q - zero, and a code."""
    num, den, phase = ((a, b) for a, b in (op.num.data, op.den.data, op.phase.data))
    kind = Resize.BILINEAR if op.kind.data == "bilinear" else Resize.NEAREST
    scale = numerics.fp32(int_type(op.input).scale.data) if is_int(op.input) and kind is Resize.BILINEAR else 0.0
    if op.input not in leaves.operands:
        raise ProgramError(f"{op.name} reads its input from memory")
    anchor = ResizeAnchor(leaves.operands[op.input], kind, num, den, phase, _zero(op.input), scale)
    return Stage(anchor, Seed(op.output, Stream(None, DType.F32)))


def _inverse(count: Array) -> NDArray[np.float32]:
    return (1.0 / count.astype(np.float64)).astype(np.float32)


def _adaptive(op: qnn.AdaptiveAvgPool2dOp, operands: Operands, leaves: Leaves) -> Stage:
    """Row m of the constant matrix holds ones where window m lies; x [H*W, C] is the other factor."""
    codes = int_type(op.input)
    n, c, height, width = shape_of(op.input)
    oh, ow = op.output_size.data
    rows = _membership(height, oh)[:, None, :, None] * _membership(width, ow)[None, :, None, :]
    rows = rows.reshape(oh * ow, height * width)
    if codes.width.data == 16:
        rows = rows.astype(np.int16)
    product = product_of(dtype_of(op.input), DType.I16 if codes.width.data == 16 else DType.I8, (), False, op.name)
    matrix = operands.add(np.ascontiguousarray(np.broadcast_to(rows, (n, 1, *rows.shape))))
    act = leaves.operands[op.input]
    operands.set(act, (n, 1, height * width, c))
    counts = rows.sum(1, dtype=np.int32)
    factor = Stream(operands.add(_inverse(counts).reshape(1, 1, -1, 1)), DType.F32)
    anchor = MatrixAnchor(matrix, act, Window(), 1, 0, codes.zero.data, dynamic_weight=True, mode=product.mode)
    scale = np.array([codes.scale.data], np.float32)
    seed = Seed(op.output, accumulators(product), scale, factor=factor)
    return Stage(anchor, seed, n * c * int(counts.sum()), folded_shape(op))


def _membership(size: int, count: int) -> NDArray[np.int8]:
    result = np.zeros((count, size), np.int8)
    for i, (start, stop) in enumerate(adaptive_ranges(size, count)):
        result[i, start:stop] = 1
    return result


def _window(
    op: Operation, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> Window:
    """The taps of a window op.

    A stride to no second output and a dilation to no second tap are 1: those of a global pool could exceed the fields.
    """
    outputs = shape_of(op.results[0])[2:]
    step = [s if size > 1 else 1 for s, size in zip(strides, outputs, strict=True)]
    spread = [d if taps > 1 else 1 for d, taps in zip(dilation, kernel, strict=True)]
    return Window((kernel[0], kernel[1]), (step[0], step[1]), (spread[0], spread[1]), (padding[0], padding[1]))
