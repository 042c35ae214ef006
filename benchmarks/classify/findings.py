"""What the whitepaper finds, and whether the rows here show it: claims by network, on the seeds that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks.classify.cases import NETWORKS

Rows = Mapping[str, Mapping[str, Any]]
Column = tuple[str, str]
FLOAT, TENSOR, CHANNEL = ("1", "float"), "asym/layer", "sym/channel"
W4, W4_TRAINED, A4_TRAINED = ("5", CHANNEL), ("5", f"QAT {CHANNEL}"), ("6", "w8a4 QAT")
MOBILE = ("separable", "rescaled")
"""Built as MobileNet v1, of which the paper says what it does not say of ResNet."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, of which ``networks``, and whether it ``holds`` of the mean accuracies of ``columns``."""

    says: str
    columns: tuple[Column, ...]
    holds: Callable[..., bool]
    networks: Sequence[str] = NETWORKS


def above(margin: float) -> Callable[[float, float], bool]:
    """Whether the first is at most ``margin`` below the second."""
    return lambda one, other: one >= other - margin


CLAIMS = (
    Claim(
        "one scale for all kernels costs half the accuracy or more at 8 bits",
        (("2", TENSOR), FLOAT),
        lambda one, other: one <= other / 2,
        MOBILE,
    ),
    Claim("one scale for all kernels costs at most .01 at 8 bits", (("2", TENSOR), FLOAT), above(0.01), ("residual",)),
    Claim("with a scale per kernel 8-bit weights cost at most .02", (("2", "asym/channel"), FLOAT), above(0.02)),
    Claim("8-bit activations alone cost at most .02", (("3", "activations only"), FLOAT), above(0.02)),
    Claim("trained at 8 bits, a scale per kernel is within .01", (("4", f"QAT {CHANNEL}"), FLOAT), above(0.01)),
    Claim("trained at 8 bits, one scale for all is within .01 too", (("4", f"QAT {TENSOR}"), FLOAT), above(0.01)),
    Claim("a scale per kernel is better at 4-bit weights", (W4, ("5", TENSOR)), lambda one, other: one > other),
    Claim(
        "training gives back half or more of what 4-bit weights cost",
        (W4_TRAINED, W4, FLOAT),
        lambda trained, plain, exact: trained - plain >= (exact - plain) / 2,
    ),
    Claim(
        "4-bit activations are worse than 4-bit weights, both trained",
        (A4_TRAINED, W4_TRAINED),
        lambda activations, weights: activations < weights,
    ),
)


def named(table: str, network: str, column: str, seed: int) -> str:
    """The name of a row."""
    return f"{table}/{network}/{column}/{seed}"


def findings(rows: Rows, seeds: Sequence[int]) -> str:
    """A line per claim and network, as far as there is a seed with all that it compares."""
    lines = [line for claim in CLAIMS for network in claim.networks if (line := judged(claim, network, rows, seeds))]
    return "\n".join(lines)


def judged(claim: Claim, network: str, rows: Rows, seeds: Sequence[int]) -> str:
    """One line; "" without a seed that has every column."""
    names = [[named(table, network, column, seed) for table, column in claim.columns] for seed in seeds]
    found = [[rows[name]["accuracy"] for name in some] for some in names if all(name in rows for name in some)]
    if not found:
        return ""
    columns = list(zip(*found, strict=True))
    said = "reproduces" if claim.holds(*map(mean, columns)) else "**does not reproduce**"
    seeds_ = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
    return f"* {said}: {network}: {claim.says} ({' to '.join(map(told, columns))}; {seeds_})"


def told(values: Sequence[float]) -> str:
    """Mean and standard deviation in words; the mean alone of one."""
    spread = f" ±{stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"
