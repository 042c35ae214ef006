"""The tile dialect: where (SRAM rings, accumulators) and when (loops) a fused kernel runs. Loops stay loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, StringAttr, i64
from xdsl.ir import (
    Attribute,
    Data,
    Dialect,
    Operation,
    ParametrizedAttribute,
    Region,
    SSAValue,
    TypeAttribute,
)
from xdsl.irdl import (
    IRDLOperation,
    eq,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, NoTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects import kern
from compiler.ir.place import Place, Stripes
from compiler.ir.schedule import KernelSchedule, kernel_schedule, literal
from compiler.ir.tiling import READS
from isa.errors import ScheduleError
from isa.instructions import Region as DramRegion

INT = IntegerAttr.constr(type=eq(i64))
ROLES = (*READS, "weight", "params", "acc", "rows", "inner", "product", "output")
DIMS = ("n", "h", "w", "c", "k")


@irdl_attr_definition
class ScheduleAttr(Data[KernelSchedule]):
    """``#tile.schedule<tile_h = 8, ..., nodes = ["conv", "relu"]>``."""

    name = "tile.schedule"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> KernelSchedule:
        values: dict[str, Any] = {}

        def pair() -> None:
            key = parser.parse_identifier()
            parser.parse_punctuation("=")
            values[key] = _parse_value(parser)

        with parser.in_angle_brackets():
            parser.parse_comma_separated_list(parser.Delimiter.NONE, pair)
        try:
            return kernel_schedule("#tile.schedule", values)
        except ScheduleError as error:
            parser.raise_error(str(error))

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            pairs = list(self.data.said())
            printer.print_list(pairs, lambda pair: printer.print_string(f"{pair[0]} = {literal(pair[1])}"))


def _parse_value(parser: AttrParser) -> Any:
    if (text := parser.parse_optional_str_literal()) is not None:
        return text
    if (flag := parser.parse_optional_boolean()) is not None:
        return flag
    items = parser.parse_optional_comma_separated_list(parser.Delimiter.SQUARE, lambda: _parse_value(parser))
    return parser.parse_integer() if items is None else items


@irdl_attr_definition
class PlaceAttr(Data[Place]):
    """``#tile.place<sram, 4096, [802816, 14336, 256, 1], 1>``: memory, byte offset, byte strides, element bytes."""

    name = "tile.place"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Place:
        with parser.in_angle_brackets():
            memory = parser.parse_identifier()
            parser.parse_punctuation(",")
            offset = parser.parse_integer()
            parser.parse_punctuation(",")
            strides = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
            parser.parse_punctuation(",")
            element = parser.parse_integer()
            stripes = _parse_stripes(parser) if parser.parse_optional_punctuation(",") else None
        if memory != "sram" and memory.upper() not in DramRegion.__members__:
            parser.raise_error(f"unknown memory {memory!r}")
        if len(strides) != 4:
            parser.raise_error(f"a place has 4 strides, got {len(strides)}")
        region = None if memory == "sram" else DramRegion[memory.upper()]
        return Place(region, offset, (strides[0], strides[1], strides[2], strides[3]), element, stripes)

    def print_parameter(self, printer: Printer) -> None:
        place = self.data
        memory = "sram" if place.region is None else place.region.name.lower()
        with printer.in_angle_brackets():
            printer.print_string(f"{memory}, {place.offset}, {list(place.strides)}, {place.element}")
            if (held := place.stripes) is not None:
                printer.print_string(f", axis {held.axis}, slots {held.slots} x {held.slot_bytes}, ")
                printer.print_string(f"row {held.row_bytes}, rows ")
                printer.print_string(f"{list(held.first_rows)}, fills {list(held.fills)}")


