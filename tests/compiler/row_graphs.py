"""Small qnn graphs with row operations and attention; every level must compute the same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import shape_of
from tests.compiler.kern_graphs import CODES, RNG, add, dq, linear, q

WIDE = IntType(16, 0.0004, 0)
PROBABILITIES = IntType(8, 1 / 255, -128)
NARROW = IntType(4, 1 / 15, -8)

Body = Callable[..., SSAValue]


def vector(count: int) -> SSAValue:
    return qnn.ConstantOp(RNG.normal(size=count).astype(np.float32)).output


def softmax(x: SSAValue) -> SSAValue:
    return qnn.SoftmaxOp(x, len(shape_of(x)) - 1).output


def layer_norm(x: SSAValue, eps: float = 1e-6) -> SSAValue:
    c = shape_of(x)[-1]
    return qnn.LayerNormOp(x, vector(c), vector(c), eps).output


def rms_norm(x: SSAValue) -> SSAValue:
    return qnn.RmsNormOp(x, vector(shape_of(x)[-1]), 1e-6).output


def reduce(x: SSAValue, kind: str) -> SSAValue:
    return qnn.ReduceOp(x, kind, len(shape_of(x)) - 1, True).output


def product(a: SSAValue, b: SSAValue, transposed: bool = False) -> SSAValue:
    return qnn.MatmulOp(a, b, transpose_b=transposed).output


def scaled(x: SSAValue, value: float) -> SSAValue:
    return qnn.MulOp(x, qnn.ConstantOp(np.array(value, np.float32)).output).output


def attention(query: SSAValue, key: SSAValue, value: SSAValue, codes: IntType = PROBABILITIES) -> SSAValue:
    scores = scaled(product(q(query), q(key), transposed=True), 0.25)
    return q(product(q(softmax(scores), codes), q(value)))


def masked_attention(query: SSAValue, key: SSAValue, value: SSAValue) -> SSAValue:
    scores = product(q(query), q(key), transposed=True)
    mask = np.triu(np.full(shape_of(scores)[-2:], -1e9, np.float32), 1)
    scores = add(scaled(scores, 0.125), qnn.ConstantOp(mask[None]).output)
    return q(product(q(softmax(scores), PROBABILITIES), q(value)))


def block(x: SSAValue) -> SSAValue:
    """Layer norm, linear, residual."""
    stored = q(x, WIDE)
    return add(linear(q(layer_norm(stored)), shape_of(x)[-1]), dq(stored))


HEADS = [(3, 21, 16)] * 3

GRAPHS: dict[str, tuple[list[tuple[int, ...]], Body]] = {
    "softmax": ([(2, 7, 19)], lambda x: q(softmax(x))),
    "softmax_of_codes": ([(2, 7, 19)], lambda x: softmax(dq(q(x)))),
    "softmax_chain": ([(1, 9, 33)], lambda x: qnn.ReluOp(scaled(softmax(scaled(x, 0.5)), 3.0)).output),
    "layer_norm_codes": ([(1, 11, 40)], lambda x: q(layer_norm(q(x)))),
    "layer_norm_wide": ([(1, 11, 40)], lambda x: q(layer_norm(q(x, WIDE)))),
    "layer_norm_float": ([(2, 5, 24)], layer_norm),
    "rms_norm_codes": ([(1, 6, 24)], lambda x: q(rms_norm(q(x)))),
    "rms_norm_float": ([(1, 6, 24)], rms_norm),
    "sum_codes": ([(1, 6, 24)], lambda x: reduce(q(x), "sum")),
    "sum_float": ([(1, 6, 24)], lambda x: reduce(x, "sum")),
    "mean_float": ([(2, 6, 24)], lambda x: reduce(x, "mean")),
    "max_codes": ([(1, 6, 24)], lambda x: dq(reduce(q(x), "max"))),
    "max_float": ([(1, 6, 24)], lambda x: reduce(x, "max")),
    "min_float": ([(1, 6, 24)], lambda x: reduce(x, "min")),
    "block": ([(1, 17, 32)], block),
    "attention": (HEADS, attention),
    "attention_narrow": (HEADS, lambda *x: attention(*x, NARROW)),
    "masked_attention": (HEADS, masked_attention),
}
"""Name -> input shapes and body."""

EXTREMES = {
    "equal": lambda shape: np.full(shape, 1.5, np.float32),
    "zeros": lambda shape: np.zeros(shape, np.float32),
    "saturated": lambda shape: (RNG.normal(size=shape) * 1e6).astype(np.float32),
    "tiny": lambda shape: (RNG.normal(size=shape) * 1e-30).astype(np.float32),
    "infinite": lambda shape: np.where(RNG.random(shape) < 0.1, np.inf, RNG.normal(size=shape)).astype(np.float32),
    "nan": lambda shape: np.where(RNG.random(shape) < 0.1, np.nan, RNG.normal(size=shape)).astype(np.float32),
}
"""Inputs at the ends of what row operations can meet."""

__all__ = ["CODES", "EXTREMES", "GRAPHS"]
