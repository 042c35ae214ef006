"""One table, many products: an instruction class is its encoder, decoder, assembly and manual.

An instruction is a frozen dataclass. Its field order and widths *are* the encoding, its docstring
*is* its manual entry, and the class is the key of the semantics, cost and energy tables.
A word has 128 bits, little endian: opcode 8 | wait_a 6 | wait_b 6 | signal_a 6 | signal_b 6 | fields.
Every word either is rejected or re-encodes to itself: unused bits are zero, enum fields hold members, NaN is canonical.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from functools import cache
from typing import Annotated, Any, ClassVar, NoReturn, Self, cast, get_args, get_type_hints

from isa.errors import EncodingError

ISA_VERSION = 1
"""Raised by every change of the table that changes what existing words mean."""
WORD_BYTES = 16
OPCODE_BITS = 8
SEMAPHORE_FIELDS = ("wait_a", "wait_b", "signal_a", "signal_b")
CANONICAL_NAN_BITS = 0x7FC00000
NAN = math.nan
"""The one NaN that fields hold: a single object, so that equal instructions compare equal."""


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

    @property
    def enum(self) -> type[IntEnum] | None:
        """The field's enumeration, if it has one."""
        return self.python if issubclass(self.python, IntEnum) else None

    def checked(self, value: object, mnemonic: str) -> int | float:
        """``value`` as the field holds it; raises EncodingError if it does not fit."""
        try:
            if self.bits.is_float:
                return bits_float(float_bits(cast(float, value)))
            number = operator.index(cast(int, value))
            if number not in self.bits.range:
                raise ValueError
            return self.python(number)
        except (TypeError, ValueError, OverflowError, struct.error):
            rule = f"must be {self.allowed()}"
            raise EncodingError(f"{mnemonic}: {self.name}={value!r} {rule}") from None

    def allowed(self) -> str:
        """The legal values in words, for messages and the manual."""
        if self.bits.is_float:
            return "a number in binary32's range"
        if self.enum is not None:
            return "one of " + ", ".join(f"{m.name.lower()} ({m.value})" for m in self.enum)
        return f"an integer in {self.bits.range.start}..{self.bits.range.stop - 1}"


INSTRUCTIONS: dict[int, type[Instruction]] = {}


def float_bits(value: float) -> int:
    """The 32 bits of ``value`` as binary32 (rounded to nearest even; every NaN is the canonical one).

    Raises OverflowError for a finite value beyond the range of binary32.
    """
    if value != value:
        return CANONICAL_NAN_BITS
    return int.from_bytes(struct.pack("<f", value), "little")


def bits_float(raw: int) -> float:
    """The binary32 whose 32 bits are ``raw``; a NaN is :data:`NAN` whatever its payload."""
    value: float = struct.unpack("<f", raw.to_bytes(4, "little"))[0]
    return value if value == value else NAN


Sem = Annotated[int, Bits(6)]


@dataclass(frozen=True)
class Instruction:
    """Base of every instruction: up to two semaphores waited for at issue, two signalled at completion.

    Semaphore 0 means none. A wait blocks the engine until the count is positive, then decrements it.
    Construction checks every field and raises EncodingError. Instructions are equal when their words are.
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

    @classmethod
    @cache
    def used_bits(cls) -> int:
        """Ones where the class's words hold the opcode or a field."""
        return sum((row.mask << row.low for row in cls.layout()), (1 << OPCODE_BITS) - 1)

    # The next three are replaced per class, on first use, by straight-line code (see _specialise):
    # a network has 10^5 instructions, and a loop over the layout costs 5 times as much.

    def __post_init__(self) -> None:
        _specialise(type(self))
        self.__post_init__()

    def word(self) -> int:
        """The instruction as a 128-bit integer."""
        raise NotImplementedError

    @classmethod
    def from_word(cls, word: int) -> Self:
        """Inverse of :meth:`word`; raises EncodingError for every integer that :meth:`word` cannot give."""
        _specialise(cls)
        return cls.from_word(word)

    def to_bytes(self) -> bytes:
        """The instruction's 16 bytes."""
        return self.word().to_bytes(WORD_BYTES, "little")

    def with_sync(
        self,
        *,
        wait_a: int | None = None,
        wait_b: int | None = None,
        signal_a: int | None = None,
        signal_b: int | None = None,
    ) -> Self:
        """A copy with these semaphore fields replaced; None keeps a field."""
        values = self.__dict__.copy()
        given = zip(SEMAPHORE_FIELDS, (wait_a, wait_b, signal_a, signal_b), strict=True)
        for row, (name, value) in zip(self.layout(), given, strict=False):
            if value is not None:
                in_range = type(value) is int and 0 <= value <= row.mask
                values[name] = value if in_range else row.checked(value, self.mnemonic)
        copy = object.__new__(type(self))
        object.__setattr__(copy, "__dict__", values)
        return copy


