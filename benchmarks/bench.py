"""``make bench``: measure the reference networks and write ``benchmarks/results/bench.{json,md}``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isa.files import write_atomically

RESULTS = Path(__file__).parent / "results"
QUICK = ("digits", "mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "inception_v3")
DEPTH = ("depth_anything_v2_s", "quartdepth28-w4a8", "w4a8")
Row = dict[str, Any]
Key = tuple[str, str, str]
"""Network, machine, recipe."""
Target = tuple[str, Callable[[Row], float], float]
PACKED = """Packed parameters are the weights' codes and, per output channel, its binary32 scale and bias.

"""
BOUNDS = """MAC: every product of the graph, those of two activations and of transposed convolutions too, at the array's
peak in the mode of its widths. Array: with the padding that the array's shape forces. DRAM: weights, image and result
once. Layer by layer: every layer reads and writes DRAM, which fused layers need not.

"""
WALLS = """Medians of rounds that run all of them. The first simulation reads the binary's bytes and proves the
program free of races, deadlocks and uninitialised reads; both are kept with the binary, so a later one is
function, time and energy.

"""


def provenance(rows: Sequence[Row]) -> Row:
    """What the numbers depend on: machines and energy tables with digests, versions, seed, host."""
    from benchmarks.measure import SEED
    from isa.energy import EnergyTable
    from isa.machine import Machine

    machines = [Machine.load(name) for name in dict.fromkeys(row["machine"] for row in rows)]
    tables = {machine.energy: EnergyTable.load(machine.energy).digest for machine in machines}
    return {
        "machines": {machine.name: machine.digest for machine in machines},
        "energy tables": tables,
        "versions": {name: version(name) for name in ("quartic-npu", "torch", "torchao", "xdsl", "numpy")},
        "python": platform.python_version(),
        "seed": SEED,
        "cores": os.cpu_count(),
    }


def measured(network: str, machine: str, repeat: int, recipe: str = "w8a8") -> Row:
    """Measure one network in a process of its own, so that memory and caches are its own."""
    command = [sys.executable, "-m", "benchmarks.measure", network, "--machine", machine, "--repeat", str(repeat)]
    command += ["--recipe", recipe]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; the first column to the left."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def write_results(path: Path, found: Mapping[str, Any], page: str) -> None:
    """``found`` as the JSON file ``path``, ``page`` as the Markdown beside it, each whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(found, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), page)


def _name(row: Row) -> str:
    """The network, and recipe and machine where they are not the usual ones."""
    others = [row[key] for key, usual in (("recipe", "w8a8"), ("machine", "edge28")) if row[key] != usual]
    return " ".join([row["network"], *others])


def _key(row: Row) -> Key:
    return row["network"], row["machine"], row["recipe"]


def chip_table(rows: Sequence[Row]) -> str:
    """What the simulated machine does, against the bounds."""
    head = ("network", "machine", "MMAC", "bits equal", "cycles", "ms", "utilization", "bound ms", "ratio", "mJ")
    return markdown(
        head,
        (
            (
                _name(row),
                row["machine"],
                f"{row['macs'] / 1e6:,.1f}",
                "yes" if row["exact"] else "**no**",
                f"{row['cycles']:,}",
                f"{row['seconds'] * 1e3:.3f}",
                f"{row['utilization']:.1%}",
                f"{row['bound seconds'] * 1e3:.3f}",
                f"{row['seconds'] / row['bound seconds']:.2f}",
                f"{row['joules']['total'] * 1e3:.3f}",
            )
            for row in rows
        ),
    )


def energy_table(rows: Sequence[Row]) -> str:
    """Millijoules by component."""
    parts = [name for name in rows[0]["joules"]]
    return markdown(
        ("network", *parts),
        ((_name(row), *(f"{row['joules'][part] * 1e3:.4f}" for part in parts)) for row in rows),
    )


def bounds_table(rows: Sequence[Row]) -> str:
    """Every bound of time and the one of energy, and how far the simulation is above it."""
    kinds = list(rows[0]["bounds"])
    return markdown(
        ("network", *(f"{kind}: ms (ratio)" for kind in kinds), "energy: mJ (ratio)"),
        (
            (
                _name(row),
                *(f"{row['bounds'][kind] * 1e3:.3f} ({row['seconds'] / row['bounds'][kind]:.2f})" for kind in kinds),
                f"{row['bound joules'] * 1e3:.3f} ({row['joules']['total'] / row['bound joules']:.2f})",
            )
            for row in rows
        ),
    )


def compile_table(rows: Sequence[Row]) -> str:
    """Compile time by stage, and what came out."""
    stages = list(rows[0]["stages"])
    head = ("network", "compile s", *stages, "instructions", "binary bytes", "constants / packed", "code share", "MiB")
    return markdown(
        head,
        (
            (
                _name(row),
                f"{row['compile seconds']:.2f}",
                *(f"{row['stages'].get(stage, 0.0):.2f}" for stage in stages),
                f"{row['instructions']:,}",
                f"{row['binary bytes']:,}",
                f"{row['constant bytes'] / row['packed bytes']:.3f}",
                f"{row['code bytes'] / row['binary bytes']:.1%}",
                f"{row['peak bytes'] / 2**20:,.0f}",
            )
            for row in rows
        ),
    )