def _parse_stripes(parser: AttrParser) -> Stripes:
    parser.parse_keyword("axis")
    axis = parser.parse_integer()
    parser.parse_punctuation(",")
    parser.parse_keyword("slots")
    slots = parser.parse_integer()
    parser.parse_keyword("x")
    size = parser.parse_integer()
    parser.parse_punctuation(",")
    parser.parse_keyword("row")
    row = parser.parse_integer()
    parser.parse_punctuation(",")
    parser.parse_keyword("rows")
    rows = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
    parser.parse_punctuation(",")
    parser.parse_keyword("fills")
    fills = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
    return Stripes(axis, slots, size, row, tuple(rows), tuple(fills))


@irdl_attr_definition
class ChannelType(ParametrizedAttribute, TypeAttribute):
    """A ring of SRAM or accumulator slots."""

    name = "tile.channel"


@irdl_op_definition
class ChannelOp(IRDLOperation):
    """A ring of ``slots`` slots of ``slot_bytes`` bytes at ``address`` (once planned) for one role of the kernel."""

    name = "tile.ring"
    role = prop_def(StringAttr)
    operand = prop_def(INT)
    slots = prop_def(INT)
    slot_bytes = prop_def(INT)
    address = opt_prop_def(INT)
    channel = result_def(ChannelType)
    assembly_format = (
        "$role $operand `slots` $slots `x` $slot_bytes (`at` $address^)? attr-dict `:` type($channel)"
    )

    def __init__(self, role: str, operand: int, slots: int, slot_bytes: int, address: int | None = None):
        properties: dict[str, Attribute | None] = {
            "role": StringAttr(role),
            "operand": IntegerAttr(operand, i64),
            "slots": IntegerAttr(slots, i64),
            "slot_bytes": IntegerAttr(slot_bytes, i64),
            "address": None if address is None else IntegerAttr(address, i64),
        }
        super().__init__(result_types=[ChannelType()], properties=properties)

    def verify_(self) -> None:
        if self.role.data not in ROLES:
            raise VerifyException(f"role {self.role.data!r} is not one of {', '.join(ROLES)}")
        if self.slots.value.data < 1 or self.slot_bytes.value.data < 0:
            raise VerifyException("a ring has at least one slot, and slots of 0 or more bytes")


@irdl_op_definition
class ForOp(IRDLOperation):
    """Walk dimension ``dim`` of the output (or ``k``, the reduction) from 0 to ``size`` by ``step``."""

    name = "tile.for"
    dim = prop_def(StringAttr)
    size = prop_def(INT)
    step = prop_def(INT)
    body = region_def("single_block")
    traits = traits_def(NoTerminator())
    assembly_format = "$dim `to` $size `step` $step $body attr-dict"

    def __init__(self, dim: str, size: int, step: int, body: Region):
        super().__init__(
            properties={"dim": StringAttr(dim), "size": IntegerAttr(size, i64), "step": IntegerAttr(step, i64)},
            regions=[body],
        )

    def verify_(self) -> None:
        if self.dim.data not in DIMS:
            raise VerifyException(f"dim {self.dim.data!r} is not one of {', '.join(DIMS)}")
        if self.step.value.data < 1 or self.size.value.data < 1:
            raise VerifyException("a loop has a size and a step of at least 1")


class StepOp(IRDLOperation):
    """Base of the ops that happen once per tile; they name the rings that they use."""

    rings = var_operand_def(ChannelType)
    assembly_format: ClassVar = "($rings^ `:` type($rings))? attr-dict"

    def __init__(self, rings: Sequence[SSAValue | Operation] = ()):
        super().__init__(operands=[list(rings)])


@irdl_op_definition
class LoadOp(IRDLOperation):
    """Bring the tile's box of the ring's operand (or block of weights, parameters) into a slot, unless one holds it."""

    name = "tile.load"
    ring = operand_def(ChannelType)
    assembly_format = "$ring attr-dict `:` type($ring)"

    def __init__(self, ring: SSAValue | Operation):
        super().__init__(operands=[ring])


@irdl_op_definition
class MmaOp(StepOp):
    """Accumulate one reduction chunk of the tile on the MMU."""

    name = "tile.mma"


