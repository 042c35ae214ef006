"""``make table3``: Metric3D v2 beside the 18 rows of QuartDepth's latency table (CVPR 2025, Table 3).

Each row quantizes (weights are random; ranges come from a calibration at 256 x 256), compiles and times one network in
a process of its own; time and energy do not depend on data. Rows that the JSON file has already are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.bench import RESULTS, markdown, provenance, write_results
from benchmarks.measure import PACKAGES, sources

SEED, CALIBRATION_SIDE = 0, 256
RECIPES = {"f32": "f32", "w4a8": "w4a8", "w4a4": "w4a4"}
STEPS = ("quantize", "compile", "timing")
LEAST = {("s", 256): 1.5, ("s", 512): 1.5, ("s", 1024): 1.2, **{("l", side): 1 / 1.3 for side in (256, 512, 1024)}}
"""How many times as fast as published a row is to be, by model and side."""
BITS = {"f32": 32, "w4a8": 4, "w4a4": 4}
Row = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """One row of the paper: milliseconds and GMAC/J (it prints GMAC/W of power normalised by latency and MACs)."""

    model: str
    side: int
    precision: str
    milliseconds: float
    gmac_per_joule: float

    @property
    def name(self) -> str:
        """As ``--rows`` selects it: s256-w4a8."""
        return f"{self.model}{self.side}-{self.precision}"

    @property
    def least(self) -> float:
        """How many times as fast it is to be."""
        return LEAST[self.model, self.side]


def _published() -> tuple[Published, ...]:
    table = {
        ("s", 256): ((76.8, 85.6), (42.6, 172.8), (38.3, 177.5)),
        ("s", 512): ((325.5, 87.3), (159.0, 200.1), (133.4, 220.3)),
        ("s", 1024): ((2181.4, 78.4), (836.8, 228.9), (616.7, 287.0)),
        ("l", 256): ((584.1, 118.2), (223.5, 331.1), (167.9, 425.4)),
        ("l", 512): ((2214.5, 126.4), (798.4, 392.5), (568.5, 509.3)),
        ("l", 1024): ((13297.1, 126.9), (4228.3, 446.8), (2725.1, 640.6)),
    }
    return tuple(
        Published(model, side, precision, *cell)
        for (model, side), cells in table.items()
        for precision, cell in zip(RECIPES, cells, strict=True)
    )


PUBLISHED = {row.name: row for row in _published()}


def quantized(model: str, side: int, precision: str) -> Any:
    """Metric3D for ``side`` x ``side`` images with ranges from smaller ones: scales do not decide time or energy."""
    import torch

    from benchmarks.zoo.metric3d import metric3d
    from quantizer import calibrate, convert, prepare, transfer

    torch.manual_seed(SEED)
    net = metric3d(model)
    least = min(side, CALIBRATION_SIDE)
    small = (torch.randn(1, 3, least, least),)
    calibrated = prepare(net, small, precision)
    if precision != "f32":
        calibrate(calibrated, [small])
    if side == least:
        return convert(calibrated)
    return convert(transfer(calibrated, prepare(net, (torch.empty(1, 3, side, side),), precision)))


def bounds(macs: int, params: int, side: int, precision: str, machine: Any) -> tuple[float, float]:
    """Seconds that MACs take at the array's peak, and that weights, the image and six result channels take in DRAM."""
    from isa.machine import Mode

    peak = machine.mmu.macs_per_cycle(Mode[precision.upper()]) * machine.clock_hz
    out = 4 * int(-(-side // 14) * 3.5)
    moved = params * BITS[precision] / 8 + 4 * (3 * side**2 + 6 * out**2)
    return macs / peak, moved / machine.dram.bytes_per_second


def measure(name: str) -> Row:
    """Time and energy of one row, its bounds, and what it took to find them."""
    import torch

    import quartic
    from benchmarks.zoo.layers import work
    from benchmarks.zoo.metric3d import DECODERS, WIDTHS, Metric3D
    from quartic.results import summary

    row = PUBLISHED[name]
    torch.set_num_threads(1)
    with torch.device("meta"):
        counted = work(Metric3D(WIDTHS[row.model], DECODERS[row.model]).eval(), (1, 3, row.side, row.side))
    times = [time.process_time()]
    q = quantized(row.model, row.side, row.precision)
    times.append(time.process_time())
    exe = quartic.compile(q, f"quartdepth28-{row.precision}")
    del q
    times.append(time.process_time())
    found = summary(quartic.timing(exe).profile)
    times.append(time.process_time())
    compute, dram = bounds(counted.macs, counted.params, row.side, row.precision, exe.binary.machine)
    return {
        "row": name,
        "machine": exe.binary.machine.name,
        "params": counted.params,
        "macs": counted.macs,
        "compute bound seconds": compute,
        "DRAM bound seconds": dram,
        "instructions": exe.instructions,
        "cpu seconds": {name: b - a for name, (a, b) in zip(STEPS, pairwise(times), strict=True)},
        "compile stages": exe.timings,
        "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **found,
    }


def measured(name: str) -> Row:
    """``measure`` in a process of its own, and the digest of the sources that did."""
    source = sources(PACKAGES)
    command = [sys.executable, "-m", "benchmarks.table3", "--row", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "sources": source}


def faster(row: Row) -> float:
    """How many times as fast as published the row is."""
    return PUBLISHED[row["row"]].milliseconds / 1e3 / row["seconds"]


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    paper = PUBLISHED[row["row"]]
    seconds, macs = row["seconds"], row["macs"]
    bound = max(row["compute bound seconds"], row["DRAM bound seconds"])
    return (
        f"ViT-{paper.model.upper()} {paper.side} {paper.precision.upper()}",
        f"{macs / 1e9:.1f}",
        f"{paper.milliseconds:.1f}",
        f"{seconds * 1e3:.1f}",
        f"{faster(row):.2f}",
        f"{paper.least:.2f}",
        "yes" if faster(row) >= paper.least else "**no**",
        f"{row['compute bound seconds'] / seconds:.1%}",
        f"{row['compute bound seconds'] * 1e3:.1f}",
        f"{row['DRAM bound seconds'] * 1e3:.1f}",
        f"{seconds / bound:.2f}",
        f"{(row['DRAM read bytes'] + row['DRAM write bytes']) / 1e6:,.0f}",
        f"{paper.gmac_per_joule:.1f}",
        f"{macs / 1e9 / row['joules']['total']:.1f}",
        f"{sum(row['cpu seconds'].values()):.0f}",
        f"{row['peak bytes'] / 2**30:.1f}",
    )


HEAD = (
    "network", "GMAC", "published ms", "ms", "published / ours", "at least", "met", "utilization", "compute bound ms",
    "DRAM bound ms", "ours / bound", "DRAM MB", "published GMAC/J", "GMAC/J", "CPU s", "GiB",
)  # fmt: skip
NOTES = """Written by `make table3`; rows that were not measured are missing. *At least* is what is asked of
published / ours: ViT-S is to be 1.5 times as fast as published at 256 and 512, and 1.2 times at 1024; ViT-L is to take
at most 1.3 times the published time. Utilization is the compute bound over the time: all multiply-accumulates at the
array's peak in the row's precision. The DRAM bound moves packed weights, the image and the results once. The paper
publishes no array, buffer or vector sizes: ours are the smallest natural ones (the machine files give reasons). CPU
seconds are what quantizing, compiling and timing took here."""


def table(rows: Iterable[Row]) -> str:
    """Ours beside the paper's."""
    return markdown(HEAD, map(cells, rows))


def report(rows: Sequence[Row], source: Row) -> str:
    """The page, which tells rows of another machine or of other sources than today's."""
    digest = sources(PACKAGES)
    machines = source["machines"]
    older = [cells(row)[0] for row in rows if row["provenance"]["machine_sha256"] != machines[row["machine"]]]
    others = sum(row.get("sources") != digest for row in rows)
    parts = ["# QuartDepth's Table 3", NOTES, table(rows)]
    if older:
        parts.append(f"Measured on an earlier description of their machine: {', '.join(older)}.")
    if others:
        parts.append(f"{others} of these rows were measured with other sources than those of this table, {digest}.")
    parts += ["## Provenance", "```json\n" + json.dumps(source, indent=2) + "\n```"]
    return "\n\n".join(parts) + "\n"


def write(found: dict[str, Row]) -> str:
    """Both files, each whole or not at all; gives the Markdown."""
    rows = [found[name] for name in PUBLISHED if name in found]
    source = provenance(rows)
    text = report(rows, source)
    write_results(RESULTS / "table3.json", {"provenance": source, "rows": rows}, text)
    return text


def known(path: Path) -> dict[str, Row]:
    """The rows of an earlier run."""
    return {row["row"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def selected(prefixes: Iterable[str]) -> list[str]:
    """Names of the rows that start with one of ``prefixes``; raises SystemExit naming one that fits none."""
    prefixes = list(prefixes)
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in PUBLISHED):
            raise SystemExit(f"no row starts with {prefix!r}: rows are {', '.join(PUBLISHED)}")
    return [name for name in PUBLISHED if not prefixes or any(map(name.startswith, prefixes))]


def due(row: Row | None, again: bool, fresh: bool) -> bool:
    """Whether to measure: what is not there, ``again`` what other sources gave, ``fresh`` everything."""
    return row is None or fresh or (again and row.get("sources") != sources(PACKAGES))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, one process a row, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="beginnings of names, with commas between: s256,l1024-w4a8")
    parser.add_argument("--again", action="store_true", help="also rows that other sources gave")
    parser.add_argument("--fresh", action="store_true", help="also all other rows that the results have")
    parser.add_argument("--report", action="store_true", help="only write the page again")
    parser.add_argument("--row", choices=tuple(PUBLISHED), help="measure one row and print it as JSON")
    options = parser.parse_args(arguments)
    if options.row:
        for noisy in ("torchao", "torch.utils._pytree"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        print(json.dumps(measure(options.row)))
        return
    path = RESULTS / "table3.json"
    if options.report:
        write(known(path))
        return
    for name in selected(filter(None, options.rows.split(","))):
        if not due(known(path).get(name), options.again, options.fresh):
            continue
        print(f"measuring {name}", file=sys.stderr)
        row = measured(name)
        print(write({**known(path), name: row}).partition("## Provenance")[0])


if __name__ == "__main__":
    main()
