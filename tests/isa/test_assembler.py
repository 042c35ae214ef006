"""Assembly text."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isa.assembler import assemble, describe, disassemble, disassemble_binary
from isa.encoding import INSTRUCTIONS, bits_float
from isa.errors import AssemblyError, QuarticError
from isa.instructions import Func, Halt, LoadCopy, MmuRun, Operand, Region, VcuConvert, VcuOp
from isa.sections import Location
from tests.isa.binaries import sample
from tests.isa.strategies import instructions, programs


def rejects(message: str):
    return pytest.raises(AssemblyError, match=re.escape(message))


@given(st.lists(instructions(), max_size=6), st.booleans())
def test_assemble_inverts_disassemble(program, offsets):
    assert assemble(disassemble(program, offsets=offsets)) == tuple(program)


@given(programs())
def test_printing_what_was_read_gives_the_same_text(program):
    text = disassemble(program)
    assert disassemble(assemble(text)) == text


@given(st.integers(0, 2**32 - 1))
@example(0x7FC00000)
@example(0x00000001)
@example(0x80000000)
def test_floats_read_back_to_the_same_bits(raw):
    op = VcuOp(immediate=bits_float(raw))
    assert assemble(disassemble([op])) == (op,)


@pytest.mark.parametrize("cls", INSTRUCTIONS.values(), ids=lambda cls: cls.mnemonic)
def test_defaults_are_left_out(cls):
    assert disassemble([cls()]) == f"{cls.mnemonic}\n"
    assert assemble(cls.mnemonic) == (cls(),)


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (
            MmuRun(wait_a=3, wait_b=4, signal_a=5, act=0x100, weight=0x2000, n=64, accumulate=1),
            "mmu.run act=0x100, weight=0x2000, n=64, accumulate=1 wait=3,4 signal=5",
        ),
        (LoadCopy(region=Region.INPUT, sram=8, signal_b=2), "load.copy region=input, sram=8 signal=0,2"),
        (VcuOp(func=Func.MUL, b_kind=Operand.IMMEDIATE, immediate=0.1), None),
        (VcuConvert(scale=math.nan, zero=-128), "vcu.convert zero=-128, scale=nan"),
        (VcuConvert(scale=-0.0), "vcu.convert scale=-0.0"),
        (VcuConvert(scale=-math.inf), "vcu.convert scale=-inf"),
        (Halt(), "halt"),
    ],
)
def test_text_reads_as_a_person_would_write_it(instruction, text):
    text = text or "vcu.op func=mul, b_kind=immediate, immediate=0.1"
    assert disassemble([instruction]) == text + "\n"
    assert assemble(text) == (instruction,)


def test_blanks_commas_and_comments_are_free():
    text = "\n  # a comment\n\tmmu.run  act = 16 ,n=0x4, wait = 3 , 4 signal=5 ; more\r\nhalt\n; end"
    assert assemble(text) == (MmuRun(act=16, n=4, wait_a=3, wait_b=4, signal_a=5), Halt())
    assert assemble("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("halt\nmmu.rum", "line 2: unknown instruction 'mmu.rum'; did you mean 'mmu.run'?"),
        ("%", "line 1: unknown instruction '%'"),
        ("mmu.run actt=1", "line 1: mmu.run has no field 'actt'; did you mean 'act'?; its fields are act, weight,"),
        ("mmu.run wait_a=1", "mmu.run has no field 'wait_a'; did you mean 'wait'?"),
        ("mmu.run n=16384", "line 1: mmu.run: n=16384 must be an integer in 0..16383"),
        ("mmu.run n=1.5", "mmu.run: n=1.5 must be an integer in 0..16383"),
        ("mmu.run n=", "mmu.run: n has no value; write n=..."),
        ("mmu.run n=1 n=2", "mmu.run: n is given twice"),
        ("mmu.run n", "mmu.run: 'n' is not of the form name=value"),
        ("mmu.run n=1 2", "mmu.run: '2' is not of the form name=value"),
        ("mmu.run wait=1,2,3", "mmu.run: wait takes at most 2 semaphores"),
        ("mmu.run wait=64", "mmu.run: wait_a=64 must be an integer in 0..63"),
        ("vcu.op func=ad", "vcu.op: func=ad is unknown; did you mean 'add'? (it is one of copy, add, sub"),
        ("vcu.op immediate=big", "vcu.op: immediate=big must be a number in binary32's range"),
        ("vcu.op immediate=1e39", "vcu.op: immediate=1e+39 must be a number in binary32's range"),
        ("vcu.op immediate=-1e400", "vcu.op: immediate=-1e400 must be a number in binary32's range"),
    ],
)
def test_errors_name_line_rule_and_remedy(text, message):
    with rejects(message):
        assemble(text)


@pytest.mark.slow
@given(st.text(max_size=40), st.sampled_from(["", "mmu.run ", "vcu.op immediate=", "halt wait="]))
def test_any_text_is_a_program_or_an_assembly_error(text, start):
    try:
        program = assemble(start + text)
    except AssemblyError:
        return
    assert assemble(disassemble(program)) == program


def test_offsets_are_comments():
    assert disassemble([Halt(), Halt()], offsets=True) == "halt  # 0x0\nhalt  # 0x10\n"


def test_a_binary_prints_where_its_instructions_come_from():
    text = disassemble_binary(sample())
    assert text.splitlines()[0] == "# conv2d_1 | features.0 | model.py:12"
    assert text.splitlines()[4:] == ["# overhead:halt", "halt"]
    assert assemble(text) == sample().instructions


def test_a_location_with_line_breaks_stays_one_comment():
    assert describe(Location("", "a\nhalt", "b", "")) == "a halt | b"
    assert issubclass(AssemblyError, QuarticError)
