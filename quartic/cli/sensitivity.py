"""``quartic sensitivity``: what the result loses when one layer alone is quantized."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quartic.cli.console import Json, RecipeName, progress, table
from quartic.files import writable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantizer.recipe import Recipe
    from quantizer.sensitivity import LayerSensitivity, Sensitivity


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function, in float.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate and to measure on: .npy [count, ...], or .npz of one per input.")
    ],
    by: Annotated[
        str, typer.Option(help="sqnr: noise of the outputs, a run per layer and width; fisher: one backward pass.")
    ] = "sqnr",
    recipe: RecipeName = "w8a8",
    samples: Annotated[int, typer.Option(min=1, help="Samples to measure on; all of them calibrate.")] = 8,
    plot: Annotated[Path | None, typer.Option(help="Write a map of layers and widths as an .html page.")] = None,
    as_json: Json = False,
) -> None:
    """Print what the outputs lose when one layer alone is quantized, for every layer and width.

    By sqnr it is the output's signal to noise in dB, which `quartic assign` adds up; the JSON holds losses.
    Stages of the recipe take part but for those that learn ([round], [train]); by fisher [compensate] does not either.
    """
    from quantizer.recipe import Recipe

    writable(plot, reads=(model, calibration, recipe))
    start = Recipe.load(recipe)  # a mistyped name is said at once
    network, batches = load(model, calibration)
    found = measured(network, batches, start, by, samples)
    if plot is not None:
        from quartic.plots import save, sensitivity_figure

        save(sensitivity_figure(found), plot)
    if as_json:
        print(found.to_json(), end="")
        return
    decibels = found.by == "sqnr"
    head = ("module", "weights", *found.widths)
    rows = [
        [layer.module or "(root)", layer.weights, *(_cell(layer, width, decibels) for width in found.widths)]
        for layer in found.layers
    ]
    without = f", without {', '.join(f'[{name}]' for name in found.left_out)}" if found.left_out else ""
    what = "output SQNR in dB" if decibels else f"loss by {by}"
    table(f"{model}: {what} when one layer is quantized{without}", head, rows)


def _cell(layer: LayerSensitivity, width: str, decibels: bool) -> str | None:
    if width not in layer.losses:
        return None
    found = layer.sqnr_db(width) if decibels else layer.losses[width]
    return "equal" if found == inf else f"{found:.1f}" if decibels else f"{found:.3g}"


def load(model: str, calibration: Path) -> tuple[nn.Module, list[tuple[torch.Tensor, ...]]]:
    """The float model and its samples, one a batch. Raises InputError."""
    from isa.errors import InputError
    from quartic.models import count_samples, load_with_samples

    with progress("loading"):
        network, arrays = load_with_samples(model, calibration)
    count = count_samples(arrays, calibration)
    if count == 0:
        raise InputError(f"{calibration}: holds no samples; give at least one per input, [count, ...]")
    return network, [tuple(array[i : i + 1] for array in arrays) for i in range(count)]


def measured(
    network: nn.Module, batches: list[tuple[torch.Tensor, ...]], recipe: Recipe, by: str, samples: int
) -> Sensitivity:
    """The sensitivity, with progress. Raises QuantizationError."""
    from quantizer.sensitivity import sensitivity

    with progress("calibrating") as tell:
        return sensitivity(
            network,
            batches[0],
            batches,
            recipe,
            by=by,
            samples=samples,
            progress=lambda done, total: tell(f"measuring, {done} of {total}"),
        )
