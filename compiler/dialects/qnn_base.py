"""Types, checks and the base class that the files of the ``qnn`` dialect share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import IntegerAttr, IntegerType, TensorType, f32, i8, i64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation, base, eq
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import IntsAttr, IntType

Tensor = TensorType[Attribute]
Value = SSAValue | Operation

ONES = IntsAttr((1, 1))
NO_PADDING = IntsAttr((0, 0, 0, 0))
ANY = base(TensorType)
INDEX = IntegerAttr.constr(eq(i64))
ONE = IntegerAttr(1, i64)


def tensor(value: Value) -> Tensor:
    """Type of a value, which the operand constraint has already shown to be a tensor."""
    return cast(Tensor, SSAValue.get(value).type)


def shape_of(value: Value) -> tuple[int, ...]:
    """Shape of a tensor value."""
    return tensor(value).get_shape()


def int_type(value: Value) -> IntType:
    """Element type of a tensor of activation codes; VerifyException for any other."""
    element = tensor(value).element_type
    if not isinstance(element, IntType):
        raise VerifyException(f"needs !qnn.int codes, got {tensor(value)}")
    return element


def is_int(value: Value) -> bool:
    """Whether a tensor holds activation codes."""
    return isinstance(tensor(value).element_type, IntType)


def float_tensor(shape: Sequence[int]) -> Tensor:
    """``tensor<shape x f32>``."""
    return TensorType(f32, shape)


def expect_type(what: str, actual: Attribute, expected: Attribute) -> None:
    """VerifyException unless the types are equal."""
    if actual != expected:
        raise VerifyException(f"{what} must be {expected}, got {actual}")


def expect_float(what: str, value: SSAValue) -> None:
    """VerifyException unless the tensor holds f32."""
    if tensor(value).element_type != f32:
        raise VerifyException(f"{what} must hold f32, got {tensor(value)}")


def expect_rank(what: str, value: SSAValue, rank: int) -> tuple[int, ...]:
    """Shape of a tensor that must have ``rank`` dimensions."""
    shape = shape_of(value)
    if len(shape) != rank:
        raise VerifyException(f"{what} must have rank {rank}, got {tensor(value)}")
    return shape


WEIGHTS = (IntegerType(4), i8, IntegerType(16), f32)
"""Element types of weights; binary32 ones go with binary32 activations."""


def expect_operand(what: str, value: SSAValue) -> None:
    """VerifyException unless the tensor holds activation codes or binary32."""
    if not is_int(value):
        expect_float(what, value)


def expect_parameters(x: SSAValue, w: SSAValue, scale: SSAValue, bias: SSAValue | None) -> None:
    """Weight codes are i4, i8 or i16, f32 beside f32; scale and bias are f32 vectors, an entry per output channel."""
    expect_operand("input", x)
    element = tensor(w).element_type
    if element not in WEIGHTS or (element == f32) is is_int(x):
        raise VerifyException(f"weight element type must be i4, i8 or i16 with codes, f32 with f32, got {tensor(w)}")
    vector = float_tensor(shape_of(w)[:1])
    expect_type("scale", tensor(scale), vector)
    if bias is not None:
        expect_type("bias", tensor(bias), vector)


class QnnOp(IRDLOperation):
    """An operation without side effects whose result type follows from operands and properties."""

    def infer(self) -> Attribute | None:
        """Result type, or None when it is free; ValueError or VerifyException when an operand breaks a rule."""
        return None

    def verify_(self) -> None:
        try:
            expected = self.infer()
        except ValueError as error:
            raise VerifyException(str(error)) from error
        if expected is not None:
            expect_type("result", self.results[0].type, expected)
