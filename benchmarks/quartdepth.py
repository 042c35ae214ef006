"""``make quartdepth``: the tables of QuartDepth (arXiv 2503.16709) on two depth networks that were trained here.

Every row is a network quantized by one method with one draw of calibration scenes, which is the seed of the method
too, and measured in device numerics on scenes of several sets. A row is kept in ``results/quartdepth.json`` as soon as
it is there, under what it depends on: recipe, checkpoint, calibration and scenes. A run that was stopped goes on;
a row whose recipe changed is measured again. One row of each recipe, its first draw's, also goes through the simulator.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import RESULTS
from benchmarks.depth.groups import STUDIED
from benchmarks.measure import sources
from quartic.files import write_text

if TYPE_CHECKING:
    import torch
    from torch import nn

    from benchmarks.depth.metrics import Metrics
    from quantizer import Recipe

PACKAGES = ("isa", "quantizer", "benchmarks/depth")
MACHINES = {"w4a8": "quartdepth28-w4a8", "w4a4": "quartdepth28-w4a4"}
SCENES, IMAGES, SEEDS = 24, 32, 3
"""Scenes measured per set, calibration scenes, and draws of them."""
APART = 1000
"""Seeds between the first calibration scenes of two draws: training scenes, none of which is measured."""
COUNTS = (8, 16, 32, 64, 128)
"""Calibration scenes along Fig. 8, which has 16 to 128."""
Row = dict[str, Any]


@dataclass(frozen=True, order=True)
class Case:
    """One row: ``images`` calibration scenes of draw ``seed``."""

    network: str
    width: str
    method: str
    images: int = IMAGES
    seed: int = 0

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        return f"{self.network} {self.width} {self.method} {self.images} {self.seed}"

    @property
    def recipe(self) -> Recipe | None:
        """None of the float network."""
        from benchmarks.depth.methods import recipe

        return None if self.method == "float" else recipe(self.method, self.width)

    @property
    def sets(self) -> tuple[str, ...]:
        """Scenes that it is measured on: those of Table 2 where it is a row there."""
        from benchmarks.depth.methods import TABLE2
        from benchmarks.depth.scenes import SETS

        all_of_them = self.method == "float" or (self.method in TABLE2 and self.images == IMAGES)
        return tuple(SETS) if all_of_them else tuple(SETS)[:1]

    def digest(self, scenes: int) -> str:
        """Of what its numbers depend on besides the code."""
        from benchmarks.depth.model import CHECKPOINTS
        from benchmarks.depth.scenes import SETS

        recipe = self.recipe
        said = (self.key, recipe and recipe.to_toml(), scenes, [SETS[name] for name in self.sets])
        return hashlib.sha256(repr(said).encode() + CHECKPOINTS[self.network].read_bytes()).hexdigest()[:16]


def cases(seeds: int = SEEDS) -> Iterator[Case]:
    """All rows once: float, Table 1 (whose rows Table 2 reads too), the ablation, Fig. 8; draw after draw."""
    from benchmarks.depth.methods import ABLATION, CURVES, TABLE1, WEIGHTS, WIDTHS, base
    from benchmarks.depth.model import COMPARED

    yield from (Case(network, "f32", "float", 0) for network in COMPARED)
    wanted: list[tuple[str, str, str, int]] = []
    for network in COMPARED:
        for method in TABLE1:
            widths = WIDTHS if base(method, "") != WEIGHTS else (WEIGHTS,)
            wanted += [(network, width, method, IMAGES) for width in widths]
    wanted += [(STUDIED, "w4a4", method, IMAGES) for method in ABLATION]
    wanted += [(STUDIED, "w4a4", method, images) for images in COUNTS for method in CURVES.values()]
    for seed in range(seeds):
        for key in dict.fromkeys(wanted):
            yield Case(*key, seed)


def calibration(seed: int, count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """``count`` training scenes of a draw: images [1, 3, H, W], and their exact depths."""
    import torch

    from benchmarks.depth.scenes import Scenes

    images, depths = Scenes().batch(seed * APART, count)
    return list(torch.from_numpy(images).split(1)), list(torch.from_numpy(depths).split(1))


@cache
def measured_on(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first ``count`` scenes of a set: images and exact depths."""
    import torch

    from benchmarks.depth.scenes import SETS, TEST

    images, depths = SETS[name].batch(TEST, count)
    return torch.from_numpy(images), torch.from_numpy(depths)


@cache
def network(name: str) -> nn.Module:
    """A trained network, captured once for all its rows."""
    from benchmarks.depth.model import trained
    from quantizer import capture

    return capture(trained(name), measured_on("held out", 1)[0])


def errors(model: Any, sets: Iterable[str], scenes: int) -> dict[str, Metrics]:
    """By set, of a ``model`` that gives a depth map, or a tuple with one, for one image."""
    import torch

    from benchmarks.depth.metrics import Metrics

    found: dict[str, Metrics] = {}
    for name in sets:
        images, truth = measured_on(name, scenes)
        with torch.no_grad():
            outputs = [model(image) for image in images.split(1)]
        found[name] = Metrics.of(torch.cat([o if isinstance(o, torch.Tensor) else o[0] for o in outputs]), truth)
    return found