@irdl_op_definition
class VectorOp(StepOp):
    """Run the kernel's row stages and vector program on the tile: to the output, or the inner ring if more follows."""

    name = "tile.vector"


@irdl_op_definition
class PoolOp(StepOp):
    """Run the trailing pool and its program from the inner ring to the output."""

    name = "tile.pool"


@irdl_op_definition
class ProductOp(StepOp):
    """Multiply what the inner ring holds by the other factor of the trailing product, on the MMU."""

    name = "tile.product"


@irdl_op_definition
class EpilogueOp(StepOp):
    """Run the program behind the trailing product, from its accumulators to the output."""

    name = "tile.epilogue"


@irdl_op_definition
class CopyOp(StepOp):
    """Move elements by the strides of a copy kernel."""

    name = "tile.copy"


@irdl_op_definition
class StoreOp(IRDLOperation):
    """Write the tile's output box from its slot to DRAM."""

    name = "tile.store"
    ring = operand_def(ChannelType)
    assembly_format = "$ring attr-dict `:` type($ring)"

    def __init__(self, ring: SSAValue | Operation):
        super().__init__(operands=[ring])


@irdl_op_definition
class KernelOp(kern.FusedOp):
    """A fused kernel with its schedule: ``body`` says what is computed, ``steps`` where and when.

    ``places`` holds the place of every operand of the kernel's spec, then of the result, once memory is planned.
    """

    name = "tile.kernel"
    schedule = prop_def(ScheduleAttr)
    places = opt_prop_def(ArrayAttr[PlaceAttr])
    steps = region_def("single_block")
    traits = traits_def(IsolatedFromAbove(), Pure(), NoTerminator())

    def __init__(
        self,
        kernel: str,
        inputs: Sequence[SSAValue],
        body: Region,
        output: Attribute,
        schedule: KernelSchedule,
        steps: Region,
        places: Sequence[Place] | None = None,
    ):
        IRDLOperation.__init__(
            self,
            operands=[list(inputs)],
            result_types=[output],
            properties={
                "kernel": StringAttr(kernel),
                "schedule": ScheduleAttr(schedule),
                "places": None if places is None else ArrayAttr([PlaceAttr(p) for p in places]),
            },
            regions=[steps, body],
        )

    def verify_(self) -> None:
        super().verify_()
        for op in self.steps.walk():
            if not isinstance(op, STEP_OPS):
                raise VerifyException(f"{op.name} cannot stand among the steps of a kernel")

    def print(self, printer: Printer) -> None:
        super().print(printer)
        printer.print_string(" schedule ")
        self.schedule.print_parameter(printer)
        if self.places is not None:
            printer.print_string(" places ")
            printer.print_attribute(self.places)
        printer.print_string(" steps ")
        printer.print_region(self.steps)

    @classmethod
    def parse(cls, parser: Parser) -> KernelOp:
        base = kern.KernelOp.parse(parser)
        parser.parse_keyword("schedule")
        schedule = ScheduleAttr.parse_parameter(parser)
        places: list[Place] | None = None
        if parser.parse_optional_keyword("places"):
            attribute = parser.parse_attribute()
            entries = cast("ArrayAttr[Attribute]", attribute).data if isinstance(attribute, ArrayAttr) else None
            places = [p.data for p in entries or () if isinstance(p, PlaceAttr)]
            if entries is None or len(places) != len(entries):
                parser.raise_error("places is an array of #tile.place")
        parser.parse_keyword("steps")
        steps = parser.parse_region()
        op = cls(base.kernel.data, base.inputs, base.detach_region(0), base.output.type, schedule, steps, places)
        op.attributes |= base.attributes
        base.erase()
        return op


STEP_OPS = (ChannelOp, ForOp, LoadOp, MmaOp, VectorOp, PoolOp, ProductOp, EpilogueOp, CopyOp, StoreOp)

Tile = Dialect("tile", [KernelOp, *STEP_OPS], [ScheduleAttr, PlaceAttr, ChannelType])
