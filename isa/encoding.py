"""One table, many products: an instruction class is its encoder, decoder, assembly and manual.

An instruction is a frozen dataclass. Its field order and widths *are* the encoding, its docstring
*is* its manual entry, and the class is the key of the semantics, cost and energy tables.
A word has 128 bits, little endian: opcode 8 | wait_a 6 | wait_b 6 | signal_a 6 | signal_b 6 | fields.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from functools import cache
from typing import Annotated, ClassVar, Self, get_args, get_type_hints

from isa.errors import EncodingError

WORD_BYTES = 16
OPCODE_BITS = 8


@dataclass(frozen=True)
class Bits:
    """Width and kind of one field; a float field holds the 32 bits of an IEEE-754 binary32."""

    width: int
    signed: bool = False
    is_float: bool = False

    @property
    def range(self) -> range:
        """The legal integer values."""
        half = 1 << (self.width - 1)
        return range(-half, half) if self.signed else range(2 * half)


class Engine(Enum):
    """The engine whose in-order queue takes an instruction."""

    LOAD = "load"
    STORE = "store"
    MMU = "mmu"
    VCU = "vcu"
    DISPATCH = "dispatch"


@dataclass(frozen=True)
class FieldLayout:
    """Where one field lies in the word and how Python sees it."""

    name: str
    bits: Bits
    low: int
    python: type

    @property
    def mask(self) -> int:
        """Ones in the field's width, at bit 0."""
        return (1 << self.bits.width) - 1


INSTRUCTIONS: dict[int, type[Instruction]] = {}


def float_bits(value: float) -> int:
    """The 32 bits of ``value`` as binary32 (rounded to nearest even)."""
    return int.from_bytes(struct.pack("<f", value), "little")


def bits_float(raw: int) -> float:
    """The binary32 whose 32 bits are ``raw``."""
    return float(struct.unpack("<f", raw.to_bytes(4, "little"))[0])


Sem = Annotated[int, Bits(6)]


@dataclass(frozen=True)
class Instruction:
    """Base of every instruction: up to two semaphores waited for at issue, two signalled at completion.

    Semaphore 0 means none. A wait blocks the engine until the count is positive, then decrements it.
    """

    opcode: ClassVar[int]
    engine: ClassVar[Engine]
    mnemonic: ClassVar[str]

    wait_a: Sem = 0
    wait_b: Sem = 0
    signal_a: Sem = 0
    signal_b: Sem = 0

    def __init_subclass__(cls, *, opcode: int, engine: Engine, mnemonic: str) -> None:
        if (taken := INSTRUCTIONS.get(opcode)) is not None and taken.__qualname__ != cls.__qualname__:
            raise EncodingError(f"opcode {opcode:#04x} of {mnemonic} is taken by {taken.mnemonic}")
        cls.opcode, cls.engine, cls.mnemonic = opcode, engine, mnemonic
        INSTRUCTIONS[opcode] = cls

    @classmethod
    @cache
    def layout(cls) -> tuple[FieldLayout, ...]:
        """Every field after the opcode, lowest bits first."""
        hints = get_type_hints(cls, include_extras=True)
        rows: list[FieldLayout] = []
        low = OPCODE_BITS
        for field in fields(cls):
            python, bits = get_args(hints[field.name])
            rows.append(FieldLayout(field.name, bits, low, python))
            low += bits.width
        if low > 8 * WORD_BYTES:
            raise EncodingError(f"{cls.mnemonic} needs {low} bits")
        return tuple(rows)

    def __post_init__(self) -> None:
        for row in self.layout():
            value = getattr(self, row.name)
            if row.bits.is_float:
                # A field holds what the machine holds: the nearest binary32, NaN made canonical.
                object.__setattr__(self, row.name, bits_float(float_bits(value)))
            elif int(value) not in row.bits.range:
                raise EncodingError(f"{self.mnemonic}: {row.name}={value} is outside {row.bits.range}")

    def word(self) -> int:
        """The instruction as a 128-bit integer."""
        word = self.opcode
        for row in self.layout():
            value = getattr(self, row.name)
            raw = float_bits(value) if row.bits.is_float else int(value) & row.mask
            word |= raw << row.low
        return word

    def encode(self) -> bytes:
        """The instruction's 16 bytes."""
        return self.word().to_bytes(WORD_BYTES, "little")

    @classmethod
    def from_word(cls, word: int) -> Self:
        """Inverse of :meth:`word`; raises EncodingError on reserved bits or an unknown enum value."""
        values: dict[str, object] = {}
        used = (1 << OPCODE_BITS) - 1
        for row in cls.layout():
            raw = (word >> row.low) & row.mask
            used |= row.mask << row.low
            values[row.name] = cls._field_value(row, raw)
        if word & ~used:
            raise EncodingError(f"{cls.mnemonic}: reserved bits are set in {word:#034x}")
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def _field_value(cls, row: FieldLayout, raw: int) -> object:
        if row.bits.is_float:
            return bits_float(raw)
        signed = raw - row.mask - 1 if row.bits.signed and raw > row.mask >> 1 else raw
        if issubclass(row.python, IntEnum):
            try:
                return row.python(signed)
            except ValueError:
                raise EncodingError(
                    f"{cls.mnemonic}: {row.name}={signed} is not a {row.python.__name__}"
                ) from None
        return row.python(signed)
