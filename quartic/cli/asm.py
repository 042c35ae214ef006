"""``quartic asm``: assembly text to a binary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, show


def command(
    source: Annotated[Path, typer.Argument(help="Assembly text, as `quartic dis` prints it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the .qbin.")],
    into: Annotated[
        Path | None, typer.Option(help="Take constants, inputs, outputs and machine from this .qbin.")
    ] = None,
    machine: Annotated[str, typer.Option(help="Machine, where no --into gives it.")] = "edge28",
    as_json: Json = False,
) -> None:
    """Assemble a program."""
    from isa.assembler import assemble_lines
    from isa.container import Binary, Location
    from isa.errors import AssemblyError, ContainerError
    from isa.machine import Machine
    from isa.program import encode
    from quartic.executable import Executable
    from quartic.files import read_text, writable

    writable(output, reads=(source,))
    try:
        lines = assemble_lines(read_text(source, "assembly text"))
    except AssemblyError as error:
        raise AssemblyError(f"{source}: {error}") from error
    # Edited text has lost which layer its instructions came from, so that each is named after its line.
    places = tuple(Location("", "overhead:assembled", "", f"{source.name}:{number}") for number, _ in lines)
    code, spans = encode([instruction for _, instruction in lines]), tuple((1, i) for i in range(len(lines)))
    base = Executable.load(into).binary if into is not None else None
    try:
        if base is None:
            binary = Binary(Machine.load(machine), code, b"", (), (), 0, 0, 0, places, spans, {})
        else:
            binary = replace(base, code=code, locations=places, spans=spans)
    except ContainerError as error:
        raise ContainerError(f"{source}: {error}") from error
    Executable(binary).save(output)
    show({"output": str(output), "instructions": len(lines), "bytes": output.stat().st_size}, as_json)
