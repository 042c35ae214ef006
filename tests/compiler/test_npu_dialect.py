"""The npu dialect, derived from the instruction table."""

from io import StringIO

import pytest
from hypothesis import given
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, FloatAttr, IntegerAttr, ModuleOp, UnitAttr, f64, i32, i64
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, VerifyException

from compiler.dialects.npu import OPS, Npu, from_op, to_op
from isa.encoding import INSTRUCTIONS
from isa.errors import EncodingError
from isa.instructions import Halt, LoadCopy, MmuRun, Region, VcuConvert, VcuOp
from tests.isa.strategies import instructions

ALL = pytest.mark.parametrize("cls", INSTRUCTIONS.values(), ids=lambda cls: cls.mnemonic)


def parse(text: str) -> ModuleOp:
    context = Context()
    context.load_dialect(Builtin)
    context.load_dialect(Npu)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def text_of(module: ModuleOp, generic: bool = False) -> str:
    out = StringIO()
    Printer(out, print_generic_format=generic).print_op(module)
    return out.getvalue()


def read(text: str):
    (op,) = parse(text).body.block.ops
    return op


def test_there_is_one_op_per_instruction():
    assert set(OPS) == set(INSTRUCTIONS.values())
    assert {op.name for op in Npu.operations} == {f"npu.{cls.mnemonic}" for cls in INSTRUCTIONS.values()}
    assert len(list(Npu.operations)) == len(INSTRUCTIONS)


@ALL
def test_every_field_is_a_property(cls):
    assert set(OPS[cls].get_irdl_definition().properties) == {row.name for row in cls.layout()}
    assert OPS[cls].__doc__ == cls.__doc__


@ALL
def test_defaults_print_as_the_bare_name(cls):
    assert text_of(ModuleOp([to_op(cls())])).split("\n")[1].strip() == f"npu.{cls.mnemonic}"
    assert from_op(read(f"npu.{cls.mnemonic}")) == cls()


@ALL
@pytest.mark.parametrize("generic", [False, True])
def test_every_class_round_trips_through_text(cls, generic):
    extremes = {row.name: list(row.enum)[-1] if row.enum else row.bits.range.start for row in cls.layout()}
    for instruction in (cls(), cls(wait_a=63, signal_b=1), cls(**extremes)):
        module = ModuleOp([to_op(instruction)])
        again = parse(text_of(module, generic))
        assert again.is_structurally_equivalent(module)
        assert from_op(next(iter(again.body.block.ops))) == instruction


@given(instructions())
def test_ops_invert_to_their_instruction_and_verify(instruction):
    op = to_op(instruction)
    op.verify()
    assert from_op(op) == instruction


@given(instructions())
def test_custom_syntax_keeps_every_bit(instruction):
    assert from_op(read(text_of(ModuleOp([to_op(instruction)])))) == instruction


def test_text_reads_as_a_person_would_write_it():
    copy = LoadCopy(region=Region.INPUT, sram=256, wait_b=4)
    assert "npu.load.copy <wait_b = 4, region = input, sram = 256>\n" in text_of(ModuleOp([to_op(copy)]))
    assert from_op(read("npu.vcu.convert <zero = -3, scale = 1.0e-05>")) == VcuConvert(zero=-3, scale=1e-5)
    assert from_op(read("npu.mmu.run <act = 0x10>")) == MmuRun(act=16)


def test_a_program_keeps_its_order():
    program = [LoadCopy(bytes=1), VcuOp(slot=2), Halt()]
    module = parse(text_of(ModuleOp([to_op(i) for i in program])))
    assert [from_op(op) for op in module.body.block.ops] == program


def test_other_attributes_survive():
    op = to_op(Halt())
    op.attributes["last"] = UnitAttr()
    assert "last" in read(text_of(ModuleOp([op]))).attributes


@ALL
def test_verify_rejects_what_the_field_cannot_hold(cls):
    for row in cls.layout():
        op = to_op(cls())
        if row.bits.is_float:
            op.properties[row.name] = FloatAttr(1.0, f64)
            message = "f32"
        else:
            op.properties[row.name] = IntegerAttr(row.bits.range.stop, i64)
            message = f"{cls.mnemonic}: {row.name}={row.bits.range.stop} must be "
            with pytest.raises(EncodingError, match=message):
                from_op(op)
        with pytest.raises(VerifyException, match=message):
            op.verify()


def test_verify_rejects_a_wrong_type():
    op = to_op(MmuRun())
    op.properties["n"] = IntegerAttr(1, i32)
    with pytest.raises(VerifyException, match="i64"):
        op.verify()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("npu.halt <n = 1>", "npu.halt has no field 'n'; its fields are wait_a, wait_b, signal_a, signal_b"),
        ("npu.halt <wait_a = 1, wait_a = 2>", "npu.halt: wait_a is given twice"),
        ("npu.vcu.op <func = ad>", r"func = ad: must be one of copy \(0\), add \(1\)"),
    ],
)
def test_parse_errors_name_the_rule(text, message):
    with pytest.raises(ParseError, match=message):
        read(text)
