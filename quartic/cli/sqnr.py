"""``quartic sqnr``: how far a quantized model is from the float one, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quartic.cli.console import Json, RecipeName, progress

if TYPE_CHECKING:
    from quantizer.sqnr import LayerSqnr


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function, in float.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate and to compare on: .npy [count, ...], or .npz of one per input.")
    ],
    recipe: RecipeName = "w8a8",
    as_json: Json = False,
) -> None:
    """Quantize a model and print the signal to quantization noise of every layer, in device numerics.

    Of each layer there are two numbers: with the noise that it inherits, and of its own alone. In JSON the noise of a
    layer that is equal to the float one, or that is 0 there, is null.
    """
    import quartic
    from isa.errors import InputError
    from quantizer.recipe import Recipe
    from quantizer.sqnr import sqnr
    from quartic.models import count_samples, load_with_samples

    Recipe.load(recipe)  # a mistyped name is said at once
    with progress("loading"):
        network, arrays = load_with_samples(model, calibration)
    if count_samples(arrays, calibration) == 0:
        raise InputError(f"{calibration}: holds no samples; give at least one per input, [count, ...]")
    first = tuple(array[:1] for array in arrays)
    with progress(f"quantizing to {recipe}"):
        q = quartic.quantize(network, first, [tuple(arrays)], recipe=recipe)
    with progress("comparing"):
        rows = sqnr(network, q, first)
    if as_json:
        layers = [{name: _finite(value) for name, value in asdict(row).items()} for row in rows]
        print(json.dumps({"model": model, "recipe": recipe, "layers": layers}, indent=2))
        return
    print("\n".join(_text(f"{model} at {recipe}", rows)))


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not isfinite(value) else value


def _text(title: str, rows: Sequence[LayerSqnr]) -> Iterator[str]:
    """A line per layer in the graph's order, then the noisiest one, the one that adds most noise, and the last."""
    yield f"{title}: signal to quantization noise in dB, of every result on one sample"
    yield "   all    own  (what a layer adds itself, to values without noise)"
    nodes = max((len(row.node) for row in rows), default=0)
    modules = max((len(_module(row)) for row in rows), default=0)
    for row in rows:
        numbers = f"{_decibels(row.sqnr_db)} {_decibels(row.own_db)}"
        yield f"{numbers}  {row.node:<{nodes}}  {_module(row):<{modules}}  {list(row.shape)}"
    for word, number in (("lowest", attrgetter("sqnr_db")), ("own   ", attrgetter("own_db"))):
        if finite := [row for row in rows if isfinite(number(row))]:
            worst = min(finite, key=number)
            yield f"{word} {_decibels(number(worst))}  {worst.node} in {_module(worst)}"
    if rows:
        yield f"last   {_decibels(rows[-1].sqnr_db)}  {rows[-1].node}"


def _module(row: LayerSqnr) -> str:
    return row.module or "(root)"


def _decibels(sqnr_db: float) -> str:
    """Six characters; equal results have no noise, a result that is 0 in float has no signal."""
    if isfinite(sqnr_db):
        return f"{sqnr_db:6.1f}"
    return " equal" if sqnr_db > 0 else "  zero"
