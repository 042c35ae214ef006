"""``quartic bench``: compare schedules of one model in the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, table


def command(
    model: Annotated[Path, typer.Argument(help="Quantized .pt2 of `quartic quantize`.")],
    schedule: Annotated[
        list[Path] | None, typer.Option(help="A schedule to measure (repeat it); the compiler's own comes first.")
    ] = None,
    machine: Annotated[str, typer.Option(help="Machine name or TOML file.")] = "edge28",
    as_json: Json = False,
) -> None:
    """Compile a model once per schedule and compare cycles, energy, traffic and peak SRAM."""
    from quartic.models import load_program, load_schedule
    from quartic.results import headline

    for path in schedule or ():
        load_schedule(path)  # a mistake in one is said at once
    choices = [("(the compiler's own)", None), *((str(path), path) for path in schedule or ())]
    with progress(f"loading {model.name}"):
        program = load_program(model)
    rows: list[dict[str, object]] = []
    for name, value in choices:
        with progress(name):
            import quartic

            exe = quartic.compile(program, machine, schedule=value)
            figures = headline(quartic.timing(exe).profile)
        peak = (exe.sram_peak_bytes or 0) / 1024
        rows.append({"schedule": name, **figures, "peak SRAM KiB": peak, "instructions": exe.instructions})
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        table(f"{model.name} on {machine}", list(rows[0]), [list(row.values()) for row in rows])
