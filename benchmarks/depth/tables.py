"""The rows of ``benchmarks.quartdepth`` as the paper's tables, beside its own figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from benchmarks.bench import markdown
from benchmarks.depth.findings import alike, findings
from benchmarks.depth.groups import FIELDS, STUDIED, Group, Groups, groups
from benchmarks.depth.methods import ABLATION, CURVES, FACTORS, ITERATIONS, RATE, TABLE1, TABLE2, WEIGHTS, WIDTHS
from benchmarks.depth.model import COMPARED
from benchmarks.depth.outliers import Outliers
from benchmarks.depth.plot import Point, chart
from benchmarks.depth.published import DATASETS, DEPTH_ANYTHING_L, METRIC3D_S
from benchmarks.depth.scenes import SETS

TITLES = {
    "float": "float",
    "obs": "OBS (GPTQ), weights only",
    "minmax": "min/max",
    "ema": "EMA",
    "percentile": "percentile 99.9",
    "mse": "range search alone",
    "adaround": "AdaRound",
    "brecq": "BRECQ",
    "printed": "QuartDepth as printed",
    "ours": "ours (LogNP where the error falls)",
}
NAMES = {"vit": "ViT + DPT", "unet": "convolutional encoder-decoder"}
Row = dict[str, Any]


def _order(network: str, images: int) -> Iterator[tuple[str, str, str, int]]:
    yield network, "f32", "float", 0
    for width in (WEIGHTS, *WIDTHS):
        for method in TABLE1:
            if (width == WEIGHTS) == (method == "obs"):
                yield network, width, method, images


def table1(found: Groups, network: str, images: int) -> str:
    """Every method at both widths, by all metrics; of the paper Metric3D with ViT-S on NYUv2."""
    head = ("method", "W/A", "AbsRel", "delta1", "delta2", "delta3", "RMSE m", "SILog", "CPU s", "bits equal")
    present = [found[key] for key in _order(network, images) if key in found]
    return markdown((*head, "paper: AbsRel", "delta1"), map(_row1, present))


def _row1(group: Group) -> tuple[str, ...]:
    cells = (group.told(field, digits=2 if field == "silog" else 4) for field in FIELDS)
    paper = METRIC3D_S.get((group.width, "ours" if group.method == "printed" else group.method))
    said = ("", "") if paper is None else (f"{paper[0]:.3f}", f"{paper[1]:.3f}")
    seconds = f"{group.seconds:.0f}" if group.method != "float" else ""
    return (TITLES[group.method], _width(group.width), *cells, seconds, group.exact, *said)


def _width(width: str) -> str:
    return {"f32": "32", WEIGHTS: "W4"}.get(width, width.upper())


def table2(found: Groups, network: str, images: int) -> str:
    """AbsRel and delta1 on every set of scenes."""
    keys = [key for key in _order(network, images) if key[2] in ("float", *TABLE2) and key in found]
    rows = ((TITLES[key[2]], _width(key[1]), *(_pair(found[key], name) for name in SETS)) for key in keys)
    return markdown(("method", "W/A", *SETS), rows)


def _pair(group: Group, scenes: str) -> str:
    return f"{group.told('abs_rel', scenes, 3)} / {group.mean('delta1', scenes):.3f}"


def published2() -> str:
    """The paper's own Table 2."""
    titles = {**TITLES, "ours": "QuartDepth"}
    lines = (
        (titles[method], _width(width), *(f"{a:.3f} / {d:.3f}" for a, d in cells))
        for (width, method), cells in DEPTH_ANYTHING_L.items()
    )
    return markdown(("method", "W/A", *DATASETS), lines)


def ablation(found: Groups, network: str, images: int) -> str:
    """Every subset of the method's parts at W4A4."""
    rows = [
        (*("yes" if factor in parts else "" for factor in FACTORS), *map(group.told, ("abs_rel", "delta1", "rmse")))
        for name, parts in ABLATION.items()
        if (group := found.get((network, "w4a4", name, images)))
    ]
    return markdown((*FACTORS, "AbsRel", "delta1", "RMSE m"), rows)


def effects(found: Groups, network: str, images: int) -> str:
    """What each part changes in AbsRel: the mean over the settings of the others, and in how many of them it helps."""
    lines: list[str] = []
    for factor in FACTORS:
        changes: list[float] = []
        for name, parts in ABLATION.items():
            if factor in parts:
                without = next(n for n, p in ABLATION.items() if set(p) == set(parts) - {factor})
                pair = [found.get((network, "w4a4", each, images)) for each in (name, without)]
                changes += [a.mean("abs_rel") - b.mean("abs_rel") for a, b in [pair] if a and b]
        if changes:
            helps = sum(change < 0 for change in changes)
            mean = sum(changes) / len(changes)
            lines.append(f"* {factor}: AbsRel {mean:+.4f} in the mean, less in {helps} of {len(changes)} settings")
    return "\n".join(lines)


def curve(found: Groups) -> dict[str, list[Point]]:
    """Fig. 8: number of scenes, AbsRel and its spread, by line."""
    return {
        line: [
            (group.images, group.mean("abs_rel"), group.spread("abs_rel"))
            for group in sorted(found.values(), key=lambda g: g.images)
            if (group.network, group.width, group.method) == (STUDIED, "w4a4", method)
        ]
        for line, method in CURVES.items()
    }


def figure8(lines: Mapping[str, list[Point]]) -> str | None:
    """As SVG; None as long as there are fewer than two points of a line."""
    if any(len(line) < 2 for line in lines.values()):
        return None
    return chart(f"W4A4 of the {NAMES[STUDIED]}, held-out scenes", "calibration scenes", "AbsRel", lines)


