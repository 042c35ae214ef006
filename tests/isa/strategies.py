"""Hypothesis strategies derived from the instruction table's layouts."""

from functools import cache

from hypothesis import strategies as st

from isa.encoding import WORD_BYTES, FieldLayout, Instruction
from isa.instructions import INSTRUCTIONS, Halt


def field_values(row: FieldLayout) -> st.SearchStrategy:
    """Every legal value of one field, the bounds often."""
    if row.enum is not None:
        return st.sampled_from(list(row.enum))
    if row.bits.is_float:
        return st.floats(width=32)
    low, high = row.bits.range.start, row.bits.range.stop - 1
    return st.one_of(st.sampled_from([low, high]), st.integers(low, high))


@cache
def instances(cls: type[Instruction]) -> st.SearchStrategy[Instruction]:
    """Instructions of one class, any fields."""
    return st.builds(cls, **{row.name: field_values(row) for row in cls.layout()})


@cache
def instructions() -> st.SearchStrategy[Instruction]:
    """Any instruction."""
    return st.one_of([instances(cls) for cls in INSTRUCTIONS.values()])


@cache
def programs(max_size: int = 8) -> st.SearchStrategy[tuple[Instruction, ...]]:
    """Straight-line programs that end in their only halt; they need not make sense to a machine."""
    body = st.lists(instructions().filter(lambda i: not isinstance(i, Halt)), max_size=max_size)
    return st.builds(lambda first, last: (*first, last), body, instances(Halt))


@cache
def words() -> st.SearchStrategy[int]:
    """128-bit words: random ones, and instructions with some bits flipped."""
    any_word = st.integers(0, (1 << 8 * WORD_BYTES) - 1)
    flips = st.lists(st.integers(0, 8 * WORD_BYTES - 1), max_size=3)
    flipped = st.builds(lambda i, bits: i.word() ^ sum({1 << b for b in bits}), instructions(), flips)
    known = st.builds(lambda w, op: w & ~0xFF | op, any_word, st.sampled_from(sorted(INSTRUCTIONS)))
    return st.one_of(any_word, known, flipped)
