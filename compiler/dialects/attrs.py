"""Attributes of the ``qnn`` dialect: the quantized element type, integer lists, and exact numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, FloatData, IntAttr
from xdsl.ir import Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

WIDTHS = (4, 8, 16)
"""Bits per code that the type can express."""


def exact_text(value: float) -> str:
    """Decimal text of a double that the parser reads back to the same bits (``1e-05`` would lex as ``1``)."""
    text = repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return text if "." in mantissa or not math.isfinite(value) else f"{mantissa}.0{e}{exponent}"


def parse_number(parser: AttrParser) -> float:
    """Read what :func:`exact_text` prints."""
    negative = parser.parse_optional_punctuation("-") is not None
    if parser.parse_optional_keyword("inf") is not None:
        return -math.inf if negative else math.inf
    if parser.parse_optional_keyword("nan") is not None:
        return math.nan
    value = float(parser.parse_number())
    return -value if negative else value


@irdl_attr_definition
class IntType(ParametrizedAttribute, TypeAttribute):
    """``!qnn.int<width, scale, zero>``: codes q that stand for ``fp32(q - zero) * fp32(scale)``.

    ``scale`` is a double. ``codebook`` is empty for uniform codes; otherwise it holds the value of each of 16 codes.
    """

    name = "qnn.int"

    width: IntAttr = param_def()
    scale: FloatData = param_def()
    zero: IntAttr = param_def()
    codebook: ArrayAttr[IntAttr] = param_def()

    def __init__(self, width: int, scale: float, zero: int, codebook: Sequence[int] = ()):
        super().__init__(
            IntAttr(width), FloatData(float(scale)), IntAttr(zero), ArrayAttr([IntAttr(v) for v in codebook])
        )

    @property
    def low(self) -> int:
        """Smallest code."""
        return -(1 << (self.width.data - 1))

    @property
    def high(self) -> int:
        """Largest code."""
        return (1 << (self.width.data - 1)) - 1

    def verify(self) -> None:
        if self.width.data not in WIDTHS:
            raise VerifyException(f"width must be one of {WIDTHS}, got {self.width.data}")
        if not (math.isfinite(self.scale.data) and self.scale.data > 0):
            raise VerifyException(f"scale must be positive and finite, got {self.scale.data!r}")
        low, high = (-128, 127) if self.codebook.data else (self.low, self.high)  # zero counts in a codebook's entries
        if not low <= self.zero.data <= high:
            raise VerifyException(f"zero must be in [{low}, {high}], got {self.zero.data}")
        if self.codebook.data and (self.width.data, len(self.codebook.data)) != (4, 16):
            raise VerifyException("a codebook has 16 entries and belongs to width 4")

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.width.data}, {exact_text(self.scale.data)}, {self.zero.data}")
            if self.codebook.data:
                printer.print_string(f", [{', '.join(str(v.data) for v in self.codebook.data)}]")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[IntAttr | FloatData | ArrayAttr[IntAttr]]:
        with parser.in_angle_brackets():
            width = parser.parse_integer()
            parser.parse_punctuation(",")
            scale = parse_number(parser)
            parser.parse_punctuation(",")
            zero = parser.parse_integer()
            codebook: list[int] = []
            if parser.parse_optional_punctuation(",") is not None:
                codebook = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        return [IntAttr(width), FloatData(scale), IntAttr(zero), ArrayAttr([IntAttr(v) for v in codebook])]


@irdl_attr_definition
class IntsAttr(Data[tuple[int, ...]]):
    """A short list of integers: strides, paddings, orders. Prints as ``<1, 1>``."""

    name = "qnn.ints"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[int, ...]:
        return tuple(parser.parse_comma_separated_list(parser.Delimiter.ANGLE, parser.parse_integer))

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{', '.join(map(str, self.data))}>")


@irdl_attr_definition
class NumberAttr(Data[float]):
    """A double that prints and parses back exactly; infinities allowed. Prints as ``<0.5>``."""

    name = "qnn.number"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> float:
        with parser.in_angle_brackets():
            return parse_number(parser)

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{exact_text(self.data)}>")
