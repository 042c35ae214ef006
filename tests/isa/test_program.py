"""Programs as bytes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa import program
from isa.encoding import WORD_BYTES
from isa.errors import EncodingError
from isa.instructions import Halt, LoadCopy, VcuConvert
from tests.isa.strategies import instructions, programs, words

SCALE = next(row for row in VcuConvert.layout() if row.name == "scale")


@given(st.lists(instructions(), max_size=8))
def test_decode_inverts_encode(instructions):
    code = program.encode(instructions)
    assert len(code) == WORD_BYTES * len(instructions)
    assert program.decode(code) == tuple(instructions)


@given(programs())
def test_whole_programs_verify(instructions):
    program.verify(program.encode(instructions))


@given(st.lists(words(), max_size=4))
def test_verify_finds_what_decode_finds(values):
    code = b"".join(w.to_bytes(WORD_BYTES, "little") for w in values) + Halt().to_bytes()
    outcomes: list[str] = []
    for check in (program.decode, program.verify):
        try:
            check(code)
        except EncodingError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("accepted")
    assert outcomes[0] == outcomes[1] or (outcomes[0] == "accepted" and "halt is instr" in outcomes[1])


def test_a_bad_word_is_named_by_its_byte_offset():
    code = program.encode([LoadCopy(), Halt()]) + b"\xff" * WORD_BYTES
    with pytest.raises(EncodingError, match=r"byte offset 0x20 \(instruction 2\): unknown opcode 0xff"):
        program.decode(code)


@pytest.mark.parametrize("length", [1, 15, 17, 31])
def test_code_that_is_cut_off_is_an_error(length):
    code = program.encode([LoadCopy(), Halt()])[:length]
    with pytest.raises(EncodingError, match=f"cut off: {length} bytes, must be a multiple of 16"):
        program.decode(code)


def test_no_code_is_an_empty_program_but_not_a_whole_one():
    assert program.decode(b"") == ()
    with pytest.raises(EncodingError, match="no halt"):
        program.verify(b"")


def test_halt_must_be_the_last_instruction():
    with pytest.raises(EncodingError, match="byte offset 0x10: halt is instruction 1 of 3, must be the last"):
        program.verify(program.encode([LoadCopy(), Halt(), LoadCopy()]))


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FC00001, 0xFFC00000])
def test_no_other_nan_than_the_canonical_one(bits):
    word = VcuConvert(scale=math.inf).word() & ~(0xFFFFFFFF << SCALE.low) | bits << SCALE.low
    code = word.to_bytes(WORD_BYTES, "little") + Halt().to_bytes()
    for check in (program.decode, program.verify):
        with pytest.raises(EncodingError, match=f"scale is NaN {bits:#x}, must be 0x7fc00000"):
            check(code)
