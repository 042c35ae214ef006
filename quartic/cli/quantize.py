"""``quartic quantize``: float model and calibration data to a quantized graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quartic.cli.console import Json, RecipeName, progress, show, table
from quartic.files import writable

if TYPE_CHECKING:
    from quantizer.report import Layer
    from quantizer.size import Size


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate on: .npy [count, ...], or .npz of one array per model input.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the quantized .pt2.")],
    batch: Annotated[int, typer.Option(min=1, help="Batch size that the model is compiled for.")] = 1,
    recipe: RecipeName = "w8a8",
    seed: Annotated[int, typer.Option(min=0, help="Of whatever stages of the recipe draw.")] = 0,
    device: Annotated[str, typer.Option(help="Where the stages work: cpu, cuda.")] = "cpu",
    resume: Annotated[
        Path | None, typer.Option(help="Folder that keeps what a reconstruction decided, to go on from there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Quantize a float model and save it as a torch.export program."""
    from isa.errors import InputError
    from quartic.models import count_samples, load_with_samples, save_program

    writable(output, reads=(model, calibration, recipe))
    if output.suffix != ".pt2":
        raise InputError(f"{output}: a quantized model is written as .pt2; give the name that ending")
    with progress("loading"):
        network, arrays = load_with_samples(model, calibration)
    count = count_samples(arrays, calibration)
    if count < batch:
        raise InputError(f"{calibration}: holds {count} samples; calibration needs at least one batch of {batch}")
    batches = [tuple(array[start : start + batch] for array in arrays) for start in range(0, count - batch + 1, batch)]
    with progress(f"calibrating on {len(batches)} batches") as tell:
        import quartic

        q = quartic.quantize(
            network,
            batches[0],
            batches,
            recipe,
            seed=seed,
            device=device,
            resume=resume,
            progress=lambda done: tell(str(done)),
        )
    with progress("saving"):
        save_program(q, batches[0], output)
    from quantizer.report import report

    found = report(q)
    figures = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "recipe": found.recipe,
        "batch": batch,
        "batches": len(batches),
        **({"samples left out": left} if (left := count % batch) else {}),
        # A user learns here, not from a slow chip, what is not 8 bits wide.
        "float": [f"{r.node} ({r.module or '(root)'}, {r.source}): {r.reason}" for r in found.unquantized],
        "constants in bytes": _bytes(found.size),
    }
    if as_json:
        layers = [{**asdict(layer), "size": _bytes(layer.size)} for layer in found.layers]
        show({**figures, "overrides": found.overrides, "layers": layers}, as_json)
        return
    show({**figures, "overrides": {told: _few(nodes) for told, nodes in found.overrides.items()}}, as_json)
    table("Constants in bytes, by the operator that reads them", HEAD, [_row(layer) for layer in found.layers])


HEAD = (
    "module",
    "node",
    "weight",
    "activation",
    "codes",
    "scales",
    "zero points",
    "float",
    "total",
    "overrides",
    "channels",
)
SHOWN = 6


def _few(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - SHOWN} more" * (len(nodes) > SHOWN)
    return ", ".join(nodes[:SHOWN]) + more or "no layer of this model"


def _row(layer: Layer) -> list[object]:
    sizes = _bytes(layer.size)
    own = [sizes[name] for name in ("codes", "scales", "zero points", "float", "total")]
    kind = "-"
    if weight := layer.weight:
        kind = f"{weight.bits}{' affine' * weight.affine}{f' per {weight.per}' * bool(weight.per)}"
    return [
        layer.module or "(root)",
        layer.node,
        kind,
        layer.activation,
        *own,
        "; ".join(layer.overrides),
        "; ".join(layer.scaled),
    ]


def _bytes(size: Size) -> dict[str, float]:
    """Bytes, and fractions: a 4-bit code is half of one."""
    parts = {"codes": size.codes, "scales": size.scales, "zero points": size.zeros, "float": size.floats}
    return {name: bits / 8 for name, bits in {**parts, "total": size.total, "in binary32": size.in_float}.items()}
