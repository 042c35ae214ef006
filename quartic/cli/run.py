"""``quartic run``: simulate a binary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show
from quartic.files import writable


def command(
    binary: Annotated[Path, typer.Argument(help="A .qbin.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", "-i", help="An input's .npy, or .npz of one array per input, by its name or in order."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs: .npy of the only one, else .npz.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Perfetto trace (ui.perfetto.dev).")] = None,
    timing_only: Annotated[bool, typer.Option("--timing-only", help="Time and energy without data.")] = False,
    as_json: Json = False,
) -> None:
    """Run a binary on the simulator: outputs, cycles, energy."""
    from isa.errors import InputError
    from quartic.executable import Executable
    from quartic.results import summary

    if not inputs and not timing_only:
        raise InputError("quartic run needs --input (the model's inputs), or --timing-only for time and energy")
    if inputs and timing_only:
        raise InputError("--timing-only reads no values; leave out --input, or --timing-only to compute with it")
    if output is not None and timing_only:
        raise InputError("--output needs values, which --timing-only does not compute; leave one of them out")
    writable(output, trace, reads=(binary, *(inputs or ())))
    exe = Executable.load(binary)
    with progress("loading"):
        from quartic.models import load_arrays, save_arrays

        names = [info.name for info in exe.binary.inputs]
        tensors = [tensor for path in inputs or () for tensor in load_arrays(path, names)]
    with progress(f"simulating {exe.instructions:,} instructions"):
        import quartic

        run = quartic.timing(exe) if timing_only else quartic.simulate(exe, *tensors)
        figures = summary(run.profile)  # time is simulated when the profile is first read
    if output is not None:
        save_arrays(output, [info.name for info in exe.binary.outputs], run.outputs)
    if trace is not None:
        run.trace(trace)
    show({"binary": str(binary), **figures}, as_json)