def wall_table(rows: Sequence[Row]) -> str:
    """Wall time of the simulation against PyTorch in the same process."""
    head = (
        "network", "float32 ms", "Q/DQ graph ms", "reference ms", "first simulation ms", "simulation ms", "/ float32",
        "/ Q/DQ", "timing only ms", "/ Q/DQ",
    )  # fmt: skip

    def cells(row: Row) -> tuple[str, ...]:
        wall = row["walls"]
        simulate, timing = wall["simulate"], wall["timing only"]
        return (
            _name(row),
            *(f"{wall[name] * 1e3:.1f}" for name in ("float", "qdq", "reference", "first", "simulate")),
            f"{simulate / wall['float']:.2f}",
            f"{simulate / wall['qdq']:.2f}",
            f"{timing * 1e3:.1f}",
            f"{timing / wall['qdq']:.2f}",
        )

    return markdown(head, map(cells, rows))


def _compile_seconds(row: Row) -> float:
    return row["compile seconds"]


def _over_bound(row: Row) -> float:
    return row["seconds"] / row["bound seconds"]


def _code_share(row: Row) -> float:
    return row["code bytes"] / row["binary bytes"]


def _packing(row: Row) -> float:
    return row["constant bytes"] / row["packed bytes"]


def _peak_gib(row: Row) -> float:
    return row["peak bytes"] / 2**30


def _dram_over_least(row: Row) -> float:
    return (row["DRAM read bytes"] + row["DRAM write bytes"]) / row["least DRAM bytes"]


def _walls(work: str, reference: str) -> Callable[[Row], float]:
    return lambda row: row["walls"][work] / row["walls"][reference]


def _convolutional(compile_seconds: float, over_bound: float) -> tuple[Target, ...]:
    return (
        ("compile seconds", _compile_seconds, compile_seconds),
        ("latency / bound", _over_bound, over_bound),
        ("code share of the binary", _code_share, 0.05),
        ("constants / packed parameters", _packing, 1.02),
        ("peak GiB of compile and run", _peak_gib, 2.0),
    )


TARGETS: dict[Key, tuple[Target, ...]] = {
    ("mobilenet_v2", "edge28", "w8a8"): _convolutional(2.0, 3.0),
    ("resnet50", "edge28", "w8a8"): (
        *_convolutional(5.0, 1.5),
        ("simulation / eager Q/DQ graph", _walls("simulate", "qdq"), 1.0),
        ("timing only / eager Q/DQ graph", _walls("timing only", "qdq"), 0.1),
    ),
    DEPTH: (
        ("compile seconds", _compile_seconds, 60.0),
        ("simulation / float32", _walls("simulate", "float"), 2.0),
        ("peak GiB of compile and run", _peak_gib, 6.0),
        ("DRAM bytes / (weights, image, result)", _dram_over_least, 1.3),
    ),
}
"""(what, its value in a row, at most) by network, machine and recipe."""


def parts_table(row: Row) -> str:
    """Where a network's cycles, energy and traffic went, module by module."""
    from benchmarks.parts import HEAD, Part

    return markdown(HEAD, (Part(**part).cells(row["cycles"]) for part in row["parts"]))


def targets(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """(what, measured, at most) of every target that the measured networks have."""
    return [
        (f"{_name(row)}: {what}", value(row), most)
        for row in rows
        for what, value, most in TARGETS.get(_key(row), ())
    ]


def report(rows: Sequence[Row], source: Row) -> str:
    """The results as Markdown."""
    met = (
        (what, f"{value:.3f}", f"{most:g}", "yes" if value <= most else "**no**") for what, value, most in targets(rows)
    )
    checks = markdown(("target", "measured", "at most", "met"), met)
    parts = (
        ("# Measurements", "Written by `make bench`; wall times are medians on a shared machine, compare ratios."),
        ("## Simulated machine", chip_table(rows)),
        ("## Energy, mJ", energy_table(rows)),
        ("## Bounds", BOUNDS + bounds_table(rows)),
        *((f"## {_name(row)} by module", parts_table(row)) for row in rows if _key(row) == DEPTH),
        ("## Compiler", PACKED + compile_table(rows)),
        ("## Simulator against PyTorch", WALLS + wall_table(rows)),
        ("## Targets", checks),
        ("## Provenance", "```json\n" + json.dumps(source, indent=2) + "\n```"),
    )
    return "\n\n".join(f"{title}\n\n{body}" for title, body in parts) + "\n"


def main() -> None:
    """Measure, write both files, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = f"{', '.join(QUICK)}, and {' '.join(DEPTH)}"
    parser.add_argument("networks", nargs="*", help=f"names in benchmarks.zoo; by default {usual}")
    parser.add_argument("--full", action="store_true", help="more repetitions, and machine tiny too")
    parser.add_argument("--recipes", nargs="+", help="widths, as w4a4 or f32; w8a8 by default")
    parser.add_argument("--repeat", type=int)
    options = parser.parse_args()
    repeat = options.repeat or (9 if options.full else 3)
    machines = ("edge28", "tiny") if options.full else ("edge28",)
    recipes = options.recipes or ("w8a8",)
    cases = [(n, m, r) for m in machines for n in options.networks or QUICK for r in recipes]
    if not options.networks and not options.recipes:
        cases.append(DEPTH)
    rows: list[Row] = []
    for network, machine, recipe in cases:
        print(f"measuring {network} at {recipe} on {machine}", file=sys.stderr)
        rows.append(measured(network, machine, repeat, recipe))
    source = provenance(rows)
    text = report(rows, source)
    write_results(RESULTS / "bench.json", {"provenance": source, "rows": rows}, text)
    print(text)


if __name__ == "__main__":
    main()
