"""Text of programs: one instruction per line; each direction accepts what the other prints.

    mmu.run act=0x100, weight=0x2000, n=64, accumulate=1 wait=3,4 signal=5   # comment

Fields that are left out hold their class default, ``wait`` and ``signal`` name up to two semaphores,
enum values are lower-case names, integers may be decimal or 0x hexadecimal, and a binary32 reads back to the
same bits. Commas and blanks separate; ``#`` or ``;`` starts a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache

import numpy as np

from isa.container import Binary
from isa.encoding import INSTRUCTIONS, SEMAPHORE_FIELDS, WORD_BYTES, FieldLayout, Instruction, float_bits
from isa.errors import AssemblyError, EncodingError
from isa.sections import Location

SEMAPHORES = {"wait": ("wait_a", "wait_b"), "signal": ("signal_a", "signal_b")}
HEX_WIDTH = 24
"""Integer fields from this width on are addresses and distances, printed in hexadecimal."""


def disassemble(instructions: Iterable[Instruction], *, offsets: bool = False) -> str:
    """The program's text, one line per instruction; ``offsets`` appends byte offsets as comments."""
    lines = (_line(i) for i in instructions)
    if offsets:
        lines = (f"{line}  # {n * WORD_BYTES:#x}" for n, line in enumerate(lines))
    return "".join(f"{line}\n" for line in lines)


def disassemble_binary(binary: Binary, *, offsets: bool = False) -> str:
    """The binary's program, with a comment line in front of every run of instructions from one location."""
    lines = iter(disassemble(binary.instructions, offsets=offsets).splitlines(keepends=True))
    return "".join(
        text
        for count, index in binary.spans
        for text in (f"# {describe(binary.locations[index])}\n", *(next(lines) for _ in range(count)))
    )


def describe(location: Location) -> str:
    """``node | module | source`` on one line, empty parts left out."""
    parts = (location.node, location.module, location.source)
    return " ".join(" | ".join(part for part in parts if part).split())


def assemble(text: str) -> tuple[Instruction, ...]:
    """The instructions of assembly ``text``. Raises AssemblyError, which names the line."""
    return tuple(instruction for _, instruction in assemble_lines(text))


def assemble_lines(text: str) -> tuple[tuple[int, Instruction], ...]:
    """As :func:`assemble`, each instruction with the number of its line, from 1."""
    program: list[tuple[int, Instruction]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if code := re.split("[#;]", line, maxsplit=1)[0].strip():
            try:
                program.append((number, _instruction(code)))
            except (AssemblyError, EncodingError) as error:
                raise AssemblyError(f"line {number}: {error}") from None
    return tuple(program)


@cache
def mnemonics() -> dict[str, type[Instruction]]:
    """Every instruction class by its name in text."""
    return {cls.mnemonic: cls for cls in INSTRUCTIONS.values()}


@cache
def operands(cls: type[Instruction]) -> dict[str, FieldLayout]:
    """The fields of a class that text gives as ``name=value``: all but the semaphores."""
    return {row.name: row for row in cls.layout() if row.name not in SEMAPHORE_FIELDS}


@cache
def _default_texts(cls: type[Instruction]) -> dict[str, str]:
    return {name: value_text(row, getattr(cls(), name)) for name, row in operands(cls).items()}


def _line(instruction: Instruction) -> str:
    cls = type(instruction)
    texts = {name: value_text(row, getattr(instruction, name)) for name, row in operands(cls).items()}
    # Texts, not values, are compared: the zeros of both signs are equal, NaN is not.
    fields = ", ".join(f"{name}={texts[name]}" for name, text in _default_texts(cls).items() if texts[name] != text)
    return " ".join([instruction.mnemonic, *([fields] if fields else []), *_sync_texts(instruction)])


def _sync_texts(instruction: Instruction) -> Iterator[str]:
    for name, (first, second) in SEMAPHORES.items():
        a, b = getattr(instruction, first), getattr(instruction, second)
        if b:
            yield f"{name}={a},{b}"
        elif a:
            yield f"{name}={a}"


def value_text(row: FieldLayout, value: int | float) -> str:
    """``value`` of field ``row`` as text that :func:`parse_value` reads back exactly."""
    if row.enum is not None:
        return row.enum(int(value)).name.lower()
    if row.bits.is_float:
        return _float_text(value)
    return hex(int(value)) if row.bits.width >= HEX_WIDTH and value > 9 else str(value)


def _float_text(value: float) -> str:
    """The shortest decimal of the binary32, else (a double rounding is in the way) that of the binary64."""
    text = str(np.float32(value))
    return text if float_bits(float(text)) == float_bits(value) else repr(value)


def parse_value(row: FieldLayout, text: str, mnemonic: str) -> int | float:
    """Inverse of :func:`value_text`. Raises AssemblyError or EncodingError."""
    if row.enum is not None:
        names = {member.name.lower(): member for member in row.enum}
        if text not in names:
            known = f"{_hint(text, names)} (it is one of {', '.join(names)})"
            raise AssemblyError(f"{mnemonic}: {row.name}={text} is unknown{known}")
        return names[text]
    try:
        value = float(text) if row.bits.is_float else int(text, 0)
        if value in (math.inf, -math.inf) and "inf" not in text.lower():  # 1e400 is no binary64
            raise ValueError
    except ValueError:
        raise AssemblyError(f"{mnemonic}: {row.name}={text} must be {row.allowed()}") from None
    return row.checked(value, mnemonic)


def _instruction(code: str) -> Instruction:
    mnemonic, *tokens = re.split(r"[\s,]+", re.sub(r"\s*=\s*", "=", code))
    if (cls := mnemonics().get(mnemonic)) is None:
        raise AssemblyError(f"unknown instruction {mnemonic!r}{_hint(mnemonic, mnemonics())}")
    rows = operands(cls)
    values: dict[str, int | float] = {}
    for name, texts in _assignments(mnemonic, [token for token in tokens if token]).items():
        if name in SEMAPHORES:
            sync = {row.name: row for row in cls.layout()}
            for field, text in zip(SEMAPHORES[name], texts, strict=False):
                values[field] = parse_value(sync[field], text, mnemonic)
        elif name in rows:
            values[name] = parse_value(rows[name], texts[0], mnemonic)
        else:
            names = [*rows, *SEMAPHORES]
            known = f"{_hint(name, names)}; its fields are {', '.join(names)}"
            raise AssemblyError(f"{mnemonic} has no field {name!r}{known}")
    return cls(**values)  # type: ignore[arg-type]


def _assignments(mnemonic: str, tokens: list[str]) -> dict[str, list[str]]:
    """``name=value`` tokens by name; a token without a name is one more semaphore of the list before it."""
    found: dict[str, list[str]] = {}
    name = ""
    for token in tokens:
        if "=" in token:
            name, _, value = token.partition("=")
            if name in found:
                raise AssemblyError(f"{mnemonic}: {name} is given twice")
            if not value:
                raise AssemblyError(f"{mnemonic}: {name} has no value; write {name}=...")
            found[name] = [value]
        elif name in SEMAPHORES and len(found[name]) < 2:
            found[name].append(token)
        elif name in SEMAPHORES:
            raise AssemblyError(f"{mnemonic}: {name} takes at most 2 semaphores")
        else:
            raise AssemblyError(f"{mnemonic}: {token!r} is not of the form name=value")
    return found


def _hint(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
