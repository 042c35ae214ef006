"""The numbers of the machine, defined once for numpy arrays and torch tensors (docs/architecture.md, Numerics)."""

from isa.numerics.convert import (
    INT8_MAX,
    INT8_MIN,
    accumulate_to_float,
    dequantize,
    inverse_scale,
    product_scale,
    quantize,
    sum_to_mean,
)
from isa.numerics.elementwise import clamp, hardsigmoid, hardswish, relu
from isa.numerics.functions import MAX_ULP, STEPS, erf, exp2, log2, reciprocal, rsqrt, sigmoid, tanh
from isa.numerics.integer import matmul_i8, matmul_zero, row_sums
from isa.numerics.namespace import Array, cast, fp32, is_torch, namespace

__all__ = [
    "INT8_MAX",
    "INT8_MIN",
    "MAX_ULP",
    "STEPS",
    "Array",
    "accumulate_to_float",
    "cast",
    "clamp",
    "dequantize",
    "erf",
    "exp2",
    "fp32",
    "hardsigmoid",
    "hardswish",
    "inverse_scale",
    "is_torch",
    "log2",
    "matmul_i8",
    "matmul_zero",
    "namespace",
    "product_scale",
    "quantize",
    "reciprocal",
    "relu",
    "row_sums",
    "rsqrt",
    "sigmoid",
    "sum_to_mean",
    "tanh",
]
