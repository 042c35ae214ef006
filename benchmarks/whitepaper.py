"""``make whitepaper``: Tables 2 to 6 of Krishnamoorthi (arXiv 1806.08342) on small networks, and ablations.

A row is one network, column and seed; rows that the JSON file has are kept, so it goes on where it stopped; a row of
other settings than today's is measured again. Several processes may work at once, each on networks or seeds of its own.
Accuracy is that of the chip, in device numerics.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.bench import RESULTS, markdown, write_results
from benchmarks.classify.cases import NETWORKS, WIDTHS, Case, ablations, tables
from benchmarks.classify.findings import findings, named

SEEDS = (0, 1, 2)
JSON = RESULTS / "whitepaper.json"
Row = dict[str, Any]
Rows = dict[str, Row]

_PUBLISHED = """
2 | Mobilenet v1 | .709 | .001 | .591 | .704
2 | Mobilenet v2 | .719 | .001 | .698 | .698
2 | Resnet v1 50 | .752 | .750 | .751 | .752
3 | Mobilenet v1 | .709 | .001 | .591 | .703 | .708
3 | Mobilenet v2 | .719 | .001 | .698 | .697 | .700
3 | Resnet v1 50 | .752 | .750 | .751 | .751 | .751
4 | Mobilenet v1 | .709 | .700 | .707
4 | Mobilenet v2 | .719 | .709 | .711
4 | Resnet v1 50 | .752 | .750 | .750
5 | Mobilenet v1 | .709 | .02 | .001 | .65
5 | Mobilenet v2 | .719 | .001 | .001 | .62
5 | Resnet v1 50 | .752 | .002 | .54 | .732
6 | Mobilenet v1 | .709 | .48 | .64 | .65
6 | Mobilenet v2 | .719 | .07 | .58 | .62
6 | Resnet v1 50 | .752 | .36 | .58 | .732
"""
"""Top-1 on ImageNet: table, network, the float column, then those of ``COLUMNS``."""
PAPER = [tuple(map(str.strip, line.split("|"))) for line in _PUBLISHED.strip().splitlines()]
COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "2": (("2", "asym/layer"), ("2", "sym/channel"), ("2", "asym/channel")),
    "3": (("3", "asym/layer"), ("3", "sym/channel"), ("3", "asym/channel"), ("3", "activations only")),
    "4": (("4", "QAT asym/layer"), ("4", "QAT sym/channel")),
    "5": (("5", "asym/layer"), ("5", "sym/channel"), ("5", "QAT sym/channel")),
    "6": (("6", "w8a4"), ("6", "w8a4 QAT"), ("5", "QAT sym/channel")),
}
"""Which cases a table shows beside float; what Table 6 shows of W4A8 is Table 5's."""
TITLES = {
    "2": "Table 2: 8-bit weights alone, after training",
    "3": "Table 3: 8-bit weights and activations, after training",
    "4": "Table 4: 8-bit weights and activations, trained",
    "5": "Table 5: 4-bit weights, 8-bit activations",
    "6": "Table 6: 4-bit activations, 8-bit weights; and 4-bit weights, trained, beside it",
}
NOTES = """Written by `make whitepaper`; what was not measured is a dash, and where seeds lack, a number in brackets
says how many there are. Accuracy on test images, the mean of the seeds and their standard deviation; what binary32
takes part in runs in PyTorch, all else in device numerics, which the chip computes. `separable` is as MobileNet
v1 and `residual` as ResNet, both for 10 classes of noisy, cluttered shapes in pictures of 32 x 32
(`benchmarks/classify`); `digits` are the 8 x 8 digits of scikit-learn. `rescaled` is `separable` with channels
scaled by 1/8 to 8 behind each ReLU, and the weights behind by the inverse: the same function in float, with kernels
of very different range, which batch norms leave in large networks and not in one that was trained for a minute.
Trainings are of {steps} steps of 100 images, by stochastic gradient descent; of `rescaled` by Adam, since gradients
are of different range where weights are.
"""
CLAIMED = """Means ± standard deviations of the seeds that have all that is compared, float last; a claim without such
a seed is left out. The kernels of `rescaled` differ in range as those of the paper's networks do, but so do the
channels of its activations, which theirs do not; `residual` is held to what the paper says of ResNet."""


def key(case: Case, network: str, seed: int) -> str:
    """The name of a row."""
    return named(case.table, network, case.column, seed)


def jobs() -> list[tuple[Case, str, int]]:
    """All rows: a seed of every table before the next seed, ablations last."""
    return [
        *((case, network, seed) for seed in SEEDS for network in NETWORKS for case in tables()),
        *((case, case.network, seed) for seed in SEEDS for case in ablations()),
    ]


def digest(case: Case, network: str, seed: int) -> str:
    """Of what the numbers of a row depend on besides the code."""
    from benchmarks.zoo import digits

    how = dataclasses.replace(case, recipe=None), case.recipe and case.recipe.to_toml()
    checkpoint = digits.CHECKPOINT.read_bytes() if network == "digits" and not seed else b""
    said = repr((key(case, network, seed), how, settings()["images"]))
    return hashlib.sha256(said.encode() + checkpoint).hexdigest()[:16]


def stored() -> Rows:
    """The rows of earlier runs, with whatever settings."""
    return json.loads(JSON.read_text())["rows"] if JSON.exists() else {}


def known() -> Rows:
    """The rows that were measured with today's settings, in the order of ``jobs``."""
    rows, wanted = stored(), {key(*job): digest(*job) for job in jobs()}
    return {name: rows[name] for name in wanted if rows.get(name, {}).get("digest") == wanted[name]}


