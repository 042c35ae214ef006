"""Programs: sequences of instructions and the bytes that hold them, 16 little-endian bytes each."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isa.encoding import (
    CANONICAL_NAN_BITS,
    INSTRUCTIONS,
    OPCODE_BITS,
    WORD_BYTES,
    FieldLayout,
    Instruction,
    decode_word,
)
from isa.errors import EncodingError
from isa.instructions import Halt

_HALF_BITS = 64
_OPCODES = 1 << OPCODE_BITS
_EXPONENT_BITS = 0x7F800000

Words = NDArray[np.uint64]
"""Shape (instructions, 2): low and high half of every word."""
Program = Sequence[Instruction] | bytes
"""A program as instructions, or as the bytes that hold them."""


def encode(instructions: Iterable[Instruction]) -> bytes:
    """The program's bytes."""
    return b"".join([i.word().to_bytes(WORD_BYTES, "little") for i in instructions])


def decode(code: bytes) -> tuple[Instruction, ...]:
    """Inverse of :func:`encode`. Raises EncodingError, which names the byte offset.

    Equal words give one shared (immutable) instruction.
    """
    _check_length(code)
    known: dict[bytes, Instruction] = {}
    program: list[Instruction] = []
    for (raw,) in struct.iter_unpack(f"{WORD_BYTES}s", code):
        if (instruction := known.get(raw)) is None:
            instruction = known[raw] = _decode_at(raw, len(program))
        program.append(instruction)
    return tuple(program)


def as_words(program: Program) -> Words:
    """The words of ``program``; bytes are not copied, nor checked beyond their length (:func:`verify` does)."""
    code = program if isinstance(program, bytes) else encode(program)
    _check_length(code)
    return np.frombuffer(code, dtype="<u8").reshape(-1, 2)


def opcodes(words: Words) -> NDArray[np.int64]:
    """The opcode of every word."""
    return (words[:, 0] & np.uint64(_OPCODES - 1)).astype(np.int64)


def column(words: Words, kind: type[Instruction], name: str) -> NDArray[np.int64]:
    """The raw bits of field ``name`` of every word, all of class ``kind``."""
    (row,) = (row for row in kind.layout() if row.name == name)
    return _extract(words, row).astype(np.int64)


def verify(code: bytes) -> None:
    """Raise EncodingError unless ``code`` decodes and holds exactly one ``halt``, its last word.

    Builds no instruction for legal words, so it costs a small part of :func:`decode`.
    """
    _check_length(code)
    words = np.frombuffer(code, dtype="<u8").reshape(-1, 2)
    if (bad := np.flatnonzero(_illegal(words))).size:
        index = int(bad[0])
        _decode_at(code[index * WORD_BYTES : (index + 1) * WORD_BYTES], index)
        raise AssertionError(f"verify and decode disagree about instruction {index}")
    halts = np.flatnonzero(words[:, 0] & np.uint64(_OPCODES - 1) == Halt.opcode)
    if halts.size == 0:
        raise EncodingError("code has no halt; the last instruction must be halt")
    if (first := int(halts[0])) != len(words) - 1:
        raise EncodingError(
            f"byte offset {first * WORD_BYTES:#x}: halt is instruction {first} of {len(words)}, must be the last"
        )


def _check_length(code: bytes) -> None:
    if extra := len(code) % WORD_BYTES:
        raise EncodingError(
            f"byte offset {len(code) - extra:#x}: code is cut off: "
            f"{len(code)} bytes, must be a multiple of {WORD_BYTES}"
        )


def _decode_at(raw: bytes, index: int) -> Instruction:
    try:
        return decode_word(int.from_bytes(raw, "little"))
    except EncodingError as error:
        offset = index * WORD_BYTES
        raise EncodingError(f"byte offset {offset:#x} (instruction {index}): {error}") from None


@cache
def _used_masks() -> tuple[Words, NDArray[np.bool_]]:
    """Per opcode: the bits that its words may set, and whether the opcode exists."""
    used = np.zeros((_OPCODES, 2), np.uint64)
    exists = np.zeros(_OPCODES, np.bool_)
    for opcode, cls in INSTRUCTIONS.items():
        used[opcode] = [cls.used_bits() & (1 << _HALF_BITS) - 1, cls.used_bits() >> _HALF_BITS]
        exists[opcode] = True
    return used, exists


def _illegal(words: Words) -> NDArray[np.bool_]:
    """Which words are no instruction."""
    used, exists = _used_masks()
    opcodes = words[:, 0] & np.uint64(_OPCODES - 1)
    illegal = ~exists[opcodes] | ((words & ~used[opcodes]) != 0).any(axis=1)
    for opcode in np.unique(opcodes[~illegal]).tolist():
        for row in INSTRUCTIONS[opcode].layout():
            if row.enum is not None or row.bits.is_float:
                rows = np.flatnonzero(opcodes == opcode)
                illegal[rows] |= ~_legal_values(row, _extract(words[rows], row))
    return illegal


def _extract(words: Words, row: FieldLayout) -> NDArray[np.uint64]:
    """The raw bits of one field of every word; fields may straddle the halves."""
    if row.low >= _HALF_BITS:
        raw = words[:, 1] >> np.uint64(row.low - _HALF_BITS)
    else:
        raw = words[:, 0] >> np.uint64(row.low)
        if row.low + row.bits.width > _HALF_BITS:
            raw = raw | words[:, 1] << np.uint64(_HALF_BITS - row.low)
    return raw & np.uint64(row.mask)


def _legal_values(row: FieldLayout, raw: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if row.enum is not None:
        legal = np.zeros(row.mask + 1, np.bool_)
        legal[[member.value & row.mask for member in row.enum]] = True
        return legal[raw]
    magnitude = raw & np.uint64(0x7FFFFFFF)
    return (magnitude <= _EXPONENT_BITS) | (raw == CANONICAL_NAN_BITS)
