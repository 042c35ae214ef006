"""The ``npu`` dialect: one op per instruction, derived from the instruction table.

    npu.mmu.run <act = 256, n = 64, accumulate = 1, wait_a = 3>

Every field of the instruction is a property; the custom syntax leaves out those at their default and
writes enum values by name. Ops have no operands: order in the block is program order. Building and parsing ops
is slow, so this level serves loop bodies, inspection and peepholes; whole networks go straight to words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self, cast

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f32, i64
from xdsl.ir import Attribute, Dialect
from xdsl.irdl import (
    AnyAttr,
    AttrConstraint,
    IntConstraint,
    IRDLOperation,
    ParamAttrConstraint,
    VerificationContext,
    eq,
    irdl_op_definition,
    prop_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import exact_text, parse_number
from isa.encoding import FieldLayout, Instruction
from isa.errors import EncodingError
from isa.instructions import INSTRUCTIONS


@dataclass(frozen=True)
class FieldRange(IntConstraint):
    """The integer fits the field: its bits, or the members of its enum."""

    row: FieldLayout
    mnemonic: str

    def verify(self, i: int, constraint_context: VerificationContext) -> None:
        try:
            self.row.checked(i, self.mnemonic)
        except EncodingError as error:
            raise VerifyException(str(error)) from None

    def mapping_type_vars(self, type_var_mapping: object) -> IntConstraint:
        return self


class InstructionOp(IRDLOperation):
    """Base of every op of the dialect."""

    INSTRUCTION: ClassVar[type[Instruction]]

    def __init__(self, instruction: Instruction):
        rows = self.INSTRUCTION.layout()
        super().__init__(properties={row.name: _attribute(row, getattr(instruction, row.name)) for row in rows})

    @property
    def instruction(self) -> Instruction:
        """The instruction that this op stands for. Raises EncodingError if a property does not fit."""
        values = {row.name: _value(self.properties[row.name]) for row in self.INSTRUCTION.layout()}
        return self.INSTRUCTION(**values)  # type: ignore[arg-type]

    def print(self, printer: Printer) -> None:
        rows = self.INSTRUCTION.layout()
        default = self.INSTRUCTION()
        changed = [
            f"{row.name} = {_text(row, self.properties[row.name])}"
            for row in rows
            if self.properties[row.name] != _attribute(row, getattr(default, row.name))
        ]
        if changed:
            printer.print_string(f" <{', '.join(changed)}>")
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        rows = {row.name: row for row in cls.INSTRUCTION.layout()}
        values: dict[str, Attribute] = {}

        def field() -> None:
            name = parser.parse_identifier()
            if name not in rows:
                parser.raise_error(f"{cls.name} has no field {name!r}; its fields are {', '.join(rows)}")
            if name in values:
                parser.raise_error(f"{cls.name}: {name} is given twice")
            parser.parse_punctuation("=")
            values[name] = _parse_field(parser, rows[name])

        parser.parse_optional_comma_separated_list(parser.Delimiter.ANGLE, field)
        op = cls(cls.INSTRUCTION())
        op.properties |= values
        op.attributes |= parser.parse_optional_attr_dict()
        return op


def to_op(instruction: Instruction) -> InstructionOp:
    """The op of ``instruction``."""
    return OPS[type(instruction)](instruction)


def from_op(op: InstructionOp) -> Instruction:
    """Inverse of :func:`to_op`. Raises EncodingError if a property does not fit its field."""
    return op.instruction


def _attribute(row: FieldLayout, value: float) -> Attribute:
    return FloatAttr(value, f32) if row.bits.is_float else _integer(int(value))


@lru_cache(maxsize=4096)
def _integer(value: int) -> Attribute:
    return IntegerAttr(value, i64)


def _value(attribute: Attribute) -> int | float:
    return cast("IntegerAttr | FloatAttr", attribute).value.data


def _text(row: FieldLayout, attribute: Attribute) -> str:
    """The property in custom syntax; an enum value that does not exist stays a number, for the verifier."""
    value = _value(attribute)
    names = {int(member): member.name.lower() for member in row.enum or ()}
    if value in names:
        return names[int(value)]
    return exact_text(value) if row.bits.is_float else str(value)


def _parse_field(parser: Parser, row: FieldLayout) -> Attribute:
    if row.bits.is_float:
        return FloatAttr(parse_number(parser), f32)
    if row.enum is None or (name := parser.parse_optional_identifier()) is None:
        return _integer(parser.parse_integer())
    members = {member.name.lower(): member for member in row.enum}
    if name not in members:
        parser.raise_error(f"{row.name} = {name}: must be {row.allowed()}")
    return _integer(members[name])


def _constraint(row: FieldLayout, mnemonic: str) -> AttrConstraint:
    if row.bits.is_float:
        return ParamAttrConstraint(FloatAttr, (AnyAttr(), eq(f32)))
    return IntegerAttr.constr(type=eq(i64), value=FieldRange(row, mnemonic))


def _derive(cls: type[Instruction]) -> type[InstructionOp]:
    """The op class of one row of the table."""
    body: dict[str, Any] = {
        "name": f"npu.{cls.mnemonic}",
        "__doc__": cls.__doc__,
        "__module__": __name__,
        **{row.name: prop_def(_constraint(row, cls.mnemonic)) for row in cls.layout()},
    }
    op = irdl_op_definition(type(f"{cls.__name__}Op", (InstructionOp,), body))
    op.INSTRUCTION = cls
    return op


OPS: dict[type[Instruction], type[InstructionOp]] = {cls: _derive(cls) for cls in INSTRUCTIONS.values()}
"""Instruction class -> op class."""

Npu = Dialect("npu", list(OPS.values()))
