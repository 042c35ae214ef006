"""``make sqnr``: the noise of every network at 16 bits, layer by layer against float.

Inputs are ones that calibration did not see. Those of TRAINED are trained here: on scenes (``benchmarks.depth``), on
pictures of shapes (``benchmarks.classify``), on scikit-learn's digits (``benchmarks.digits``). The others have random
weights and are calibrated on two images. Each is measured in a process of its own, which returns its memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import RESULTS, Row, markdown, write_results
from benchmarks.measure import PACKAGES, ROOT, sources
from benchmarks.networks import CALIBRATION, MODELS

if TYPE_CHECKING:
    import torch
    from torch import nn

RECIPE = "w16a16"
SHAPES = ("separable", "residual", "mobilenet_v1", "resnet18")
TRAINED = {
    **dict.fromkeys(("depth vit", "depth unet", "depth metric3d"), 112),
    **dict.fromkeys((f"shapes {name}" for name in SHAPES), 32),
    "digits": 8,
}
"""Trained networks and the sides of their images."""
SCENES, PICTURES = 4, 100
"""Measured on so many: scenes one by one, pictures in one batch."""
SIDES = {**TRAINED, **{name: min(side for other, side in MODELS if other == name) for name, _ in MODELS}}
"""Networks, each at the smallest side at which it is verified."""
INTRODUCTION = f"""Written by `make sqnr`: signal to quantization noise in dB at W16A16, in the numbers that the chip
computes, of every operator's result against PyTorch's binary32, on inputs that calibration did not see. *Lowest* and
*results*, those of the network, are with all noise from in front, *own* is the lowest of a layer that reads the float
model's values. *Rounded input* is the float model's result when nothing but its input is rounded to 16 bits: what the
network itself makes of noise. All figures are the lowest of the inputs: {SCENES} scenes, a batch of {PICTURES}
pictures, one random image. Of *trained* networks the depth models are `benchmarks/depth`'s, calibrated on 64 scenes;
those of *shapes* and *digits* learned 10 classes of pictures of 32 x 32 (`benchmarks/classify`) and of 8 x 8
(`benchmarks/digits`) and are calibrated on {PICTURES}.

Random weights amplify noise, most in deep networks that only convolve: see what becomes of a rounded input. In
Metric3D of random weights, logits of depth bins have a standard deviation of 25, and the noise of what a softmax makes
of them is 20 dB above theirs; in the trained one it is not."""


def _case(name: str) -> tuple[nn.Module, list[tuple[torch.Tensor, ...]], list[torch.Tensor]]:
    """A network, batches to calibrate it on, and inputs that it is measured on."""
    from benchmarks.depth.evaluate import calibration, held_out
    from benchmarks.depth.model import trained
    from benchmarks.zoo import NETWORKS

    kind, _, which = name.rpartition(" ")
    if kind == "depth":
        return trained(which), [*calibration()], [*held_out(SCENES)[0].split(1)]
    if name in TRAINED:
        from benchmarks.classify.measure import data, network
        from benchmarks.classify.train import trained_of_zoo

        images, _, unseen, _ = data(name)
        model = trained_of_zoo(which) if kind and which in NETWORKS else network(which, 0, "relu", 1.0, False)
        return model, [(images[:PICTURES],)], [unseen[:PICTURES]]
    shape = (3, SIDES[name], SIDES[name])
    row = NETWORKS[name]
    *batches, frame = (row.images(1, seed, shape) for seed in range(1, CALIBRATION + 2))
    return row.model(0, shape), [(batch,) for batch in batches], [frame]


def measure(name: str) -> Row:
    """One row: SQNR in dB, and the nodes and modules where it is lowest."""
    from quantizer.flow import capture, quantize
    from quantizer.sqnr import sqnr

    model, batches, frames = _case(name)
    graph = capture(model, (frames[0],))
    q = quantize(graph, (frames[0],), batches, RECIPE)
    rows = [sqnr(graph, q, (frame,)) for frame in frames]
    found: dict[str, Any] = {"layers": len(rows[0])}
    everywhere = [row for each in rows for row in each]
    for key in ("sqnr_db", "own_db"):
        least = min(everywhere, key=lambda row: getattr(row, key))
        found |= {key: getattr(least, key), f"{key} node": f"{least.node} in {least.module or '(root)'}"}
    results = {node.name for node in q.graph.output_node().all_input_nodes}
    rounded = min(_rounded_input(model, frame) for frame in frames)
    return {**found, "result_db": min(r.sqnr_db for r in everywhere if r.node in results), "rounded input dB": rounded}


def _rounded_input(model: nn.Module, x: torch.Tensor) -> float:
    """The lowest SQNR in dB of the float model's results where its input is rounded to 16 bits."""
    import torch

    from quantizer.sqnr import decibels

    step = x.abs().max() / 2**15
    with torch.no_grad():
        pairs = zip(*(_results(model(value)) for value in (x, (x / step).round() * step)), strict=True)
    return min(decibels(*pair) for pair in pairs)


def _results(found: Any) -> tuple[torch.Tensor, ...]:
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def measured(name: str) -> Row:
    """``measure`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sqnr", "--one", name]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "sources": sources(PACKAGES)}


def report(rows: Mapping[str, Row]) -> str:
    """The results as Markdown."""
    head = (
        "network", "side", "weights", "layers", "lowest", "where", "own", "where", "results", "rounded input",
        "sources",
    )  # fmt: skip
    cells = (
        (
            name,
            SIDES[name],
            "trained" if name in TRAINED else "random",
            row["layers"],
            *(cell for key in ("sqnr_db", "own_db") for cell in (f"{row[key]:.1f}", row[f"{key} node"])),
            f"{row['result_db']:.1f}",
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
