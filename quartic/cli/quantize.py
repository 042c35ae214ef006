"""``quartic quantize``: float model and calibration data to a quantized graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show
from quartic.files import writable


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate on: .npy [count, ...], or .npz of one array per model input.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the quantized .pt2.")],
    batch: Annotated[int, typer.Option(min=1, help="Batch size that the model is compiled for.")] = 1,
    recipe: Annotated[str, typer.Option(help="Widths: w8a8, w4a8, w4a4, w8a16, w16a16 or f32.")] = "w8a8",
    as_json: Json = False,
) -> None:
    """Quantize a float model and save it as a torch.export program."""
    from isa.errors import InputError
    from quartic.models import load_arrays, load_model, save_program

    writable(output)
    if output.suffix != ".pt2":
        raise InputError(f"{output}: a quantized model is written as .pt2; give the name that ending")
    with progress("loading"):
        arrays = load_arrays(calibration)
        network = load_model(model)
    count = min((len(array) if array.ndim else 0 for array in arrays), default=0)
    if count < batch:
        raise InputError(f"{calibration}: holds {count} samples; calibration needs at least one batch of {batch}")
    batches = [tuple(array[start : start + batch] for array in arrays) for start in range(0, count - batch + 1, batch)]
    with progress(f"calibrating on {len(batches)} batches"):
        import quartic

        q = quartic.quantize(network, batches[0], batches, recipe=recipe)
    with progress("saving"):
        save_program(q, batches[0], output)
    from quantizer.report import report

    figures = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "recipe": recipe,
        "batch": batch,
        "batches": len(batches),
        # A user learns here, not from a slow chip, what is not 8 bits wide.
        "float": [f"{r.node} ({r.module or '(root)'}, {r.source}): {r.reason}" for r in report(q).unquantized],
    }
    show(figures, as_json)
