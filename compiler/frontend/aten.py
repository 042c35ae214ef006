"""One table: PyTorch operator -> the function that builds its qnn operations.

A builder gets the graph under construction and the call's arguments, nodes replaced by frontend values, with
PyTorch's own names and defaults. It returns a frontend value, or raises Refusal. Builders of movement and
quantization are in ``aten_layout``, those of joins in ``aten_joins``, of products in ``aten_matrix``, of pooling
in ``aten_pool``, of rows in ``aten_rows``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.ir import Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from compiler.frontend import aten_joins, aten_matrix, aten_pool, aten_rows
from compiler.frontend import aten_layout as layout
from compiler.frontend.build import Graph
from compiler.frontend.qdq import (
    Constant,
    Float,
    Mask,
    Refusal,
    Value,
)

Pair = int | Sequence[int]
Builder = Callable[..., Any]


def binary(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of an elementwise operation of two operands; Python numbers become constants."""

    def build(g: Graph, a: Any, b: Any, *, alpha: float = 1) -> Value:
        if alpha != 1:
            raise Refusal(f"alpha must be 1, got {alpha}", "multiply the operand by alpha first")
        return Float(g.add(kind(g.float(a), g.float(b))))

    return build


def embedding(g: Graph, table: Value, indices: Value, *_: Any) -> Value:
    """``aten.embedding`` of constant positions."""
    if isinstance(table, Constant) and isinstance(indices, Constant):
        return Constant(np.ascontiguousarray(table.array[indices.array]))
    raise Refusal("an embedding needs constant positions: memory has no gather", "look the rows up before the model")


def rsub(g: Graph, a: Any, b: Any, alpha: float = 1) -> Value:
    """``b - alpha * a``."""
    return binary(qnn.SubOp)(g, b, a, alpha=alpha)


def unary(kind: Callable[[SSAValue], Operation]) -> Builder:
    """Builder of a function of each element."""

    def build(g: Graph, x: Value) -> Value:
        return Float(g.add(kind(g.float(x))))

    return build


def clamp(g: Graph, x: Value, min: float | None = None, max: float | None = None) -> Value:
    """``aten.clamp`` with number bounds; a missing bound is an infinity."""
    low, high = (-math.inf if min is None else min) + 0.0, (math.inf if max is None else max) + 0.0  # no bound is -0
    if low == 0 and high == math.inf:
        return Float(g.add(qnn.ReluOp(g.float(x))))
    return Float(g.add(qnn.ClampOp(g.float(x), low, high)))


def clamp_max(g: Graph, x: Value, max: float) -> Value:
    """``min(x, max)``."""
    return clamp(g, x, None, max)


