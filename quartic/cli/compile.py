"""``quartic compile``: quantized graph to a binary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show
from quartic.files import writable, write_text


def command(
    model: Annotated[Path, typer.Argument(help="Quantized .pt2 of `quartic quantize` or of torchao PT2E.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the .qbin.")],
    machine: Annotated[str, typer.Option(help="Machine name or TOML file.")] = "edge28",
    schedule: Annotated[Path | None, typer.Option(help="Schedule to obey (TOML).")] = None,
    emit_schedule: Annotated[Path | None, typer.Option(help="Write the schedule that was used.")] = None,
    fuse: Annotated[bool, typer.Option(help="Fuse elementwise work into the kernels.")] = True,
    double_buffer: Annotated[bool, typer.Option(help="Overlap transfers with work.")] = True,
    share_loops: Annotated[bool, typer.Option(help="Run kernels that feed each other stripe by stripe.")] = True,
    validate: Annotated[bool, typer.Option(help="Run every level of the compiler and compare bits.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a quantized model for a machine."""
    writable(output, emit_schedule, reads=(model, machine))
    with progress(f"loading {model.name}"):
        from quartic.models import load_program

        program = load_program(model)
    with progress(f"compiling for {machine}"):
        import quartic

        exe = quartic.compile(
            program,
            machine,
            fuse=fuse,
            double_buffer=double_buffer,
            share_loops=share_loops,
            schedule=schedule,
            validate=validate,
        )
    exe.save(output)
    if emit_schedule is not None and exe.schedule is not None:
        write_text(emit_schedule, exe.schedule.to_toml())
    show(
        {
            "output": str(output),
            "machine": exe.machine,
            "bytes": output.stat().st_size,
            "code bytes": len(exe.binary.code),
            "constant bytes": len(exe.binary.constants),
            "instructions": exe.instructions,
            "peak SRAM bytes": exe.sram_peak_bytes,
            "seconds": dict(exe.timings),
        },
        as_json,
    )
