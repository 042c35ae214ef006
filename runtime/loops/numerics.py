"""``isa.numerics`` for one element: the same functions, compiled.

Their helpers, which choose numpy or torch by the array, become the instruction that each is for one number; everything
else is compiled as it is written there.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from numba import extending
from numba.core import types as numba_types

from isa.numerics import canonical, erf, exp, exp2, log, log2, reciprocal, rsqrt, sigmoid, tanh
from isa.numerics.functions import ONE, PARTS, ZERO, is_number, is_within
from isa.numerics.namespace import NAN, bits_of, cast, clip, float_of, rint, where
from isa.numerics.rows import power_of_alignment
from runtime.loops.compiled import part

__all__ = [
    "NAN",
    "ONE",
    "ZERO",
    "bits_of",
    "canonical",
    "erf",
    "exp",
    "exp2",
    "float_of",
    "log",
    "log2",
    "power_of_alignment",
    "reciprocal",
    "rint",
    "rsqrt",
    "sigmoid",
    "tanh",
    "where",
]
Numba: Any = extending
types: Any = numba_types
"""Numba's modules, which have no types of their own."""
Types = Any
Values = Any
"""Of the arguments, in the compiler."""


def _lower(function: Callable[..., Any], returns: Callable[..., Types], generate: Callable[..., Any], n: int) -> None:
    """``function``, of ``n`` arguments, has the type and the code that these two give for one element."""
    Numba.type_callable(function)(lambda _context: returns)  # pyright: ignore[reportUnknownLambdaType]
    Numba.lower_builtin(function, *[types.Any] * n)(generate)


def _type_of_choice(_condition: Types, a: Types, b: Types) -> Types:
    return a if a == b else types.int64


def _choose(context: Any, builder: Any, signature: Any, values: Values) -> Any:
    a, b = (context.cast(builder, values[i], signature.args[i], signature.return_type) for i in (1, 2))
    return builder.select(values[0], a, b)


def _int32(_x: Types) -> Types:
    return types.int32


def _float32(_bits: Types) -> Types:
    return types.float32


def _reinterpret(context: Any, builder: Any, signature: Any, values: Values) -> Any:
    narrow = types.int32 if signature.return_type == types.float32 else types.float32  # arithmetic widens an int32
    value = context.cast(builder, values[0], signature.args[0], narrow)
    return builder.bitcast(value, context.get_value_type(signature.return_type))


def _same(x: Types) -> Types:
    return x


def _round(context: Any, builder: Any, signature: Any, values: Values) -> Any:
    kind = context.get_value_type(signature.return_type)
    return builder.call(builder.module.declare_intrinsic("llvm.rint", [kind]), values)


def _named(_x: Types, dtype: Types) -> Types:
    return getattr(types, dtype.literal_value) if isinstance(dtype, types.StringLiteral) else None


def _convert(context: Any, builder: Any, signature: Any, values: Values) -> Any:
    return context.cast(builder, values[0], signature.args[0], signature.return_type)


def _boolean(_x: Types) -> Types:
    return types.boolean


def _within(_x: Types, _low: Types, _high: Types) -> Types:
    return types.boolean


def _unknown(context: Any, _builder: Any, signature: Any, _values: Values) -> Any:
    """What only arrays test before they compute, to choose a shorter way to the same bits."""
    return context.get_constant(signature.return_type, False)


def _clip(x: Any, lo: Any, hi: Any) -> Any:
    return lo if x < lo else (hi if x > hi else x)


def _replace(function: Callable[..., Any], by: Callable[..., Any]) -> None:
    """Where ``function`` is called, ``by`` is compiled."""

    def choose(*_arguments: Types) -> Callable[..., Any]:
        return by

    Numba.overload(function, strict=False)(choose)


_lower(where, _type_of_choice, _choose, 3)
_lower(bits_of, _int32, _reinterpret, 1)
_lower(float_of, _float32, _reinterpret, 1)
_lower(rint, _same, _round, 1)
_lower(cast, _named, _convert, 2)
_lower(is_number, _boolean, _unknown, 1)
_lower(is_within, _within, _unknown, 3)
_replace(clip, _clip)
for _function in (erf, exp, exp2, log, log2, reciprocal, rsqrt, sigmoid, tanh):
    _replace(_function, unwrap(_function))  # the function itself, not in blocks of arrays
for _function in (*PARTS, power_of_alignment, canonical):
    part(_function)
