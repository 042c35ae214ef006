"""What QuartDepth finds, and whether the rows here show it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from benchmarks.depth.groups import HELD_OUT, STUDIED, Group, Groups
from benchmarks.depth.methods import CURVES, TABLE1
from benchmarks.depth.scenes import SETS

LOSSLESS = 0.02
"""Of the float network's AbsRel: what counts as nothing lost."""
NETS = ("vit", "unet")
SKIPS = "what its decoder reads joins skip connections that its encoder reads too, so no factor can be folded there"
Finding = tuple[bool, str]


def findings(found: Groups, images: int) -> str:
    """A line per claim and network, as far as its rows are there."""
    lines: list[str] = []
    for network in NETS:
        for claim in (order, lossless, gap, better, unseen):
            try:
                lines += [_line(f"{network}: {text}", holds) for holds, text in claim(found, network, images)]
            except KeyError:  # rows that were not measured
                continue
    for claim in (enough, compensated, polished):
        try:
            lines += [_line(f"{STUDIED}: {text}", holds) for holds, text in claim(found, images)]
        except KeyError:
            continue
    return "\n".join(lines)


def _line(text: str, holds: bool) -> str:
    return f"* {'reproduces' if holds else '**does not reproduce**'}: {text}"


def order(found: Groups, network: str, images: int) -> Iterator[Finding]:
    """Each method of Table 1 is better than the one before it."""
    for width in ("w4a8", "w4a4"):
        names = [name for name in TABLE1 if name not in ("obs", "mse", "printed")]
        errors = {name: found[network, width, name, images].mean("abs_rel") for name in names}
        worse = [f"{b} is above {a}" for a, b in pairwise(names) if errors[b] >= errors[a]]
        told = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
        yield not worse, f"at {width.upper()} AbsRel falls from method to method ({told}{_but(worse)})"


def _but(exceptions: list[str]) -> str:
    return f"; {', '.join(exceptions)}" if exceptions else ""


def lossless(found: Groups, network: str, images: int) -> Iterator[Finding]:
    """W4A8 is near float."""
    exact, ours = (found[key].mean("abs_rel") for key in (_float(network), (network, "w4a8", "ours", images)))
    yield ours <= exact * (1 + LOSSLESS), f"W4A8 by ours is within {LOSSLESS:.0%} of float ({ours:.4f} to {exact:.4f})"


def gap(found: Groups, network: str, images: int) -> Iterator[Finding]:
    """4-bit activations are what breaks the simple methods: the paper's min/max AbsRel is 14 times float's."""
    exact = found[_float(network)].mean("abs_rel")
    w4a8, w4a4 = (found[network, width, "minmax", images].mean("abs_rel") / exact for width in ("w4a8", "w4a4"))
    yield w4a4 > 2 * w4a8, f"min/max breaks at W4A4 ({w4a8:.2f} times float's AbsRel at W4A8, {w4a4:.2f} times at W4A4)"


def better(found: Groups, network: str, images: int) -> Iterator[Finding]:
    """At W4A4 ours is ahead of BRECQ."""
    ours, brecq = (found[network, "w4a4", method, images] for method in ("ours", "brecq"))
    for field, sign, name in (("abs_rel", -1, "AbsRel"), ("delta1", 1, "delta1")):
        holds = sign * (ours.mean(field) - brecq.mean(field)) > 0
        told = f"{ours.told(field)} to {brecq.told(field)}{_within(ours, brecq, field)}"
        yield holds, f"ours beats BRECQ in {name} at W4A4 ({told})"


def _within(one: Group, other: Group, field: str) -> str:
    return "" if _apart(one, other, field) else ", within the spread of the draws"


def _apart(one: Group, other: Group, field: str) -> bool:
    return abs(one.mean(field) - other.mean(field)) > one.spread(field) + other.spread(field)


def unseen(found: Groups, network: str, images: int) -> Iterator[Finding]:
    """Ours stays ahead of BRECQ on scenes unlike those of training and calibration."""
    for width in ("w4a8", "w4a4"):
        ours, brecq = (found[network, width, method, images] for method in ("ours", "brecq"))
        ahead = [name for name in list(SETS)[1:] if ours.mean("abs_rel", name) < brecq.mean("abs_rel", name)]
        others = len(SETS) - 1
        told = f"({', '.join(ahead) or 'none'})"
        yield len(ahead) == others, f"at {width.upper()} ours beats BRECQ on {len(ahead)} of {others} other sets {told}"


def enough(found: Groups, images: int) -> Iterator[Finding]:
    """More than 32 calibration images change nothing."""
    at, most = (found[STUDIED, "w4a4", CURVES["with compensation"], count] for count in (images, 4 * images))
    gain = at.mean("abs_rel") - most.mean("abs_rel")
    yield not _apart(at, most, "abs_rel") or gain < 0, (
        f"{images} scenes are enough: {4 * images} change AbsRel by {-gain:+.4f} "
        f"({at.told('abs_rel')} to {most.told('abs_rel')})"
    )


def compensated(found: Groups, images: int) -> Iterator[Finding]:
    """Without compensation W4A4 is clearly worse."""
    ours, without = (found[STUDIED, "w4a4", method, images] for method in CURVES.values())
    holds = without.mean("abs_rel") > ours.mean("abs_rel") and _apart(ours, without, "abs_rel")
    told = f"{ours.told('abs_rel')} with, {without.told('abs_rel')} without{_within(ours, without, 'abs_rel')}"
    yield holds, f"compensation helps at W4A4 ({told})"


def polished(found: Groups, images: int) -> Iterator[Finding]:
    """LogNP makes W4A4 better: of the whole decoder, and of the layers of it that a trial chooses."""
    field, without = "abs_rel", found[STUDIED, "w4a4", CURVES["with compensation"], images]
    for method, what in (("printed", "LogNP of the whole decoder"), ("ours", "LogNP where the error falls")):
        logs = found[STUDIED, "w4a4", method, images]
        told = f"{logs.told(field)} with, {without.told(field)} without{_within(logs, without, field)}"
        yield logs.mean(field) < without.mean(field), f"{what} helps at W4A4 ({told})"


def alike(found: Groups, images: int) -> str:
    """A line per network for which choosing layers for LogNP makes no difference at all, and why, if known."""
    lines: list[str] = []
    for network in NETS:
        if same := [width.upper() for width in ("w4a8", "w4a4") if _alike(found, network, width, images)]:
            why = f": {SKIPS}" if network == "unet" else ""
            lines.append(f"* {network}: at {' and '.join(same)} *as printed* and *ours* are the same{why}")
    return "\n".join(lines)


def _alike(found: Groups, network: str, width: str, images: int) -> bool:
    """Whether every metric is the same, of the draws that both have."""
    try:
        groups = [found[network, width, method, images] for method in ("printed", "ours")]
    except KeyError:
        return False
    one, other = ({row["seed"]: row["metrics"][HELD_OUT] for row in group.rows} for group in groups)
    common = one.keys() & other.keys()
    return bool(common) and all(one[seed] == other[seed] for seed in common)


def _float(network: str) -> tuple[str, str, str, int]:
    return network, "f32", "float", 0