@contextmanager
def locked() -> Iterator[None]:
    """One process at a time."""
    Path("build").mkdir(exist_ok=True)
    with Path("build/whitepaper.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(found: Rows) -> None:
    """Add rows to both files, each of which is whole at any time."""
    with locked():
        rows = {**known(), **found}
        rows = {name: rows[name] for name in (key(*job) for job in jobs()) if name in rows}
        source = {name: version(name) for name in ("quartic-npu", "torch", "torchao", "numpy")}
        content = {"versions": source, "settings": settings(), "rows": rows}
        write_results(JSON, content, report(rows))


def settings() -> Row:
    """What the numbers depend on."""
    from benchmarks.classify import cases, train

    stages = {name: dataclasses.asdict(stage) for name, stage in (("w8", cases.W8), ("w4", cases.W4))}
    images = {"train": train.TRAIN_IMAGES, "test": train.TEST_IMAGES, "epochs": train.EPOCHS}
    return {"stages": stages, "images": images}


def cell(rows: Rows, name: Callable[[int], str], field: str = "accuracy", form: str = ".3f") -> str:
    """Mean and spread of a field over the seeds that there are."""
    seen = [rows[name(seed)][field] for seed in SEEDS if name(seed) in rows]
    if not seen:
        return "-"
    spread = f" ±{stdev(seen):{form}}" if len(seen) > 1 and field != "bytes" else ""
    return f"{mean(seen):{form}}{spread}" + ("" if len(seen) == len(SEEDS) or field == "bytes" else f" ({len(seen)})")


def table(rows: Rows, number: str) -> str:
    """One of the paper's tables, its own rows below ours."""
    head = ("network", "float", *(f"{'W4A8 ' if number == '6' and t == '5' else ''}{c}" for t, c in COLUMNS[number]))
    ours = [
        (n, *(cell(rows, partial(named, t, n, c)) for t, c in (("1", "float"), *COLUMNS[number]))) for n in NETWORKS
    ]
    paper = [(f"*{network}*", *rest, "") for at, network, *rest in PAPER if at == number]
    return markdown((*head, "CPU s"), [*((*row, seconds(rows, number, row[0])) for row in ours), *paper])


def seconds(rows: Rows, number: str, network: str) -> str:
    """What quantizing or training took, the mean of the seeds, all columns together."""
    columns = [[rows[name]["seconds"] for s in SEEDS if (name := named(t, network, c, s)) in rows]
               for t, c in COLUMNS[number]]  # fmt: skip
    return f"{sum(mean(spent) for spent in columns if spent):.0f}" if any(columns) else "-"


def report(rows: Rows) -> str:
    """The whole page."""
    from benchmarks.classify.cases import STEPS

    parts = ["# The whitepaper's tables", NOTES.format(steps=STEPS).strip()]
    for number, title in TITLES.items():
        parts += [f"## {title}", table(rows, number)]
    cases = [case for case in ablations() if case.table == "ablation"]
    one = cases[0].network
    watched = {name: row for name, row in rows.items() if "jitter" in row}
    listed: list[tuple[str, ...]] = []
    for case in cases:
        name = partial(named, "ablation", one, case.column)
        listed.append((case.column, cell(rows, name), cell(watched, name, "jitter", ".4f"),
                       cell(rows, name, "seconds", ".0f")))  # fmt: skip
    parts += [
        f"## What training is made of: {one}, W4A8, sym/channel",
        "Jitter is the standard deviation of the accuracy, on 500 images, of ten looks at the second half of training.",
        markdown(("training", "accuracy", "jitter", "CPU s"), listed),
    ]
    shown = ("float", "w8a8", "w4a8", "w4a8 QAT")
    acts = [(act, *(cell(rows, partial(named, "act", one, f"{act} {c}")) for c in shown)) for act in ("relu", "relu6")]
    parts += ["## ReLU against ReLU6", markdown(("activation", *shown), acts)]
    sizes = [
        (f"{width}", column, cell(rows, partial(named, "width", one, f"{width} {column}"), "bytes", ",.0f"),
         cell(rows, partial(named, "width", one, f"{width} {column}")))
        for width in WIDTHS for column in ("float", "w8a8", "w4a8 QAT")
    ]  # fmt: skip
    parts += [
        "## Width against bits",
        "Bytes of everything that is stored: codes, scales, zero points, biases.",
        markdown(("width", "recipe", "bytes", "accuracy"), sizes),
    ]
    if said := findings(rows, SEEDS):
        parts += ["## What reproduces", CLAIMED, said]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write both files after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="beginnings of names, with commas between: 2/digits,ablation")
    parser.add_argument("--seeds", default="", help="only these, with commas between")
    parser.add_argument("--report", action="store_true", help="only write the page again")
    options = parser.parse_args(arguments)
    if options.report:
        write({})
        return
    import torch

    from benchmarks.classify.measure import measure

    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    wanted, seeds = tuple(options.rows.split(",")), [int(s) for s in options.seeds.split(",") if s] or SEEDS
    for case, network, seed in jobs():
        name, of = key(case, network, seed), digest(case, network, seed)
        if not name.startswith(wanted) or seed not in seeds or stored().get(name, {}).get("digest") == of:
            continue
        row = {**measure(case, network, seed), "digest": of}
        print(f"{name}: {row['accuracy']:.3f}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)
        write({name: row})


if __name__ == "__main__":
    main()
