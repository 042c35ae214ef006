"""``quartic dis``: binary to assembly text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json


def command(
    binary: Annotated[Path, typer.Argument(help="A .qbin.")],
    start: Annotated[int, typer.Option(min=0, help="First instruction.")] = 0,
    count: Annotated[int | None, typer.Option(min=0, help="How many instructions; all by default.")] = None,
    locations: Annotated[bool, typer.Option(help="Say which layer each run of instructions belongs to.")] = True,
    as_json: Json = False,
) -> None:
    """Print the program of a binary; `quartic asm` accepts the text."""
    from isa.assembler import disassemble
    from isa.errors import InputError
    from isa.program import decode
    from quartic.executable import Executable

    program = Executable.load(binary).binary
    stop = None if count is None else start + count
    decoded = decode(program.code)
    if start >= len(decoded):
        raise InputError(f"{binary}: has instructions 0 to {len(decoded) - 1}; --start {start} is behind the last")
    instructions = decoded[start:stop]
    lines = disassemble(instructions).splitlines()
    owners: list[str] = []
    for length, index in program.spans:
        place = program.locations[index]
        owners += [" | ".join(part for part in (place.node, place.module, place.source) if part)] * length
    owners = owners[start:stop]
    if as_json:
        rows = [
            {"index": start + index, "instruction": line, "location": owner}
            for index, (line, owner) in enumerate(zip(lines, owners, strict=True))
        ]
        print(json.dumps(rows, indent=1))
        return
    previous = None
    for line, owner in zip(lines, owners, strict=True):
        if locations and owner != previous:
            print(f"; {owner}")
        previous = owner
        print(line)