def measure(case: Case, scenes: int = SCENES) -> Row:
    """Quantize, measure, and simulate one scene where this is the recipe's first draw. Times are CPU's."""
    import quartic
    from benchmarks.depth.train import loss_of
    from quantizer import quantize

    model, recipe = network(case.network), case.recipe
    start = time.process_time()
    if recipe is None:
        found, q, done = errors(model, case.sets, scenes), None, start
    else:
        images, depths = calibration(case.seed, case.images)
        batches = [(image,) for image in images]
        aims = {"targets": depths, "loss": loss_of, "seed": case.seed} if recipe.stages else {}
        q = quantize(model, batches[0], batches, recipe, **aims)
        done = time.process_time()
        # Products of codes and binary32 have no device numerics: the graph itself computes them.
        found = errors(quartic.reference(q) if recipe.compiles else q, case.sets, scenes)
    row = {
        **asdict(case),
        "digest": case.digest(scenes),
        "metrics": {name: asdict(metrics) for name, metrics in found.items()},
        "quantize seconds": done - start,
        "measure seconds": time.process_time() - done,
    }
    if q is not None and recipe is not None and recipe.compiles and case.seed == 0:
        row["exact"] = exact(q, MACHINES[case.width])
        row["machine"] = MACHINES[case.width]
    return row


def exact(q: Any, machine: str) -> bool:
    """Whether the simulator gives the reference's bits for the first held-out scene."""
    import torch

    import quartic

    image = measured_on("held out", 1)[0]
    run = quartic.simulate(quartic.compile(q, machine), image)
    return all(map(torch.equal, run.outputs, quartic.reference(q)(image)))


def known(path: Path) -> dict[str, Row]:
    """The rows of an earlier run."""
    return json.loads(path.read_text())["rows"] if path.exists() else {}


def fill(path: Path, wanted: Iterable[Case], scenes: int, again: bool) -> dict[str, Row]:
    """Measure the rows that ``path`` lacks, or has of another digest; each is written as soon as it is there.

    What a user could cause, as a graph that a recipe does not fit, becomes a row with the error's text.
    """
    from isa.errors import QuarticError

    rows, source = known(path), sources(PACKAGES)
    for case in wanted:
        if not again and rows.get(case.key, {}).get("digest") == case.digest(scenes):
            continue
        print(f"measuring {case.key}", file=sys.stderr, flush=True)
        try:
            row = measure(case, scenes)
            told = f"AbsRel {row['metrics']['held out']['abs_rel']:.4f}, {row['quantize seconds']:.0f} s"
        except QuarticError as error:
            row = {**asdict(case), "error": str(error)}
            told = row["error"]
        print(f"  {told}", file=sys.stderr, flush=True)
        rows[case.key] = {**row, "sources": source}
        write_text(path, json.dumps({"rows": rows}, indent=1) + "\n")
    return rows


def source(scenes: int) -> Row:
    """What the numbers depend on besides recipes and code, which each row says itself."""
    from benchmarks.depth.model import CHECKPOINTS, COMPARED
    from benchmarks.depth.scenes import TEST

    kept = {name: hashlib.sha256(CHECKPOINTS[name].read_bytes()).hexdigest() for name in COMPARED}
    return {
        "versions": {name: version(name) for name in ("quartic-npu", "torch", "torchao", "numpy")},
        "python": platform.python_version(),
        "checkpoints sha256": kept,
        "scenes per set": scenes,
        "first seed of scenes": TEST,
        "calibration scenes": IMAGES,
        "seeds between draws": APART,
    }


def write(folder: Path, rows: Mapping[str, Row], scenes: int) -> str:
    """The three files, each whole or not at all; gives the Markdown."""
    from benchmarks.depth.groups import groups
    from benchmarks.depth.model import COMPARED, trained
    from benchmarks.depth.outliers import of_network
    from benchmarks.depth.tables import curve, figure8, report

    images, _ = calibration(0, IMAGES)
    outliers = {name: of_network(trained(name), images) for name in COMPARED}
    said = {name: {part: asdict(o) for part, o in parts.items()} for name, parts in outliers.items()}
    about = source(scenes)
    text = report(rows, [case.key for case in cases()], about, outliers)
    picture = figure8(curve(groups(rows.values())))
    everything = {"provenance": about, "outliers": said, "rows": rows}
    write_text(folder / "quartdepth.json", json.dumps(everything, indent=1) + "\n")
    write_text(folder / "quartdepth.md", text)
    if picture is not None:
        write_text(folder / "quartdepth.svg", picture)
    return text


def chosen(wanted: Iterable[Case], options: argparse.Namespace) -> list[Case]:
    """Those that the command line names."""
    named = {name: getattr(options, name) for name in ("network", "width", "method")}
    return [case for case in wanted if all(not some or getattr(case, name) in some for name, some in named.items())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the tables and write them; exits with 1 where a bit differs or a row fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("network", "width", "method"):
        parser.add_argument(f"--{name}", nargs="+", help="only rows of these; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--again", action="store_true", help="also the rows that are there")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    options.output.mkdir(parents=True, exist_ok=True)
    wanted = chosen(cases(options.seeds), options)
    rows = fill(options.output / "quartdepth.json", wanted, options.scenes, options.again)
    print(write(options.output, rows, options.scenes))
    sys.exit(any("error" in rows[case.key] or not rows[case.key].get("exact", True) for case in wanted))


if __name__ == "__main__":
    main()
