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
    from isa.assembler import assemble
    from isa.container import Binary, Location
    from isa.errors import AssemblyError
    from isa.machine import Machine
    from isa.program import encode
    from quartic.executable import Executable
    from quartic.files import read_text

    try:
        instructions = assemble(read_text(source, "assembly text"))
    except AssemblyError as error:
        raise AssemblyError(f"{source}: {error}") from error
    # Edited text has lost which layer its instructions came from, so the whole program is named after its file.
    place = Location(kernel="", node="overhead:assembled", module="", source=f"{source.name}:1")
    code, spans = encode(instructions), ((len(instructions), 0),) if instructions else ()
    if into is None:
        binary = Binary(Machine.load(machine), code, b"", (), (), 0, 0, 0, (place,), spans, {})
    else:
        binary = replace(Executable.load(into).binary, code=code, locations=(place,), spans=spans)
    Executable(binary).save(output)
    show({"output": str(output), "instructions": len(instructions), "bytes": output.stat().st_size}, as_json)
