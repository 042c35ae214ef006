"""Reference semantics of the ``qnn`` dialect on numpy arrays: float32 tensors and int8 codes, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.interpreters.func import FuncFunctions
from xdsl.ir import Operation

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.interpreter.windows import Windows, adaptive_ranges, conv2d_i32, reduce_taps, tap_counts
from isa import numerics
from isa.errors import InputError

Array = NDArray[Any]


def _conv2d(op: qnn.Conv2dOp, x: Array, w: Array, scale: Array, *bias: Array) -> Array:
    windows = Windows(w.shape[2:], op.strides.data, op.padding.data, op.dilation.data)
    acc = conv2d_i32(x, int_type(op.x).zero.data, w, windows, op.groups.value.data)
    return np.ascontiguousarray(numerics.accumulate_to_float(acc, scale, *bias).transpose(0, 3, 1, 2))


def _linear(op: qnn.LinearOp, x: Array, w: Array, scale: Array, *bias: Array) -> Array:
    acc = numerics.matmul_zero(x.reshape(-1, x.shape[-1]), int_type(op.x).zero.data, w)
    return numerics.accumulate_to_float(acc, scale, *bias).reshape(*x.shape[:-1], -1)


def _matmul(op: qnn.MatmulOp, a: Array, b: Array) -> Array:
    left, right = int_type(op.a), int_type(op.b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
    columns = np.broadcast_to(b, (*batch, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
    acc = np.stack(
        [numerics.matmul_zero(m, left.zero.data, n.T, right.zero.data) for m, n in zip(rows, columns, strict=True)]
    )
    scale = numerics.product_scale(left.scale.data, right.scale.data)
    return numerics.accumulate_to_float(acc, scale).reshape(*batch, a.shape[-2], b.shape[-1])


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
    inverse = numerics.inverse_scale(codes.scale.data)
    return numerics.quantize(x, inverse, codes.zero.data, op.lo, op.hi)


def _dequantize(op: qnn.DequantizeOp, x: Array) -> Array:
    codes = int_type(op.input)
    return numerics.dequantize(x, codes.scale.data, codes.zero.data)


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
        dtype = "int8" if is_int(argument) else "float32"
        if array.shape != shape_of(argument) or array.dtype != dtype:
            raise InputError(
                f"input {i} must be {dtype}{list(shape_of(argument))}, got {array.dtype}{list(array.shape)}"
            )
