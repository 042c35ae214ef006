"""Reference semantics of the ``qnn`` dialect on numpy arrays: float32 tensors and codes of every width, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.interpreter.func import FuncFunctions
from compiler.interpreter.windows import (
    Windows,
    adaptive_ranges,
    conv2d_exact,
    conv2d_f32,
    conv2d_i32,
    reduce_taps,
    tap_counts,
)
from isa import numerics
from isa.errors import InputError

Array = NDArray[Any]


def _zeros(op: qnn.Conv2dOp | qnn.LinearOp) -> Array:
    return np.array(op.weight_zeros.data if op.weight_zeros is not None else (0,), np.int64)


def _plain(x: Array, w: Array, zeros: Array) -> bool:
    """Whether the fast product of int8 codes applies."""
    return x.dtype == w.dtype == np.int8 and not zeros.any()


def _conv2d(op: qnn.Conv2dOp, x: Array, w: Array, scale: Array, *bias: Array) -> Array:
    windows, groups = Windows(w.shape[2:], op.strides.data, op.padding.data, op.dilation.data), op.groups.value.data
    if x.dtype == np.float32:
        acc = conv2d_f32(x, w, windows, groups)
        return np.ascontiguousarray(_biased(acc, *bias).transpose(0, 3, 1, 2))
    x, zero, zeros = _decoded(op.x, x), int_type(op.x).zero.data, _zeros(op)
    if _plain(x, w, zeros):
        acc = conv2d_i32(x, zero, w, windows, groups)
    else:
        acc = conv2d_exact(x, zero, w, zeros, windows, groups)
    return np.ascontiguousarray(numerics.accumulate_to_float(acc, scale, *bias).transpose(0, 3, 1, 2))


def _biased(y: Array, *bias: Array) -> Array:
    with np.errstate(all="ignore"):
        return y + bias[0] if bias else y


def _decoded(value: SSAValue, x: Array) -> Array:
    """What a product takes: the entries behind codes of a codebook."""
    book = [v.data for v in int_type(value).codebook.data]
    return numerics.decode(x, book) if book else x


def _linear(op: qnn.LinearOp, x: Array, w: Array, scale: Array, *bias: Array) -> Array:
    rows, shape = x.reshape(-1, x.shape[-1]), (*x.shape[:-1], -1)
    if x.dtype == np.float32:
        return _biased(numerics.matmul_f32(rows, w), *bias).reshape(shape)
    rows, zero, zeros = _decoded(op.x, rows), int_type(op.x).zero.data, _zeros(op)
    if _plain(rows, w, zeros):
        acc = numerics.matmul_zero(rows, zero, w)
    else:
        acc = (rows.astype(np.float64) - zero) @ (w.astype(np.float64) - zeros.reshape(-1, 1)).T
    return numerics.accumulate_to_float(acc, scale, *bias).reshape(shape)


def _matmul(op: qnn.MatmulOp, a: Array, b: Array) -> Array:
    b = b if op.transpose_b is not None else b.swapaxes(-1, -2)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
    columns = np.broadcast_to(b, (*batch, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
    shape = (*batch, a.shape[-2], b.shape[-2])
    if a.dtype == np.float32:
        return np.stack([numerics.matmul_f32(m, n) for m, n in zip(rows, columns, strict=True)]).reshape(shape)
    left, right = int_type(op.a), int_type(op.b)
    rows = _decoded(op.a, rows).astype(np.float64) - left.zero.data
    acc = rows @ (columns.astype(np.float64) - right.zero.data).swapaxes(-1, -2)
    scale = numerics.product_scale(left.scale.data, right.scale.data)
    return numerics.accumulate_to_float(acc, scale).reshape(shape)


def _max_pool(op: qnn.MaxPool2dOp, x: Array) -> Array:
    windows = Windows(op.kernel.data, op.strides.data, op.padding.data, op.dilation.data)
    return reduce_taps(x, windows, int(np.iinfo(x.dtype).min), np.maximum)


def _avg_pool(op: qnn.AvgPool2dOp, x: Array) -> Array:
    codes = int_type(op.input)
    windows = Windows(op.kernel.data, op.strides.data, op.padding.data)
    total = reduce_taps(x.astype(np.int32) - codes.zero.data, windows, 0, np.add)
    if op.divisor is not None:
        return numerics.sum_to_mean(total, codes.scale.data, op.divisor.value.data)
    if op.count_include_pad.value.data:
        return numerics.sum_to_mean(total, codes.scale.data, windows.kernel[0] * windows.kernel[1])
    return _means(total, codes.scale.data, tap_counts(x.shape[2:], windows))


def _means(total: Array, scale: float, counts: Array) -> Array:
    """``sum_to_mean`` with a count per window, [1, 1, h, w]."""
    inverse = (1.0 / counts.astype(np.float64)).astype(np.float32)
    return numerics.dequantize(total, scale, 0) * inverse


def _adaptive_avg_pool(op: qnn.AdaptiveAvgPool2dOp, x: Array) -> Array:
    codes = int_type(op.input)
    centred = x.astype(np.int32) - codes.zero.data
    height, width = op.output_size.data
    total = np.zeros((*x.shape[:2], height, width), np.int32)
    counts = np.zeros((1, 1, height, width), np.int32)
    for i, (top, bottom) in enumerate(adaptive_ranges(x.shape[2], height)):
        for j, (left, right) in enumerate(adaptive_ranges(x.shape[3], width)):
            total[:, :, i, j] = centred[:, :, top:bottom, left:right].sum((2, 3))
            counts[0, 0, i, j] = (bottom - top) * (right - left)
    return _means(total, codes.scale.data, counts)


def _pad(op: qnn.PadOp, x: Array) -> Array:
    value = op.code if is_int(op.input) else op.value.data
    low_high = np.array(op.padding.data).reshape(-1, 2)
    return np.pad(x, low_high, constant_values=np.asarray(value, x.dtype))


def _quantize(op: qnn.QuantizeOp, x: Array) -> Array:
    codes = int_type(op.output)
    if op.thresholds is not None:
        return numerics.encode(x, [t.data for t in op.thresholds.data])
    inverse = numerics.inverse_scale(codes.scale.data)
    return numerics.quantize(x, inverse, codes.zero.data, op.lo, op.hi, numerics.code_type(codes.width.data))


def _dequantize(op: qnn.DequantizeOp, x: Array) -> Array:
    codes = int_type(op.input)
    return numerics.dequantize(_decoded(op.input, x), codes.scale.data, codes.zero.data)


def _clamp(op: qnn.ClampOp, x: Array) -> Array:
    return numerics.clamp(x, op.min.data, op.max.data)


def _concat(op: qnn.ConcatOp, *xs: Array) -> Array:
    return np.concatenate(xs, op.axis.value.data)


def _reshape(op: qnn.ReshapeOp, x: Array) -> Array:
    return x.reshape(shape_of(op.output))


def _permute(op: qnn.PermuteOp, x: Array) -> Array:
    return x.transpose(op.order.data)


def _slice(op: qnn.SliceOp, x: Array) -> Array:
    bounds = zip(op.starts.data, op.sizes.data, op.steps.data, strict=True)
    return np.ascontiguousarray(x[tuple(slice(a, a + (n - 1) * step + 1, step) for a, n, step in bounds)])


def _expand(op: qnn.ExpandOp, x: Array) -> Array:
    return np.array(np.broadcast_to(x, shape_of(op.output)))


def _softmax(op: qnn.SoftmaxOp, x: Array) -> Array:
    axis = op.axis.value.data
    return np.ascontiguousarray(np.moveaxis(numerics.softmax(np.moveaxis(x, axis, -1)), -1, axis))


def _integers(value: SSAValue, x: Array) -> tuple[Array, float | None]:
    """q - zero and the step of codes; binary32 as it is."""
    if not is_int(value):
        return x, None
    codes = int_type(value)
    return (x.astype(np.int32) - codes.zero.data).astype(np.float32), codes.scale.data


def _layer_norm(op: qnn.LayerNormOp, x: Array, *vectors: Array) -> Array:
    found = iter(vectors)
    gamma, beta = (None if v is None else next(found) for v in (op.gamma, op.beta))
    v, scale = _integers(op.input, x)
    with np.errstate(all="ignore"):
        return numerics.layer_norm(v, gamma, beta, op.eps.data, scale)


def _rms_norm(op: qnn.RmsNormOp, x: Array, gamma: Array | None = None) -> Array:
    v, scale = _integers(op.input, x)
    with np.errstate(all="ignore"):
        return numerics.rms_norm(v, gamma, op.eps.data, scale)


def _reduce(op: qnn.ReduceOp, x: Array) -> Array:
    axis, kind = op.axis.value.data, op.kind.data
    rows = np.moveaxis(x, axis, -1)
    v, scale = _integers(op.input, rows)
    if kind in ("max", "min"):
        codes = is_int(op.input)
        y = (rows.max(-1) if kind == "max" else rows.min(-1)) if codes else _row_ends[kind](rows)
    elif kind == "argmax":
        y = numerics.row_argmax(v).astype(np.int32)
    else:
        y = (numerics.sum_rows if kind == "sum" else numerics.mean_rows)(v, scale)
    return np.asarray(np.expand_dims(y, axis) if op.keepdim is not None else y)


_row_ends: dict[str, Callable[[Array], Array]] = {"max": numerics.row_max, "min": numerics.row_min}


def _resize(op: qnn.Resize2dOp, x: Array) -> Array:
    num, den, phase = (cast(tuple[int, int], v.data) for v in (op.num, op.den, op.phase))
    places = (op.size, num, den, phase)
    rows = x.transpose(0, 2, 3, 1)
    if op.kind.data == "nearest":
        y = numerics.nearest(rows, *places)
    elif is_int(op.input):
        codes = int_type(op.input)
        y = numerics.bilinear(rows, *places, codes.zero.data, codes.scale.data)
    else:
        y = numerics.bilinear(rows, *places)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def _select(op: qnn.SelectOp, condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition != 0, a, b)


def _compare(function: Callable[[Array, Array], Array]) -> Callable[[Operation, Array, Array], Array]:
    return lambda op, a, b: function(a, b).astype(np.float32)


def _unary(function: Callable[[Array], Array]) -> Callable[[Operation, Array], Array]:
    return lambda op, x: function(x)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Operation, Array, Array], Array]:
    def run(op: Operation, a: Array, b: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return function(a, b)

    return run


SEMANTICS: dict[type[Operation], Callable[..., Array]] = {
    qnn.ConstantOp: qnn.constant_array,
    qnn.QuantizeOp: _quantize,
    qnn.DequantizeOp: _dequantize,
    qnn.Conv2dOp: _conv2d,
    qnn.LinearOp: _linear,
    qnn.MatmulOp: _matmul,
    qnn.AddOp: _binary(np.add),
    qnn.SubOp: _binary(np.subtract),
    qnn.MulOp: _binary(np.multiply),
    qnn.ReluOp: _unary(numerics.relu),
    qnn.ClampOp: _clamp,
    qnn.HardswishOp: _unary(numerics.hardswish),
    qnn.HardsigmoidOp: _unary(numerics.hardsigmoid),
    qnn.SigmoidOp: _unary(numerics.sigmoid),
    qnn.TanhOp: _unary(numerics.tanh),
    qnn.MaxPool2dOp: _max_pool,
    qnn.AvgPool2dOp: _avg_pool,
    qnn.AdaptiveAvgPool2dOp: _adaptive_avg_pool,
    qnn.PadOp: _pad,
    qnn.ConcatOp: _concat,
    qnn.ReshapeOp: _reshape,
    qnn.PermuteOp: _permute,
    qnn.SliceOp: _slice,
    qnn.ExpandOp: _expand,
    qnn.DivOp: _binary(numerics.div),
    qnn.MinimumOp: _binary(numerics.minimum),
    qnn.MaximumOp: _binary(numerics.maximum),
    qnn.GeOp: _compare(np.greater_equal),
    qnn.GtOp: _compare(np.greater),
    qnn.EqOp: _compare(np.equal),
    qnn.SelectOp: _select,
    qnn.ExpOp: _unary(numerics.exp),
    qnn.LogOp: _unary(numerics.log),
    qnn.SqrtOp: _unary(numerics.sqrt),
    qnn.RsqrtOp: _unary(numerics.rsqrt),
    qnn.ReciprocalOp: _unary(numerics.reciprocal),
    qnn.AbsOp: _unary(np.abs),
    qnn.FloorOp: _unary(np.floor),
    qnn.ErfOp: _unary(numerics.erf),
    qnn.SoftmaxOp: _softmax,
    qnn.LayerNormOp: _layer_norm,
    qnn.RmsNormOp: _rms_norm,
    qnn.ReduceOp: _reduce,
    qnn.Resize2dOp: _resize,
}
"""What each operation computes: ``f(op, *operands) -> result``."""


def evaluate(op: Operation, *operands: Array) -> Array:
    """Result of one qnn operation on numpy operands."""
    return SEMANTICS[type(op)](op, *operands)


def _implementation(kind: type[Operation]) -> Callable[..., PythonValues]:
    @impl(kind)
    def run(self: InterpreterFunctions, interpreter: Interpreter, op: Operation, args: tuple[Any, ...]) -> PythonValues:
        return (evaluate(op, *args),)

    return run


QnnFunctions = register_impls(
    type("QnnFunctions", (InterpreterFunctions,), {kind.__name__: _implementation(kind) for kind in SEMANTICS})
)
"""Implementations of every qnn operation for xDSL's interpreter."""


def run_qnn(module: ModuleOp, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of ``@main`` for ``inputs`` in its order; InputError when their number, shape or type differ."""
    interpreter = Interpreter(module, listeners=())
    interpreter.register_implementations(QnnFunctions())
    interpreter.register_implementations(FuncFunctions())
    main = interpreter.get_op_for_symbol("main")
    check_inputs(main.regions[0].block.args, inputs)
    return interpreter.call_op("main", tuple(inputs))


def check_inputs(arguments: Sequence[Any], inputs: Sequence[Array]) -> None:
    """InputError unless every input has its argument's shape and type."""
    if len(arguments) != len(inputs):
        raise InputError(f"@main takes {len(arguments)} inputs, got {len(inputs)}; give one array per argument")
    for i, (argument, array) in enumerate(zip(arguments, inputs, strict=True)):
        dtype = numerics.code_type(int_type(argument).width.data) if is_int(argument) else "float32"
        if array.shape != shape_of(argument) or array.dtype != dtype:
            raise InputError(
                f"input {i} must be {dtype}{list(shape_of(argument))}, got {array.dtype}{list(array.shape)}"
            )
