"""Simulated energy against depth error: ``python -m benchmarks.depth.pareto`` (``make pareto``).

Widths are assigned to the layers of the depth model at several budgets of energy; each assignment, and each preset of
one width, is simulated, and its AbsRel is that of held-out scenes in device numerics, which are the chip's bits.
Writes ``pareto.json``, ``pareto.md`` and the picture ``pareto.svg`` into ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import RESULTS, markdown, provenance
from quartic.files import write_text

if TYPE_CHECKING:
    from quartic.assignment import Assigner

UNIFORM = ("w4a4", "w4a8", "w8a8", "w8a16")


@dataclass(frozen=True)
class Row:
    """One quantized graph: predicted (None for a preset) and simulated cost of a frame, and its depth error."""

    name: str
    predicted_joules: float | None
    joules: float
    seconds: float
    abs_rel: float
    delta1: float
    sqnr_db: float
    widths: dict[str, int]


def start_recipe() -> Any:
    """W8A8 with ranges of least error: at 4 bits the extremes take the codes from all else."""
    import quartic
    from quantizer import Change
    from quantizer.ranges import MeanError

    base = quartic.recipe("w8a8")
    return replace(base, activation=base.activation.changed(Change(range=MeanError())))


def measured(assigner: Assigner, name: str, widths: dict[str, str], predicted: float | None, scenes: int) -> Row:
    """Compile, simulate, and evaluate on held-out scenes."""
    import torch

    import quartic
    from benchmarks.depth.evaluate import held_out
    from benchmarks.depth.metrics import Metrics

    graph = quartic.quantize(
        assigner.captured, assigner.example_inputs, assigner.batches, recipe=assigner.recipe_of(widths)
    )
    run = quartic.timing(quartic.compile(graph, assigner.machine))
    images, truth = held_out(scenes)
    device = quartic.reference(graph)
    found = Metrics.of(torch.cat([device(image)[0] for image in images.split(1)]), truth)
    counts = dict(Counter(widths.values()))
    return Row(
        name, predicted, run.joules, run.seconds, found.abs_rel, found.delta1, assigner.sqnr_db(graph), counts
    )


def uniform(assigner: Assigner, width: str) -> dict[str, str]:
    """This width for every layer that has it; of a product, whose sides are equally wide, that of its activations."""
    other = {"w4a8": "w8a8", "w8a16": "w16a16"}
    rows = {layer.module: layer.losses for layer in assigner.sensitivity.layers}
    return {module: width if width in rows[module] else other[width] for module in assigner.start}


def report(rows: Sequence[Row], floats: float, head: str) -> str:
    """The table as Markdown."""
    cells = [
        (
            row.name,
            "" if row.predicted_joules is None else f"{row.predicted_joules * 1e3:.4f}",
            f"{row.joules * 1e3:.4f}",
            f"{row.seconds * 1e3:.4f}",
            f"{row.abs_rel:.4f}",
            f"{row.delta1:.4f}",
            f"{row.sqnr_db:.1f}",
            ", ".join(f"{count} {width}" for width, count in sorted(row.widths.items())),
        )
        for row in rows
    ]
    columns = ("widths", "predicted mJ", "simulated mJ", "simulated ms", "AbsRel", "delta1", "SQNR dB", "layers")
    table = markdown(columns, cells)
    return f"# Energy against depth error\n\n{head} Float: AbsRel {floats:.4f}.\n\n{table}\n\n![](pareto.svg)\n"


def drawing(rows: Sequence[Row], floats: float) -> str:
    """The picture: a line through the assignments, a dot for every preset."""
    width, height, left, low = 640, 400, 70, 50
    xs, ys = [row.joules * 1e3 for row in rows], [row.abs_rel for row in rows]
    x0, x1 = 0.95 * min(xs), 1.05 * max(xs)
    y0, y1 = min(*ys, floats) - 0.002, min(max(ys), 1.35 * floats)

    def at(row: Row) -> tuple[float, float]:
        share = (min(row.abs_rel, y1) - y0) / (y1 - y0)
        return left + (row.joules * 1e3 - x0) / (x1 - x0) * (width - left - 20), height - low - share * (
            height - low - 20
        )

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12">{words}</text>'

    assigned = sorted((row for row in rows if row.predicted_joules is not None), key=lambda row: row.joules)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, assigned))
    floor = height - low - (floats - y0) / (y1 - y0) * (height - low - 20)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left},20 V{height - low} H{width - 20}" fill="none" stroke="black"/>',
        f'<line x1="{left}" x2="{width - 20}" y1="{floor:.1f}" y2="{floor:.1f}" stroke="grey" stroke-dasharray="4"/>',
        text(width - 24, floor + 14, "float", "end"),
        f'<polyline points="{path}" fill="none" stroke="#7e03a8" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#7e03a8"/>' for x, y in map(at, assigned)),
    ]
    for row in rows:
        if row.predicted_joules is None:
            x, y = at(row)
            above = f"{row.name}" + (f" ({row.abs_rel:.3f})" if row.abs_rel > y1 else "")
            parts.append(f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="#f89540"/>')
            parts.append(text(x, y - 8, above))
    for i in range(5):
        x, y = x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4
        parts.append(text(left + (width - left - 20) * i / 4, height - low + 18, f"{x:.3f}"))
        parts.append(text(left - 6, height - low - (height - low - 20) * i / 4 + 4, f"{y:.3f}", "end"))
    parts += [
        text((left + width) / 2, height - 12, "simulated mJ of a frame (line: assigned widths, squares: one width)"),
        text(left, 14, "AbsRel"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Measure, write the three files, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--machine", default="edge28")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from benchmarks.depth.evaluate import calibration, float_depth, held_out
    from benchmarks.depth.metrics import Metrics
    from benchmarks.depth.model import trained
    from quartic.assignment import assigner

    model, batches = trained(), calibration()
    images, truth = held_out(options.scenes)
    floats = Metrics.of(float_depth(model, images), truth).abs_rel
    found = assigner(
        model,
        (batches[0][0][:1],),
        batches,
        options.machine,
        start_recipe(),
        samples=options.samples,
        progress=lambda what: print(what, file=sys.stderr),
    )
    front = found.front(options.points, simulate=0, by="energy")
    rows = [measured(found, name, uniform(found, name), None, options.scenes) for name in UNIFORM]
    rows += [
        measured(found, f"assigned {i}", dict(p.widths), p.predicted.energy_joules, options.scenes)
        for i, p in enumerate(front, 1)
    ]
    head = (
        f"Written by `make pareto` on {options.machine}: the depth model, {options.scenes} held-out scenes, losses "
        f"by SQNR on {options.samples} samples, ranges of least error, {options.points} budgets of energy."
    )
    general = provenance([{"machine": options.machine}])
    source = {key: value for key, value in general.items() if key not in ("seed", "cores")}
    text = report(rows, floats, head)
    write_text(
        options.output / "pareto.json",
        json.dumps({"provenance": source, "float abs_rel": floats, "rows": [asdict(r) for r in rows]}, indent=1) + "\n",
    )
    write_text(options.output / "pareto.md", text)
    write_text(options.output / "pareto.svg", drawing(rows, floats))
    print(text)


if __name__ == "__main__":
    main()
