"""Widths of stored tensors, and which mode of the matrix unit multiplies two of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import shape_of, tensor
from compiler.ir.layout import nhwc
from compiler.ir.place import stored
from isa.errors import UnsupportedError
from isa.instructions import DType, Mode

CODES = {4: DType.I4, 8: DType.I8, 16: DType.I16}
"""Storage type of codes by their width."""
INTEGERS = {**CODES, 32: DType.I32}
IDENTITY = tuple(range(-8, 8))
"""A decode table that makes 4-bit codes 8-bit ones."""

MODES = {(m.weight, m.activation): m for m in Mode}


def dtype_of(value: SSAValue) -> DType:
    """Storage type of a tensor: codes and weights by their width, else binary32."""
    element = tensor(value).element_type
    if isinstance(element, IntType):
        return CODES[element.width.data]
    return INTEGERS[element.bitwidth] if isinstance(element, IntegerType) else DType.F32


def stored_bytes(value: SSAValue) -> int:
    """Bytes of a tensor as it is stored, without gaps."""
    shape, element = stored(nhwc(shape_of(value)), dtype_of(value))
    return prod(shape) * element


def image_bytes(factor: SSAValue) -> int:
    """Bytes of one image's matrix of a batched factor [..., K, N]."""
    return stored_bytes(factor) // prod(shape_of(factor)[:-2])


def is_codes(dtype: DType) -> bool:
    """Whether a stream of this type passes a conversion with zero point and scale."""
    return dtype in (DType.I4, DType.I8, DType.I16)


@dataclass(frozen=True)
class Product:
    """How the matrix unit multiplies: the mode, how weights are stored, and the decode table of the activations."""

    mode: Mode
    weight: DType
    codebook: tuple[int, ...] = ()


def product_of(weight: DType, act: DType, codebook: tuple[int, ...], constant: bool, what: str) -> Product:
    """The mode for weights and activations of these types; UnsupportedError with advice where there is none.

    ``constant`` weights may be stored wider than they are; ``codebook`` is what 4-bit activations stand for.
    """
    if codebook or (weight, act) == (DType.I8, DType.I4):
        found = MODES.get((weight, DType.I8))
        if found is None:
            raise UnsupportedError(
                f"{what}: {_name(weight)} weights cannot multiply activations with a codebook; quantize weights to "
                "8 or 4 bits"
            )
        return Product(found, weight, codebook or IDENTITY)
    if constant and (weight, act) == (DType.I4, DType.I16):
        weight = DType.I8
    if (weight, act) not in MODES:
        raise UnsupportedError(
            f"{what}: the matrix unit has no mode for {_name(weight)} weights and {_name(act)} activations; "
            f"{_advice(weight, act)}"
        )
    return Product(MODES[weight, act], weight)


def _name(dtype: DType) -> str:
    return {DType.I4: "4-bit", DType.I8: "8-bit", DType.I16: "16-bit"}.get(dtype, "binary32")


def _advice(weight: DType, act: DType) -> str:
    if DType.F32 in (weight, act):
        return "quantize both or none"
    if weight is DType.I16:
        return "quantize the activations to 16 bits, or the weights (the second factor) to 8"
    return "quantize the second factor to 8 bits"
