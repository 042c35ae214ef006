"""``quartic sqnr``: how far a quantized model is from the float one, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function, in float.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate and to compare on: .npy [count, ...], or .npz of one per input.")
    ],
    recipe: Annotated[str, typer.Option(help="Widths: w8a8, w4a8, w4a4, w8a16, w16a16 or f32.")] = "w8a8",
    as_json: Json = False,
) -> None:
    """Quantize a model and print the signal to quantization noise of every layer, in device numerics."""
    import quartic
    from quantizer.sqnr import sqnr
    from quartic.models import load_arrays, load_model

    with progress("loading"):
        arrays = load_arrays(calibration)
        network = load_model(model)
    first = tuple(array[:1] for array in arrays)
    with progress(f"quantizing to {recipe}"):
        q = quartic.quantize(network, first, [tuple(arrays)], recipe=recipe)
    with progress("comparing"):
        rows = sqnr(network, q, first)
    layers = {row.node: f"{row.sqnr_db:.1f} dB  {row.module or '(root)'}  {list(row.shape)}" for row in rows}
    if as_json:
        layers = {row.node: {"module": row.module, "shape": list(row.shape), "sqnr_db": row.sqnr_db} for row in rows}  # type: ignore[assignment]
    show({"model": model, "recipe": recipe, "layers": layers}, as_json)