def decode_word(word: int) -> Instruction:
    """The instruction whose 128-bit integer is ``word``. Raises EncodingError."""
    if (cls := INSTRUCTIONS.get(word & 0xFF)) is None:
        raise EncodingError(f"unknown opcode {word & 0xFF:#04x} in {word:#034x}")
    return cls.from_word(word)


def _specialise(cls: type[Instruction]) -> None:
    """Write and install the class's own ``__post_init__``, ``word``, ``from_word``, equality and hash."""
    rows = cls.layout()
    names: dict[str, Any] = {
        "cls": cls,
        "rows": {row.name: row for row in rows},
        "enums": {row.name: {m.value & row.mask: m for m in row.enum} for row in rows if row.enum},
        "set_": object.__setattr__,
        "new": object.__new__,
        "float_bits": float_bits,
        "bits_float": bits_float,
        "reject": _reject,
    }
    source = [
        *_function("__post_init__(self)", (line for row in rows for line in _check_source(row))),
        *_function("word(self)", [f"return {cls.opcode} | " + " | ".join(map(_pack_source, rows))]),
        *_function(
            "from_word(word)",
            [
                f"if word & {~cls.used_bits()} or word & 0xFF != {cls.opcode}: reject(cls, word)",
                "try:",
                f"    values = {{{', '.join(f'{row.name!r}: {_unpack_source(row)}' for row in rows)}}}",
                "except KeyError: reject(cls, word)",
                *(_canonical_source(row) for row in rows if row.bits.is_float),
                "instruction = new(cls)",
                "set_(instruction, '__dict__', values)",
                "return instruction",
            ],
        ),
        *_function("__eq__(self, other)", ["return type(other) is cls and self.word() == other.word()"]),
        *_function("__hash__(self)", ["return hash(self.word())"]),
    ]
    exec("\n".join(source), names)
    for name in ("__post_init__", "word", "__eq__", "__hash__"):
        setattr(cls, name, names[name])
    setattr(cls, "from_word", staticmethod(names["from_word"]))  # noqa: B010


def _function(signature: str, body: Iterable[str]) -> list[str]:
    return [f"def {signature}:", *(f"    {line}" for line in body)]


def _check_source(row: FieldLayout) -> list[str]:
    value = f"self.{row.name}"
    if row.enum is not None:
        ok = f"type({value}) is rows[{row.name!r}].python"
    elif row.bits.is_float:
        ok = "False"  # rounding to binary32 is the check
    else:
        ok = f"type({value}) is int and {row.bits.range.start} <= {value} < {row.bits.range.stop}"
    return [f"if not ({ok}): set_(self, {row.name!r}, rows[{row.name!r}].checked({value}, cls.mnemonic))"]


def _pack_source(row: FieldLayout) -> str:
    value = f"self.{row.name}"
    if row.bits.is_float:
        value = f"float_bits({value})"
    return f"({value} & {row.mask}) << {row.low}" if row.bits.signed else f"{value} << {row.low}"


def _raw_source(row: FieldLayout) -> str:
    return f"(word >> {row.low} & {row.mask})"


def _unpack_source(row: FieldLayout) -> str:
    raw = _raw_source(row)
    if row.enum is not None:
        return f"enums[{row.name!r}][{raw}]"
    if row.bits.is_float:
        return f"bits_float({raw})"
    half = 1 << row.bits.width - 1
    return f"({raw} ^ {half}) - {half}" if row.bits.signed else raw


def _canonical_source(row: FieldLayout) -> str:
    return f"if float_bits(values[{row.name!r}]) != {_raw_source(row)}: reject(cls, word)"


def _reject(cls: type[Instruction], word: int) -> NoReturn:
    """Say which rule ``word`` breaks."""
    if word & 0xFF != cls.opcode:
        raise EncodingError(f"{cls.mnemonic}: opcode is {word & 0xFF:#04x}, must be {cls.opcode:#04x}")
    if word & ~cls.used_bits():
        raise EncodingError(f"{cls.mnemonic}: reserved bits are set in {word:#034x}")
    for row in cls.layout():
        raw = word >> row.low & row.mask
        if row.enum is not None and raw not in {m.value & row.mask for m in row.enum}:
            raise EncodingError(f"{cls.mnemonic}: {row.name}={raw} must be {row.allowed()}")
        if row.bits.is_float and float_bits(bits_float(raw)) != raw:
            raise EncodingError(f"{cls.mnemonic}: {row.name} is NaN {raw:#x}, must be {CANONICAL_NAN_BITS:#x}")
    raise AssertionError(f"{word:#034x} is a legal {cls.mnemonic}")
