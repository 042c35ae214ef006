"""Words and instructions."""

import copy
import math
import pickle
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isa.encoding import (
    CANONICAL_NAN_BITS,
    INSTRUCTIONS,
    SEMAPHORE_FIELDS,
    WORD_BYTES,
    Instruction,
    bits_float,
    decode_word,
    float_bits,
)
from isa.errors import EncodingError
from isa.instructions import Func, Halt, LoadCopy, MmuInput, MmuRun, Operand, Region, VcuConvert, VcuOp
from tests.isa.strategies import instructions, words

ALL = pytest.mark.parametrize("cls", INSTRUCTIONS.values(), ids=lambda cls: cls.mnemonic)


def golden_word(instruction: Instruction) -> int:
    """An encoder of its own: concatenates bit strings, highest field first."""
    bits = ""
    for row in instruction.layout():
        value = getattr(instruction, row.name)
        if row.bits.is_float:
            value = struct.unpack("<I", struct.pack("<f", value))[0] if value == value else CANONICAL_NAN_BITS
        bits = format(int(value) % 2**row.bits.width, f"0{row.bits.width}b") + bits
    return int(bits + format(instruction.opcode, "08b"), 2)


@given(instructions())
def test_word_equals_the_concatenated_fields(instruction):
    assert instruction.word() == golden_word(instruction)


@given(instructions())
def test_from_word_inverts_word(instruction):
    assert decode_word(instruction.word()) == instruction


@given(words())
@example(VcuOp().word() | CANONICAL_NAN_BITS + 1 << 58)
def test_every_word_is_rejected_or_encodes_to_itself(word):
    try:
        instruction = decode_word(word)
    except EncodingError:
        return
    assert instruction.word() == word


@ALL
def test_every_single_bit_of_a_word_is_rejected_or_kept(cls):
    for bit in range(8 * WORD_BYTES):
        word = cls().word() ^ 1 << bit
        try:
            assert decode_word(word).word() == word
        except EncodingError:
            continue


@ALL
def test_fields_lie_side_by_side_after_the_opcode(cls):
    low = 8
    for row in cls.layout():
        assert row.low == low
        low += row.bits.width
    assert low <= 128
    assert tuple(row.name for row in cls.layout()[:4]) == SEMAPHORE_FIELDS


@ALL
def test_every_instruction_is_documented_with_its_defaults_legal(cls):
    assert cls.__doc__
    assert not cls.__doc__.startswith(cls.__name__ + "(")
    assert decode_word(cls().word()) == cls()


@ALL
def test_bounds_of_every_integer_field_are_checked(cls):
    for row in cls.layout():
        if row.enum is not None or row.bits.is_float:
            continue
        for good in (row.bits.range.start, row.bits.range.stop - 1):
            assert getattr(cls(**{row.name: good}), row.name) == good
        for bad in (row.bits.range.start - 1, row.bits.range.stop):
            with pytest.raises(EncodingError, match=rf"{row.name}={bad} must be an integer in "):
                cls(**{row.name: bad})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"act": "far"}, "mmu.run: act='far' must be an integer in 0..16777215"),
        ({"act": 1.5}, r"mmu.run: act=1.5 must be an integer"),
        ({"act": None}, "mmu.run: act=None must be an integer"),
        ({"mode": 9}, r"mmu.run: mode=9 must be one of w8a8 \(0\), w4a8 \(1\)"),
    ],
)
def test_values_of_a_wrong_kind_name_field_and_rule(kwargs, message):
    with pytest.raises(EncodingError, match=message):
        MmuRun(**kwargs)


@pytest.mark.parametrize("value", [1e39, "one", None])
def test_float_fields_hold_binary32_only(value):
    with pytest.raises(EncodingError, match=r"vcu.convert: scale=.* must be a number in binary32's range"):
        VcuConvert(scale=value)


def test_integers_of_numpy_and_bools_become_plain_integers():
    run = MmuRun(act=np.int64(5), n=np.uint8(7), accumulate=True)
    assert [type(v) for v in (run.act, run.n, run.accumulate)] == [int, int, int]
    assert run.word() == golden_word(run)


def test_enum_fields_take_members_or_their_numbers():
    assert LoadCopy(region=3).region is Region.OUTPUT


def test_float_fields_round_to_binary32():
    assert VcuConvert(scale=0.1).scale == float(np.float32(0.1))


def test_nan_payloads_are_rejected_and_the_canonical_one_kept():
    op = VcuOp(immediate=math.nan)
    assert op == VcuOp(immediate=bits_float(0xFFC12345))
    (row,) = [row for row in op.layout() if row.bits.is_float]
    assert decode_word(op.word()) == op
    with pytest.raises(EncodingError, match="immediate is NaN 0x7fc00001, must be 0x7fc00000"):
        decode_word(op.word() + (1 << row.low))


def test_zeros_of_both_signs_are_different_instructions():
    assert VcuOp(immediate=0.0) != VcuOp(immediate=-0.0)
    assert decode_word(VcuOp(immediate=-0.0).word()) == VcuOp(immediate=-0.0)


@given(st.integers(0, 2**32 - 1))
def test_every_pattern_of_32_bits_is_a_float_or_a_nan(raw):
    value = bits_float(raw)
    assert float_bits(value) == (raw if value == value else CANONICAL_NAN_BITS)


def test_rejections_name_their_rule():
    with pytest.raises(EncodingError, match="unknown opcode 0xff"):
        decode_word(0xFF)
    with pytest.raises(EncodingError, match="halt: reserved bits are set"):
        decode_word(Halt().word() | 1 << 127)
    with pytest.raises(EncodingError, match="halt: opcode is 0x10, must be 0x01"):
        Halt.from_word(LoadCopy().word())
    with pytest.raises(EncodingError, match=r"load.copy: region=7 must be one of code \(0\)"):
        decode_word(LoadCopy().word() | 7 << 32)


def test_negative_and_oversized_integers_are_no_words():
    for word in (-1, 1 << 128 | Halt().word()):
        with pytest.raises(EncodingError):
            decode_word(word)


def test_an_opcode_can_be_taken_only_once():
    with pytest.raises(EncodingError, match="opcode 0x01 of again is taken by halt"):
        type("Again", (Instruction,), {}, opcode=1, engine=Halt.engine, mnemonic="again")


@given(instructions(), st.tuples(*[st.none() | st.integers(0, 63)] * 4))
def test_with_sync_replaces_only_the_given_semaphores(instruction, values):
    changed = instruction.with_sync(**dict(zip(SEMAPHORE_FIELDS, values, strict=True)))
    for row in instruction.layout():
        given_value = dict(zip(SEMAPHORE_FIELDS, values, strict=True)).get(row.name)
        old = getattr(instruction, row.name)
        new = getattr(changed, row.name)
        assert new == (old if given_value is None else given_value) or (new != new and old != old)
    assert decode_word(changed.word()) == changed


@pytest.mark.parametrize("bad", [64, -1, "x"])
def test_with_sync_checks_its_values(bad):
    with pytest.raises(EncodingError, match=r"halt: signal_a=.* must be an integer in 0..63"):
        Halt().with_sync(signal_a=bad)


@given(instructions())
def test_copies_and_pickles_are_equal_with_equal_hash(instruction):
    for other in (copy.deepcopy(instruction), pickle.loads(pickle.dumps(instruction))):
        assert other == instruction
        assert hash(other) == hash(instruction)


def test_instructions_of_different_classes_differ():
    assert MmuInput() != MmuRun()
    assert VcuOp(func=Func.ADD, b_kind=Operand.IMMEDIATE) != VcuOp(func=Func.ADD)