def hardtanh(g: Graph, x: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    """``aten.hardtanh``."""
    return clamp(g, x, min_val, max_val)


def relu6(g: Graph, x: Value) -> Value:
    """``clamp(x, 0, 6)``."""
    return clamp(g, x, 0.0, 6.0)


def silu(g: Graph, x: Value) -> Value:
    """``x * sigmoid(x)``."""
    value = g.float(x)
    return Float(g.add(qnn.MulOp(value, g.add(qnn.SigmoidOp(value)))))


SQRT_HALF, SQRT_2_PI, CUBIC = 0.5**0.5, (2.0 / math.pi) ** 0.5, 0.044715


def gelu(g: Graph, x: Value, *, approximate: str = "none") -> Value:
    """``aten.gelu``: (x * 0.5) * (erf(x * sqrt(1/2)) + 1), or with tanh."""
    value = g.float(x)

    def number(v: float) -> SSAValue:
        return g.constant(np.asarray(v, np.float32))

    if approximate == "tanh":
        cube = g.add(qnn.MulOp(g.add(qnn.MulOp(value, value)), value))
        inner = g.add(qnn.AddOp(value, g.add(qnn.MulOp(cube, number(CUBIC)))))
        bent = g.add(qnn.TanhOp(g.add(qnn.MulOp(inner, number(SQRT_2_PI)))))
    else:
        bent = g.add(qnn.ErfOp(g.add(qnn.MulOp(value, number(SQRT_HALF)))))
    half = g.add(qnn.MulOp(value, number(0.5)))
    return Float(g.add(qnn.MulOp(half, g.add(qnn.AddOp(bent, number(1.0))))))


def negative(g: Graph, x: Value) -> Value:
    """``x * -1``."""
    return binary(qnn.MulOp)(g, x, -1.0)


def power(g: Graph, x: Value, exponent: float) -> Value:
    """x ** 2, 0.5, -0.5 and -1."""
    advice = "of a positive base, write torch.exp(exponent * torch.log(base))"
    if not isinstance(exponent, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Refusal("pow has the exponents 2, 0.5, -0.5 and -1, got a tensor", advice)
    value = g.float(x)
    if exponent == 2:
        return Float(g.add(qnn.MulOp(value, value)))
    kinds: dict[float, Any] = {0.5: qnn.SqrtOp, -0.5: qnn.RsqrtOp, -1: qnn.ReciprocalOp}
    if exponent not in kinds:
        raise Refusal(f"pow has exponents 2, 0.5, -0.5 and -1, got {exponent}", advice)
    return Float(g.add(kinds[exponent](value)))


def compare(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of a comparison, which gives zeros and ones."""

    def build(g: Graph, a: Any, b: Any) -> Value:
        return Mask(g.add(kind(g.float(a), g.float(b))))

    return build


def swapped(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of a comparison with its operands exchanged: a <= b is b >= a."""
    build = compare(kind)

    def exchanged(g: Graph, a: Any, b: Any) -> Value:
        return build(g, b, a)

    return exchanged


def inverted(g: Graph, mask: Any) -> Value:
    """``aten.logical_not`` and ``bitwise_not`` of a mask."""
    return compare(qnn.EqOp)(g, mask, 0.0)


def unequal(g: Graph, a: Any, b: Any) -> Value:
    """1 where a and b differ, or one is NaN."""
    return inverted(g, compare(qnn.EqOp)(g, a, b))


def combined(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of ``logical_and`` (the smaller) and ``logical_or`` (the larger) of two masks."""

    def build(g: Graph, a: Any, b: Any) -> Value:
        if not isinstance(a, (Mask, Constant)) or not isinstance(b, (Mask, Constant)):
            raise Refusal("logical operators join masks", "compare the tensors first")
        return Mask(g.add(kind(g.float(a), g.float(b))))

    return build


def where(g: Graph, condition: Any, a: Any, b: Any) -> Value:
    """``aten.where``: masks are binary32, 0 or not."""
    return Float(g.add(qnn.SelectOp(g.float(condition), g.float(a), g.float(b))))


def masked_fill(g: Graph, x: Any, mask: Any, value: Any) -> Value:
    """``value`` where the mask holds, else x."""
    return where(g, mask, value, x)


def leaky_relu(g: Graph, x: Value, negative_slope: float = 0.01) -> Value:
    """x where it is positive, else x * slope."""
    return where(g, compare(qnn.GtOp)(g, x, 0.0), x, binary(qnn.MulOp)(g, x, negative_slope))


def elu(g: Graph, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    """x where it is positive, else (exp(x) - 1) * alpha."""
    if scale != 1 or input_scale != 1:
        raise Refusal(f"elu has scales of 1, got {scale} and {input_scale}", "scale the operand and the result")
    bent = binary(qnn.SubOp)(g, unary(qnn.ExpOp)(g, x), 1.0)
    return where(g, compare(qnn.GtOp)(g, x, 0.0), x, bent if alpha == 1 else binary(qnn.MulOp)(g, bent, alpha))


def softplus(g: Graph, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    """log(exp(x) + 1), and x above the threshold."""
    if beta != 1:
        raise Refusal(f"softplus has beta 1, got {beta}", "scale the operand and the result")
    grown = binary(qnn.AddOp)(g, unary(qnn.ExpOp)(g, x), 1.0)
    return where(g, compare(qnn.GtOp)(g, x, threshold), x, unary(qnn.LogOp)(g, grown))


def batch_norm(
    g: Graph,
    x: Value,
    weight: Constant | None,
    bias: Constant | None,
    mean: Constant,
    variance: Constant,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Value:
    """``x * a + b`` per channel, two roundings.

    ``a = gamma / sqrt(var + eps)`` and ``b = beta - mean * a``, in binary64 and each rounded once to binary32.
    """
    if training:
        raise Refusal("batch norm is in training mode", "call model.eval() before exporting")
    value = g.float(x)
    a = np.asarray(1.0 if weight is None else weight.array, np.float64) / np.sqrt(
        variance.array.astype(np.float64) + eps
    )
    b = np.asarray(0.0 if bias is None else bias.array, np.float64) - mean.array.astype(np.float64) * a
    shape = (-1, *[1] * (len(shape_of(value)) - 2))
    scale, shift = (g.constant(v.astype(np.float32).reshape(shape)) for v in (a, b))
    return Float(g.add(qnn.AddOp(g.add(qnn.MulOp(value, scale)), shift)))


def batch_norm_tuple(
    g: Graph, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> tuple[Value, ...]:
    """The decomposed batch norm, whose first result is the tensor."""
    return (batch_norm(g, x, weight, bias, mean, variance, False, momentum, eps),)


def getitem(g: Graph, values: tuple[Value, ...], index: int) -> Value:
    """One result of an operator with several; those that we do not compute are refused."""
    if not -len(values) <= index < len(values):
        raise Refusal(f"result {index} of this operator is not supported", "use only its first result")
    return values[index]


OPERATORS: dict[str, Builder] = {
    "aten.embedding.default": embedding,
    "aten.add.Tensor": binary(qnn.AddOp),
    "aten.add.Scalar": binary(qnn.AddOp),
    "aten.add_.Tensor": binary(qnn.AddOp),
    "aten.add_.Scalar": binary(qnn.AddOp),
    "aten.sub.Tensor": binary(qnn.SubOp),
    "aten.sub.Scalar": binary(qnn.SubOp),
    "aten.sub_.Tensor": binary(qnn.SubOp),
    "aten.sub_.Scalar": binary(qnn.SubOp),
    "aten.rsub.Scalar": rsub,
    "aten.mul.Tensor": binary(qnn.MulOp),
    "aten.mul.Scalar": binary(qnn.MulOp),
    "aten.mul_.Tensor": binary(qnn.MulOp),
    "aten.mul_.Scalar": binary(qnn.MulOp),
    "aten.relu.default": unary(qnn.ReluOp),
    "aten.relu_.default": unary(qnn.ReluOp),
    "aten.relu6.default": relu6,
    "aten.relu6_.default": relu6,
    "aten.hardtanh.default": hardtanh,
    "aten.hardtanh_.default": hardtanh,
    "aten.clamp.default": clamp,
    "aten.clamp_.default": clamp,
    "aten.clamp_min.default": clamp,
    "aten.clamp_min_.default": clamp,
    "aten.clamp_max.default": clamp_max,
    "aten.hardswish.default": unary(qnn.HardswishOp),
    "aten.hardswish_.default": unary(qnn.HardswishOp),
    "aten.hardsigmoid.default": unary(qnn.HardsigmoidOp),
    "aten.hardsigmoid_.default": unary(qnn.HardsigmoidOp),
    "aten.sigmoid.default": unary(qnn.SigmoidOp),
    "aten.sigmoid_.default": unary(qnn.SigmoidOp),
    "aten.silu.default": silu,
    "aten.silu_.default": silu,
    "aten.tanh.default": unary(qnn.TanhOp),
    "aten.tanh_.default": unary(qnn.TanhOp),
    "aten.batch_norm.default": batch_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm_tuple,
    "aten.gelu.default": gelu,
    "aten.gelu_.default": gelu,
    "aten.neg.default": negative,
    "aten.abs.default": unary(qnn.AbsOp),
    "aten.exp.default": unary(qnn.ExpOp),
    "aten.log.default": unary(qnn.LogOp),
    "aten.sqrt.default": unary(qnn.SqrtOp),
    "aten.rsqrt.default": unary(qnn.RsqrtOp),
    "aten.reciprocal.default": unary(qnn.ReciprocalOp),
    "aten.erf.default": unary(qnn.ErfOp),
    "aten.floor.default": unary(qnn.FloorOp),
    "aten.pow.Tensor_Scalar": power,
    "aten.pow.Tensor_Tensor": power,
    "aten.pow.Scalar": power,
    "aten.div.Tensor": binary(qnn.DivOp),
    "aten.div.Scalar": binary(qnn.DivOp),
    "aten.max.other": binary(qnn.MaximumOp),
    "aten.min.other": binary(qnn.MinimumOp),
    "aten.logical_not.default": inverted,
    "aten.bitwise_not.default": inverted,
    "aten.logical_and.default": combined(qnn.MinimumOp),
    "aten.bitwise_and.Tensor": combined(qnn.MinimumOp),
    "aten.__and__.Tensor": combined(qnn.MinimumOp),
    "aten.__or__.Tensor": combined(qnn.MaximumOp),
    "aten.logical_or.default": combined(qnn.MaximumOp),
    "aten.bitwise_or.Tensor": combined(qnn.MaximumOp),
    "aten.minimum.default": binary(qnn.MinimumOp),
    "aten.maximum.default": binary(qnn.MaximumOp),
    "aten.ge.Tensor": compare(qnn.GeOp),
    "aten.ge.Scalar": compare(qnn.GeOp),
    "aten.gt.Tensor": compare(qnn.GtOp),
    "aten.gt.Scalar": compare(qnn.GtOp),
    "aten.eq.Tensor": compare(qnn.EqOp),
    "aten.eq.Scalar": compare(qnn.EqOp),
    "aten.le.Tensor": swapped(qnn.GeOp),
    "aten.le.Scalar": swapped(qnn.GeOp),
    "aten.lt.Tensor": swapped(qnn.GtOp),
    "aten.lt.Scalar": swapped(qnn.GtOp),
    "aten.ne.Tensor": unequal,
    "aten.ne.Scalar": unequal,
    "aten.where.self": where,
    "aten.where.ScalarOther": where,
    "aten.where.ScalarSelf": where,
    "aten.where.Scalar": where,
    "aten.leaky_relu.default": leaky_relu,
    "aten.elu.default": elu,
    "aten.softplus.default": softplus,
    "aten.masked_fill.Scalar": masked_fill,
    "aten.masked_fill.Tensor": masked_fill,
    "_operator.getitem": getitem,
    **layout.OPERATORS,
    **aten_joins.OPERATORS,
    **aten_matrix.OPERATORS,
    **aten_pool.OPERATORS,
    **aten_rows.OPERATORS,
}
"""Every supported operator."""

IN_PLACE = ("div", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "floor", "pow", "masked_fill",
            "leaky_relu", "elu", "clamp_max")  # fmt: skip
"""Operators whose in-place variants, named with an underscore, compute the same."""
OPERATORS.update(
    {
        target.replace(f".{name}.", f".{name}_."): build
        for name in IN_PLACE
        for target, build in list(OPERATORS.items())
        if target.startswith(f"aten.{name}.")
    }
)
