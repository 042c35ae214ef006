"""Measure the depth model at every recipe: ``python -m benchmarks.depth.evaluate`` (``make depth``).

Float, quantized in device numerics and simulated chip on the same held-out scenes; writes ``depth.json``, ``depth.md``
and the picture ``depth.png`` into ``benchmarks/results``, each whole or not at all. Fails where a bit differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import RESULTS, markdown, provenance
from quartic.files import write_text

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from benchmarks.depth.metrics import Metrics
    from quartic.executable import Executable

RECIPES = ("w8a8", "w4a8", "w4a4", "w8a16", "w16a16")
CALIBRATION, CALIBRATION_BATCH = 64, 16
SHOWN, SHOWN_RECIPES = 3, ("w8a8", "w4a8", "w4a4")
NEAR, FAR = 1.0, 10.0
"""Metres that the colours of the picture span."""


@dataclass(frozen=True)
class Evaluation:
    """One recipe on one machine, over all scenes; times and energies are of one frame."""

    recipe: str
    machine: str
    reference: Metrics
    simulated: Metrics
    equal: int
    """Scenes on which simulator and reference agree in every bit."""
    depth: torch.Tensor
    """What the simulated chip computes, [scenes, 1, H, W], metres."""
    figures: dict[str, Any]
    """:func:`quartic.results.summary` of a frame, and instructions, constant bytes."""


def calibration() -> list[tuple[torch.Tensor]]:
    """Batches of training scenes: none of them is measured."""
    import torch

    from benchmarks.depth.scenes import Scenes

    images = torch.from_numpy(Scenes().batch(0, CALIBRATION)[0])
    return [(part,) for part in images.split(CALIBRATION_BATCH)]


def held_out(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [count, 3, H, W] and exact depths [count, 1, H, W] that neither training nor its validation saw."""
    import torch

    from benchmarks.depth.scenes import TEST, Scenes

    images, depths = Scenes().batch(TEST, count)
    return torch.from_numpy(images), torch.from_numpy(depths)


def compiled(model: nn.Module, recipe: str, machine: str) -> tuple[GraphModule, Executable]:
    """The quantized graph for one frame, and its binary."""
    import quartic

    batches = calibration()
    q = quartic.quantize(model, (batches[0][0][:1],), batches, recipe=recipe)
    return q, quartic.compile(q, machine=machine)


def evaluated(model: nn.Module, recipe: str, machine: str, images: torch.Tensor, truth: torch.Tensor) -> Evaluation:
    """Reference and simulator on every scene, one frame at a time."""
    import torch

    import quartic
    from benchmarks.depth.metrics import Metrics
    from quartic.results import summary

    q, exe = compiled(model, recipe, machine)
    reference = quartic.reference(q)
    expected = [reference(image)[0] for image in images.split(1)]
    runs = [quartic.simulate(exe, image) for image in images.split(1)]
    depth = [run.outputs[0] for run in runs]
    figures = {**summary(runs[0].profile), "instructions": exe.instructions}
    return Evaluation(
        recipe,
        machine,
        Metrics.of(torch.cat(expected), truth),
        Metrics.of(torch.cat(depth), truth),
        sum(map(torch.equal, expected, depth)),
        torch.cat(depth),
        {**figures, "constant bytes": len(exe.binary.constants)},
    )