def table8(lines: Mapping[str, list[Point]]) -> str:
    """The same as a table."""
    counts = sorted({x for line in lines.values() for x, _, _ in line})
    by = {name: {x: f"{y:.4f} ± {e:.4f}" for x, y, e in line} for name, line in lines.items()}
    rows = ((f"{count:g}", *(by[name].get(count, "") for name in lines)) for count in counts)
    return markdown(("scenes", *lines), rows)


def outliers_table(found: Mapping[str, Mapping[str, Outliers]]) -> str:
    """Per channel, encoder against decoder."""
    head = ("network", "part", "channels", "P95 = 0", "median", "90th percentile", "largest", "between channels")
    return markdown(
        head,
        (
            (NAMES[network], part, o.channels, o.sparse, *map("{:.2f}".format, (o.median, o.tail, o.most, o.spread)))
            for network, parts in found.items()
            for part, o in parts.items()
        ),
    )


def introduction(scenes: int, images: int, draws: int) -> str:
    """What the tables hold."""
    return f"""Written by `make quartdepth`. Two networks trained on generated scenes ([benchmarks/depth](../depth)),
quantized after training with {images} training scenes. Figures are means over {draws} draws ± their standard deviation:
a draw is a set of calibration scenes and the seed of the method. Metrics are of `quartic.reference`, which
computes the chip's numbers, on {scenes} scenes that neither training nor calibration saw; SILog is times 100.
Of each recipe the first draw was compiled, and one scene simulated: *bits equal* says whether every bit of its
depth map was the reference's. OBS leaves activations in binary32, which no machine multiplies by codes. Learned
rounding takes {ITERATIONS} steps of {RATE} per layer or block where the paper takes 20,000. CPU seconds are of
quantizing, on one core. All methods share the formats of the preset below them: see
[methods.py](../depth/methods.py) for the recipes, which differ from the paper in that activations have one
scale per tensor and that elementwise operators are quantized too, to 8 bits. All learned rounding mixes float and
quantized inputs as QDrop does (`drop` = 0.5): the rows of AdaRound and BRECQ are stronger than their papers'."""


def progress(rows: Mapping[str, Row], wanted: Collection[str]) -> str:
    """How many of the rows ``wanted`` there are; without a draw's spread a figure is of one draw."""
    there = sum(key in rows and "error" not in rows[key] for key in wanted)
    if there == len(wanted):
        return ""
    return (
        f"**{there} of {len(wanted)} rows are measured**; `make quartdepth` goes on. "
        "Figures without a deviation are of one draw so far, and claims whose rows are missing are not judged."
    )


def decoder_has_them(found: Mapping[str, Mapping[str, Outliers]]) -> str:
    """Whether the decoder's channels have more outliers than the encoder's, as the paper says of its network."""
    lines: list[str] = []
    for network, parts in found.items():
        if {"encoder", "decoder"} <= set(parts):
            encoder, decoder = parts["encoder"], parts["decoder"]
            holds = decoder.median > encoder.median and decoder.tail > encoder.tail
            pairs = {"median": (decoder.median, encoder.median), "90th percentile": (decoder.tail, encoder.tail)}
            told = ", ".join(f"{name} {one:.2f} to {other:.2f}" for name, (one, other) in pairs.items())
            said = "reproduces" if holds else "**does not reproduce**"
            lines.append(f"* {said}: {network}: outliers are the decoder's more than the encoder's ({told})")
    return "\n".join(lines)


def report(
    rows: Mapping[str, Row], wanted: Collection[str], source: Row, found: Mapping[str, Mapping[str, Outliers]]
) -> str:
    """All tables as Markdown; ``wanted`` are the keys of all rows."""
    by, images = groups(rows.values()), source["calibration scenes"]
    failed = [f"* {key}: {row['error']}" for key, row in rows.items() if "error" in row]
    draws = len({row["seed"] for row in rows.values()})
    parts = ["# QuartDepth's tables", introduction(source["scenes per set"], images, draws)]
    parts += [progress(rows, wanted), "## What reproduces"]
    parts.append("\n".join(filter(None, (findings(by, images), decoder_has_them(found), alike(by, images)))))
    parts += ["## Table 1", "The paper's columns are Metric3D with ViT-S on NYUv2."]
    for network in COMPARED:
        parts += [f"### {NAMES[network]}", table1(by, network, images)]
    parts += ["## Table 2: scenes unlike those of training", "AbsRel ± its spread / delta1."]
    for network in COMPARED:
        parts += [f"### {NAMES[network]} on generated scenes", table2(by, network, images)]
    parts += ["### The paper: Depth Anything, ViT-L", published2()]
    lines = curve(by)
    parts += ["## Fig. 8: calibration scenes", table8(lines)]
    if figure8(lines):
        parts.append("![AbsRel over the number of calibration scenes](quartdepth.svg)")
    parts += ["## Ablation at W4A4, which the paper lacks", f"Of the {NAMES[STUDIED]}."]
    parts += [ablation(by, STUDIED, images), effects(by, STUDIED, images)]
    parts += ["## Outliers within channels", OUTLIERS, outliers_table(found)]
    parts += ["## Failed", "\n".join(failed)] if failed else []
    parts += ["## Provenance", "```json\n" + json.dumps(source, indent=2) + "\n```"]
    return "\n\n".join(filter(None, parts)) + "\n"


OUTLIERS = """They are what LogNP is for. Per input channel of every convolution and linear layer: the largest
magnitude over the 95th percentile of magnitudes, both as means over the calibration scenes. *Between channels* is,
within a layer, the largest magnitude of any channel over that of the median channel; the median of the layers."""
