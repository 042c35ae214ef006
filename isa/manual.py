"""The reference manual as Markdown, generated from the instruction table: ``python -m isa.manual > docs/isa.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import IntEnum
from inspect import cleandoc
from pathlib import Path

from isa.assembler import operands, value_text
from isa.cost import COSTS
from isa.encoding import (
    CANONICAL_NAN_BITS,
    INSTRUCTIONS,
    ISA_VERSION,
    OPCODE_BITS,
    WORD_BYTES,
    Engine,
    FieldLayout,
    Instruction,
)
from isa.instructions import Region, Space
from isa.state import SETTERS

DIGITS = 8 * WORD_BYTES

INTRODUCTION = f"""
# The instruction set

<!-- Generated from isa/instructions by `make golden`; edit the docstrings there, not this file. -->

ISA version {ISA_VERSION}. A program is a straight line of {DIGITS}-bit words in DRAM, little endian, without
branches. Its last word, and no other, is `halt`. Every word either is an instruction, which encodes to
exactly that word, or is rejected: bits outside of the fields are zero, enum fields hold a listed value, a
binary32 NaN is `{CANONICAL_NAN_BITS:#x}`.

## The word
"""

ENGINES = """
## Engines and order

Dispatch puts each instruction into the queue of its engine. An engine takes its queue in order, one
instruction at a time. Between engines only semaphores order anything. **Program order is a legal schedule**: running
the program one instruction after the other, as it is written, never blocks and gives the right result.
"""

SEMAPHORES = """
## Semaphores

Every instruction has four semaphore fields. Before it starts, it waits until the count of `wait_a` is
positive and takes one from it; the same for `wait_b`. When it is complete, it adds one to `signal_a` and one to
`signal_b`. Semaphore 0 is none. All counts start at 0 and may not pass the machine's `semaphore_max`. A
semaphore belongs to one pair of engines, one that signals and one that waits; the k-th wait consumes the k-th
signal. A wait whose signal comes only later in the program is a deadlock, even where the engines' queues would reach
the signal. Assembly writes `wait=3,4 signal=5`.
"""

STICKY = """
## Sticky state

Setup instructions write registers of their own engine, in queue order; nothing else changes them. A later instruction
uses what was written last. When a program starts every register holds its fields' defaults.
"""

SPACES = """
## Address spaces

Addresses on the chip are byte addresses. DRAM is addressed as region and byte offset, so a binary does not
depend on where its regions lie. Every address of int32 or binary32 data is a multiple of 4. Nothing wraps: an access
past the end of its space is an AccessError, and so are a write to the regions code, constants and input, and an
output two of whose elements share a byte.
"""


def manual() -> str:
    """The text of ``docs/isa.md``."""
    parts = [
        INTRODUCTION,
        _word_diagram(),
        ENGINES,
        _table(("engine", "instructions"), (_engine_row(engine) for engine in Engine)),
        SEMAPHORES,
        STICKY,
        _sticky_list(),
        SPACES,
        _table(("space", "meaning"), _spaces()),
        _opcode_map(),
        *(_engine(engine) for engine in Engine),
        _enums(),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _word_diagram() -> str:
    """Fields of the word's common part, lowest bits on the right."""
    common = Instruction.layout()
    used = common[-1].low + common[-1].bits.width
    cells = [(f"{DIGITS - 1}..{used}", "fields of the instruction")]
    cells += [(_bit_range(row), row.name) for row in reversed(common)]
    cells.append((f"{OPCODE_BITS - 1}..0", "opcode"))
    widths = [max(map(len, cell)) for cell in cells]
    border = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    bits, names = (
        "|" + "|".join(f" {cell[i]:^{width}} " for cell, width in zip(cells, widths, strict=True)) + "|"
        for i in range(2)
    )
    return "\n".join(["```text", border, bits, names, border, "```\n"])


def _bit_range(row: FieldLayout) -> str:
    high = row.low + row.bits.width - 1
    return str(row.low) if high == row.low else f"{high}..{row.low}"


def _of(engine: Engine) -> list[type[Instruction]]:
    return [cls for _, cls in sorted(INSTRUCTIONS.items()) if cls.engine is engine]


def _code(cls: type[Instruction]) -> str:
    return f"`{cls.mnemonic}`"


def _engine_row(engine: Engine) -> tuple[str, str]:
    return engine.value, ", ".join(_code(cls) for cls in _of(engine))


def _sticky_list() -> str:
    setups = ", ".join(_code(cls) for _, cls in sorted(INSTRUCTIONS.items()) if cls in SETTERS)
    return f"Setup instructions are {setups}.\n"


def _spaces() -> Iterator[tuple[str, str]]:
    for space in Space:
        yield space.name.lower(), "on chip, " + ("accumulators" if space is Space.ACC else "local SRAM")
    for region in Region:
        yield region.name.lower(), f"DRAM region {region.value}"


def _opcode_map() -> str:
    rows = ((f"`{opcode:#04x}`", _code(cls), _summary(cls)) for opcode, cls in sorted(INSTRUCTIONS.items()))
    return "## Opcodes\n\n" + _table(("opcode", "instruction", "meaning"), rows)


def _summary(cls: type[Instruction]) -> str:
    """The docstring's first paragraph."""
    return " ".join(_prose(cls).split("\n\n")[0].split()).replace("|", r"\|")


def _prose(thing: object) -> str:
    """A docstring as Markdown, in which a bare asterisk would start emphasis."""
    return cleandoc(thing.__doc__ or "").replace("*", r"\*")


def _engine(engine: Engine) -> str:
    return "\n".join([f"## {engine.value.capitalize()}\n", *(_instruction(cls) for cls in _of(engine))])


def _instruction(cls: type[Instruction]) -> str:
    rows = [_field(cls, row) for row in operands(cls).values()]
    table = _table(("field", "bits", "values", "default"), rows) if rows else "It has no fields of its own.\n"
    parts = [f"### `{cls.mnemonic}`\n", f"Opcode `{cls.opcode:#04x}`. {_prose(cls)}\n", table]
    if cost := COSTS[cls].__doc__:
        parts.append(f"Cost: {' '.join(cost.split())}\n")
    return "\n".join(parts)


def _field(cls: type[Instruction], row: FieldLayout) -> tuple[str, ...]:
    default = value_text(row, getattr(cls(), row.name))
    return f"`{row.name}`", _bit_range(row), _values(row), f"`{default}`"


def _values(row: FieldLayout) -> str:
    if row.enum is not None:
        return f"[{row.enum.__name__}](#{row.enum.__name__.lower()})"
    if row.bits.is_float:
        return "binary32"
    return f"{row.bits.range.start}..{row.bits.range.stop - 1}"


def _enums() -> str:
    """Every enumeration that a field has, in the order of first use."""
    found: dict[type[IntEnum], None] = {}
    for _, cls in sorted(INSTRUCTIONS.items()):
        found |= {row.enum: None for row in cls.layout() if row.enum is not None}
    sections = (
        f"### {enum.__name__}\n\n{_prose(enum)}\n\n"
        + _table(("value", "name"), ((str(m.value), f"`{m.name.lower()}`") for m in enum))
        for enum in found
    )
    return "## Enumerations\n\n" + "\n".join(sections)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(manual())
    else:
        sys.stdout.write(manual())
