"""``make bench-full``: every network, at every width, gives the reference's bits on the simulator.

Each row is measured in a process of its own, which returns its memory, and is kept in ``results/networks.json`` as
soon as it is there: an interrupted run goes on where it stopped. ``results/networks.md`` shows what there is, and
names what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import RESULTS, Row, markdown, write_results
from benchmarks.measure import PACKAGES, ROOT, sources
from isa.files import write_atomically

RECIPES = ("w8a8", "w4a8", "w4a4")
MODELS = (
    ("mobilenet_v2", 224), ("nasnet_mobile", 224), ("mobilenet_v1", 224), ("deit_t", 224), ("resnet18", 224),
    ("resnet50_v2", 224), ("resnet50", 224), ("vit_s", 224), ("inception_v3", 299),
    ("depth_anything_v2_s", 252), ("depth_anything_v1_s", 252), ("resnet152_v2", 224), ("resnet152", 224),
    ("metric3d_s", 256), ("depth_anything_v2_s", 518), ("depth_anything_v1_s", 518), ("metric3d_s", 512),
    ("metric3d_l", 256), ("metric3d_s", 1024), ("depth_anything_v2_l", 518), ("metric3d_l", 512), ("metric3d_l", 1024),
)  # fmt: skip
"""(network, side of its image), of fewer multiply-accumulates first."""
PROBES = (
    "random", "uniform", "saturated high", "saturated low", "zeros", "ties", "no numbers", "denormals", "one spike",
)  # fmt: skip
PLANTED = (("deit_t", 224), ("depth_anything_v2_s", 252))
"""Those that are also verified with weights which drive softmax, layer norm and GELU into their corners."""
PLANTS = (
    "equal scores", "peaked scores", "huge variance", "tiny variance", "vanishing variance", "no variance",
    "saturated GELU",
)  # fmt: skip
"""Names of ``benchmarks.probes``, which takes seconds to import, as those of ``PROBES``."""
NOTES = {"9c42cf8b2f5e": "of NaN only the places were compared, not signs and payloads"}
"""What to know of rows, by the digest of the sources that gave them."""
RANDOM = "random"
CALIBRATION = 2


@dataclass(frozen=True, order=True)
class Case:
    """One row."""

    network: str
    side: int
    recipe: str
    machine: str
    weights: str = RANDOM

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        name = f"{self.network} {self.side} {self.recipe} {self.machine}"
        return name if self.weights == RANDOM else f"{name} {self.weights}"

    @classmethod
    def named(cls, key: str) -> Case:
        """The row with this key."""
        network, side, recipe, machine, *weights = key.split(maxsplit=4)
        return cls(network, int(side), recipe, machine, *weights)


def verify(case: Case, names: Sequence[str] = PROBES) -> Row:
    """Quantize, compile, and compare the simulator with the reference on the probes of these names, bit by bit."""
    import torch

    import quartic
    from benchmarks.probes import plant, probes, same_bits
    from benchmarks.zoo import NETWORKS
    from quartic.results import summary

    network = NETWORKS[case.network]
    shape = (network.shape[0], case.side, case.side)
    model = network.model(0, shape)
    if case.weights != RANDOM:
        model = plant(model, case.weights)
    start = time.perf_counter()
    batches = [(network.images(1, seed, shape),) for seed in range(1, CALIBRATION + 1)]
    q = quartic.quantize(model, batches[0], batches, recipe=case.recipe)
    quantized = time.perf_counter()
    exe = quartic.compile(q, case.machine)
    compiled = time.perf_counter()
    reference, run = quartic.reference(q), None
    different: list[str] = []
    known = probes((1, *shape))
    inputs = {name: known[name] for name in names}
    spread = 0.0
    for name, x in inputs.items():
        with torch.no_grad():
            expected = reference(x)
        run = quartic.simulate(exe, x)
        if not same_bits(expected, run.outputs):
            different.append(name)
        if name == "random":
            spread = float(expected[0].double().std())
    assert run is not None, "at least one probe is asked for"
    found = summary(run.profile)
    return {
        "inputs": list(inputs),
        "different": different,
        "output std": spread,
        "instructions": exe.instructions,
        **{name: found[name] for name in ("cycles", "seconds", "utilization", "DRAM read bytes", "DRAM write bytes")},
        "joules": found["joules"]["total"],
        "provenance": found["provenance"],
        "quantize seconds": quantized - start,
        "compile seconds": compiled - quantized,
        "verify seconds": time.perf_counter() - compiled,
        "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def measured(case: Case, names: Sequence[str], seconds: float | None) -> Row:
    """``verify`` in a process of its own; what it says last where it fails or takes more than ``seconds``."""
    command = [sys.executable, "-m", "benchmarks.networks", "--one", json.dumps([*vars(case).values(), [*names]])]
    # Two threads that wait for each other on a busy machine are tens of times slower than one.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {seconds:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"error": f"ended with {done.returncode}: {last[-300:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def cases(names: Sequence[str] = (), recipes: Sequence[str] = RECIPES, machine: str = "edge28") -> Iterator[Case]:
    """All rows, smallest network first, planted weights last.

    ``names`` are of networks, or of one at one side as ``vit_s@224``; planted rows are those of ``deit_t@planted``.
    Raises ValueError for a name that is none of them.
    """
    rows = [(network, side, RANDOM, {network, f"{network}@{side}"}) for network, side in MODELS]
    rows += [(network, side, weights, {f"{network}@planted"}) for network, side in PLANTED for weights in PLANTS]
    known = set[str]().union(*(named for *_, named in rows))
    if unknown := set(names) - known:
        raise ValueError(f"{', '.join(sorted(unknown))}: the networks are {', '.join(sorted(known))}")
    for network, side, weights, named in rows:
        if not names or named & set(names):
            yield from (Case(network, side, recipe, machine, weights) for recipe in recipes)


def table(rows: Mapping[str, Row]) -> str:
    """The rows that there are; ``exact`` counts the inputs on which every bit was the same."""
    head = (
        "model", "side", "recipe", "machine", "weights", "exact", "instructions", "cycles", "ms", "mJ", "utilization",
        "compile s", "inputs tried", "GiB", "sources",
    )  # fmt: skip
    order = {case.key: i for i, case in enumerate(cases())}
    found = sorted(rows, key=lambda key: (order.get(key, len(order)), key))
    lines = [(Case.named(key), rows[key]) for key in found if "cycles" in rows[key]]
    return markdown(
        head,
        (
            (
                case.network,
                case.side,
                case.recipe,
                case.machine,
                case.weights,
                f"**no**: {', '.join(row['different'])}" if row["different"] else "yes",
                f"{row['instructions']:,}",
                f"{row['cycles']:,}",
                f"{row['seconds'] * 1e3:.3f}",
                f"{row['joules'] * 1e3:.3f}",
                f"{row['utilization']:.1%}",
                f"{row['compile seconds']:.1f}",
                "all" if set(PROBES) <= set(row["inputs"]) else ", ".join(row["inputs"]),
                f"{row['peak bytes'] / 2**30:.1f}",
                row.get("sources", "-"),
            )
            for case, row in lines
        ),
    )


INTRODUCTION = """Written by `make bench-full`. *Exact* says whether every bit of every output of the simulated binary
is that of `quartic.reference`, on inputs that are random, saturating, zero, tied, no numbers, denormal, and one spike
among zeros (`benchmarks/probes.py`): all of them, or those that are named. Weights are random, and in the last rows
scaled so that softmax reads equal or far apart scores, layer norms huge, tiny or no variance, GELU huge numbers.
Compile seconds are wall time, while the machine does other work. *Sources* are a digest of the code behind a row."""


def report(rows: Mapping[str, Row], wanted: Sequence[Case], source: str) -> str:
    """The results as Markdown, with what failed and what did not run."""
    failed = [f"* {key}: {row['error']}" for key, row in rows.items() if "error" in row]
    missing = [f"* {case.key}" for case in wanted if case.key not in rows]
    given = [row.get("sources") for row in rows.values() if "cycles" in row]
    parts = ["# Every network at every width", INTRODUCTION, table(rows)]
    parts += [f"Rows of sources {digest}: {note}." for digest, note in NOTES.items() if digest in given]
    if others := sum(digest != source for digest in given):
        parts.append(f"{others} of these rows were measured with other sources than those of this table, {source}.")
    parts += ["## Failed", "\n".join(failed)] if failed else []
    parts += ["## Not run", "\n".join(missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def known(path: Path) -> dict[str, Row]:
    """The rows of earlier runs."""
    return json.loads(path.read_text()) if path.exists() else {}


def fill(
    path: Path, wanted: Sequence[Case], again: bool, names: Sequence[str], seconds: float | None
) -> dict[str, Row]:
    """Measure the rows that ``path`` lacks, or has of fewer inputs than ``names``; ``again`` those of other sources.

    A row is tried on what it was tried on before, too. One that fails now keeps what was measured, beside the error.
    Each is written as soon as it is there.
    """
    rows = known(path)
    for case in wanted:
        before = rows.get(case.key, {})
        tried = before.get("inputs", ())
        current = not again or before.get("sources") == sources(PACKAGES)
        if current and "error" not in before and set(names) <= set(tried):
            continue
        source = sources(PACKAGES)
        print(f"verifying {case.key}", file=sys.stderr, flush=True)
        row = measured(case, [name for name in PROBES if name in names or name in tried], seconds)
        rows[case.key] = row = {**before, **row} if "error" in row else {**row, "sources": source}
        print(f"  {row.get('error') or row['different'] or 'exact'}", file=sys.stderr, flush=True)
        write_results(path, rows, report(rows, list(cases()), source))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the table; exits with 1 where a bit differs or a row fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="as vit_s, vit_s@224 or deit_t@planted; all by default")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--machine", default="edge28")
    parser.add_argument("--again", action="store_true", help="also rows that other sources gave")
    parser.add_argument("--inputs", nargs="+", default=PROBES, choices=PROBES, metavar="NAME", help=", ".join(PROBES))
    parser.add_argument("--seconds", type=float, help="the longest that one row may take")
    parser.add_argument("--output", type=Path, default=RESULTS / "networks.json")
    parser.add_argument("--report", action="store_true", help="only write the page again")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if options.one:
        *case, names = options.one
        print(json.dumps(verify(Case(*case), names)))
        return
    if options.report:
        text = report(known(options.output), list(cases()), sources(PACKAGES))
        write_atomically(options.output.with_suffix(".md"), text)
        return
    wanted = list(cases(options.networks, options.recipes, options.machine))
    rows = fill(options.output, wanted, options.again, options.inputs, options.seconds)
    print(options.output.with_suffix(".md").read_text())
    sys.exit(any("error" in rows[case.key] or rows[case.key]["different"] for case in wanted))


if __name__ == "__main__":
    main()