def float_depth(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The model in PyTorch's binary32, one frame at a time as the chip runs it."""
    import torch

    with torch.no_grad():
        return torch.cat([model(image) for image in images.split(1)])


def accuracy_table(floats: Metrics, found: Sequence[Evaluation]) -> str:
    """Metrics of float, then reference and simulator by recipe."""
    head = ("output", "AbsRel", "delta1", "delta2", "delta3", "RMSE m", "SILog", "bits equal")
    rows: list[tuple[str, ...]] = [("float (PyTorch)", *_cells(floats), "")]
    for each in found:
        name, scenes = each.recipe.upper(), len(each.depth)
        rows.append((f"{name} reference", *_cells(each.reference), ""))
        rows.append((f"{name} simulated", *_cells(each.simulated), f"{each.equal} of {scenes} frames"))
    return markdown(head, rows)


def _cells(metrics: Metrics) -> tuple[str, ...]:
    m = metrics
    return (*(f"{v:.4f}" for v in (m.abs_rel, m.delta1, m.delta2, m.delta3, m.rmse)), f"{m.silog:.2f}")


def chip_table(found: Sequence[Evaluation]) -> str:
    """What a frame takes."""
    head = ("recipe", "machine", "cycles", "ms", "utilization", "mJ", "mJ band", "DRAM KiB", "constants KiB")
    return markdown(head, map(_chip_row, found))


def _chip_row(each: Evaluation) -> tuple[str, ...]:
    figures, band = each.figures, each.figures["joules band"]
    moved = figures["DRAM read bytes"] + figures["DRAM write bytes"]
    return (
        each.recipe.upper(),
        each.machine,
        f"{figures['cycles']:,}",
        f"{figures['seconds'] * 1e3:.3f}",
        f"{figures['utilization']:.1%}",
        f"{figures['joules']['total'] * 1e3:.3f}",
        f"{band['low'] * 1e3:.3f} to {band['high'] * 1e3:.3f}",
        f"{moved / 1024:,.0f}",
        f"{figures['constant bytes'] / 1024:,.0f}",
    )


def report(floats: Metrics, found: Sequence[Evaluation], source: dict[str, Any]) -> str:
    """The results as Markdown."""
    scenes = source["scenes"]
    head = (
        f"Written by `make depth`: {source['parameters']:,} parameters on {scenes['count']} held-out scenes of "
        f"{scenes['size']} x {scenes['size']} (seeds from {scenes['first seed']}), all of them through the simulator.\n"
        f"Calibrated on {CALIBRATION} training scenes in batches of {CALIBRATION_BATCH}; plain post-training min/max, "
        "nothing learned at 4 bits.\nMetrics are over the pixels of a frame, averaged over the frames."
    )
    legend = (
        "From left to right: image, exact depth, float, then the simulated chip at "
        + ", ".join(name.upper() for name in SHOWN_RECIPES)
        + f"; yellow is {NEAR:g} m, blue {FAR:g} m.\n\n![depth maps](depth.png)"
    )
    parts = (
        ("# Depth model", head),
        ("## Accuracy", accuracy_table(floats, found)),
        ("## One frame on the simulated chip", chip_table(found)),
        ("## Depth maps", legend),
        ("## Provenance", "```json\n" + json.dumps(source, indent=2) + "\n```"),
    )
    return "\n\n".join(f"{title}\n\n{body}" for title, body in parts) + "\n"


def sources(found: Sequence[Evaluation], model: nn.Module, count: int) -> dict[str, Any]:
    """What the numbers depend on."""
    from benchmarks.depth.model import CHECKPOINT, SIZE
    from benchmarks.depth.scenes import TEST

    general = provenance([{"machine": each.machine} for each in found])
    return {
        **{key: value for key, value in general.items() if key not in ("seed", "cores")},
        "checkpoint_sha256": hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "scenes": {"count": count, "first seed": TEST, "size": SIZE},
    }


def as_json(floats: Metrics, found: Sequence[Evaluation], source: dict[str, Any]) -> str:
    """Everything but the pixels."""
    rows = [
        {
            "recipe": each.recipe,
            "machine": each.machine,
            "reference": asdict(each.reference),
            "simulated": asdict(each.simulated),
            "equal frames": each.equal,
            **each.figures,
        }
        for each in found
    ]
    return json.dumps({"provenance": source, "float": asdict(floats), "rows": rows}, indent=1) + "\n"


def picture(images: torch.Tensor, truth: torch.Tensor, floats: torch.Tensor, found: Sequence[Evaluation]) -> Any:
    """The first scenes as rows under captions: image, exact depth, float, simulated chip by recipe."""
    from benchmarks.depth import picture as draw

    shown = [each for each in found if each.recipe in SHOWN_RECIPES]
    depths = [truth, floats, *(each.depth for each in shown)]
    rows = [
        [draw.photograph(images[i].numpy()), *(draw.coloured(d[i, 0].numpy(), NEAR, FAR) for d in depths)]
        for i in range(min(SHOWN, len(images)))
    ]
    return draw.sheet(("input", "exact", "float", *(each.recipe for each in shown)), rows)


def main() -> None:
    """Measure, write the three files, print the tables; exit 1 where simulator and reference differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--machine", default="edge28")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from benchmarks.depth.metrics import Metrics
    from benchmarks.depth.model import trained
    from benchmarks.depth.picture import write_png

    model = trained()
    images, truth = held_out(options.scenes)
    floats = float_depth(model, images)
    metrics = Metrics.of(floats, truth)
    found: list[Evaluation] = []
    for recipe in options.recipes:
        print(f"measuring {recipe} on {options.machine}", file=sys.stderr)
        found.append(evaluated(model, recipe, options.machine, images, truth))
    source = sources(found, model, options.scenes)
    options.output.mkdir(parents=True, exist_ok=True)
    text = report(metrics, found, source)
    write_text(options.output / "depth.json", as_json(metrics, found, source))
    write_text(options.output / "depth.md", text)
    write_png(options.output / "depth.png", picture(images, truth, floats, found))
    print(text)
    different = [each.recipe for each in found if each.equal != len(images)]
    if different:
        raise SystemExit(f"the simulated bits differ from the reference's at {', '.join(different)}")


if __name__ == "__main__":
    main()
