"""``make sqnr``: the noise of every network at 16 bits, layer by layer against float.

The depth models are trained and measured on a scene that calibration did not see; the others have random weights, are
calibrated on two images and measured on the first. Each is measured in a process of its own, which returns its memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import RESULTS, Row, markdown, write_results
from benchmarks.measure import PACKAGES, ROOT, sources
from benchmarks.networks import CALIBRATION, MODELS

if TYPE_CHECKING:
    import torch
    from torch import nn

RECIPE = "w16a16"
TRAINED = {"depth vit": 112, "depth unet": 112}
"""Trained networks and the sides of their images."""
SIDES = {**TRAINED, **{name: min(side for other, side in MODELS if other == name) for name, _ in MODELS}}
"""Networks, each at the smallest side at which it is verified."""
INTRODUCTION = """Written by `make sqnr`: signal to quantization noise in dB at W16A16, in the numbers that the chip
computes, of every operator's result against PyTorch's binary32. *Lowest* and *last* are with all noise from in front,
*own* is the lowest of a layer that reads the float model's values. *Rounded input* is the last result of the float
model when nothing but its input is rounded to 16 bits: what the network itself makes of noise. Random weights amplify
it, most in deep networks that only convolve; trained ones, as those of the depth models, do not."""


def _case(name: str) -> tuple[nn.Module, list[tuple[torch.Tensor, ...]], torch.Tensor]:
    """A network, batches to calibrate it on, and what it is measured on."""
    from benchmarks.depth.evaluate import calibration, held_out
    from benchmarks.depth.model import trained
    from benchmarks.zoo import NETWORKS

    if name in TRAINED:
        return trained(name.removeprefix("depth ")), [*calibration()], held_out(1)[0]
    shape = (3, SIDES[name], SIDES[name])
    network = NETWORKS[name]
    batches = [(network.images(1, seed, shape),) for seed in range(1, CALIBRATION + 1)]
    return network.model(0, shape), [*batches], batches[0][0]


def measure(name: str) -> Row:
    """One row: SQNR in dB, and the nodes and modules where it is lowest."""
    import torch

    from quantizer.flow import capture, quantize
    from quantizer.sqnr import decibels, sqnr

    model, batches, x = _case(name)
    graph = capture(model, (x,))
    rows = sqnr(graph, quantize(graph, (x,), batches, RECIPE), (x,))
    step = x.abs().max() / 2**15
    with torch.no_grad():
        float_result, other = (_first(model(value)) for value in (x, (x / step).round() * step))
    found: dict[str, Any] = {"layers": len(rows)}
    for key in ("sqnr_db", "own_db"):
        least = min((row for row in rows if isfinite(getattr(row, key))), key=lambda row: getattr(row, key))
        found |= {key: getattr(least, key), f"{key} node": f"{least.node} in {least.module or '(root)'}"}
    return {**found, "last_db": rows[-1].sqnr_db, "rounded input dB": decibels(float_result, other)}


def _first(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, (tuple, list)) else result


def measured(name: str) -> Row:
    """``measure`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sqnr", "--one", name]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "sources": sources(PACKAGES)}


def report(rows: Mapping[str, Row]) -> str:
    """The results as Markdown."""
    head = (
        "network", "side", "weights", "layers", "lowest", "where", "own", "where", "last", "rounded input", "sources",
    )  # fmt: skip
    cells = (
        (
            name,
            SIDES[name],
            "trained" if name in TRAINED else "random",
            row["layers"],
            *(cell for key in ("sqnr_db", "own_db") for cell in (f"{row[key]:.1f}", row[f"{key} node"])),
            f"{row['last_db']:.1f}",
            f"{row['rounded input dB']:.1f}",
            row["sources"],
        )
        for name, row in rows.items()
    )
    parts = ["# Noise at 16 bits", INTRODUCTION, markdown(head, cells)]
    missing = [f"* {name}" for name in SIDES if name not in rows]
    parts += ["## Not run", "\n".join(missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Fill the table; rows of these sources are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"all by default: {', '.join(SIDES)}")
    parser.add_argument("--output", type=Path, default=RESULTS / "sqnr.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if unknown := set(options.networks) - set(SIDES):
        parser.error(f"{', '.join(sorted(unknown))}: the networks are {', '.join(SIDES)}")
    rows: dict[str, Row] = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.networks or SIDES:
        if rows.get(name, {}).get("sources") != sources(PACKAGES):
            rows[name] = measured(name)
            rows = {name: rows[name] for name in SIDES if name in rows}
            write_results(options.output, rows, report(rows))
    print(options.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
