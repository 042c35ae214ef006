"""``quartic report``: simulate a binary and write what it spent, where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show
from quartic.files import writable


def command(
    binary: Annotated[Path, typer.Argument(help="A .qbin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the report (.html).")],
    as_json: Json = False,
) -> None:
    """Write a self-contained report of cycles and energy per layer, from a run without data."""
    from quartic.executable import Executable

    writable(output, reads=(binary,))
    exe = Executable.load(binary)
    with progress(f"simulating {exe.instructions:,} instructions"):
        import quartic

        quartic.timing(exe).report(output)
    show({"binary": str(binary), "report": str(output), "bytes": output.stat().st_size}, as_json)
