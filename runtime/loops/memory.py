"""Elements of memories, by address: arrays as arguments and slices would cost more to compile than the loops around.

Addresses are checked when an instruction is bound; nothing is checked here.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

Address = int
"""Of a byte of this process; its owner outlives the loop."""


def _element(context: Any, builder: Any, kind: Any, address: Any, index: Any) -> Any:
    # The base is an invariant of the loop and the index counts in elements: the vectorizer sees both.
    pointer = builder.inttoptr(address, context.get_value_type(kind).as_pointer())
    return builder.gep(pointer, [index])


def _getter(kind: Any) -> Any:
    @intrinsic
    def get(typing: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return builder.load(_element(context, builder, kind, *values))

        return kind(types.int64, types.int64), generate

    return get


def _setter(kind: Any) -> Any:
    @intrinsic
    def put(typing: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            narrow = context.cast(builder, values[2], signature.args[2], kind)
            builder.store(narrow, _element(context, builder, kind, *values[:2]))

        return types.void(types.int64, types.int64, value), generate

    return put


get_i8, get_i16, get_i32, get_i64, get_f32 = map(
    _getter, (types.int8, types.int16, types.int32, types.int64, types.float32)
)
"""The element number ``index`` from ``address``."""
put_i8, put_i16, put_i32, put_i64, put_f32 = map(
    _setter, (types.int8, types.int16, types.int32, types.int64, types.float32)
)
"""Write ``value`` there, cut to the element's bits if it is an integer."""
