"""A run as one self-contained HTML page: summary, timeline, energy with its band, tables, provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isa.encoding import Engine
from isa.files import write_atomically
from runtime.profile import HEADINGS, Profile
from runtime.timing import ENGINES, Timeline

TITLE = "Quartic run"
WIDTH = 900
HEIGHT = 36
LEVELS = ("kernel", "module")
MAX_CAUSES = 4
COLOURS = ("#3b6fb6", "#d9822b", "#3f9b63", "#b84a62", "#7d5ba6", "#5f8f9b", "#9a8453", "#6b7280", "#c2b04a")


def html(profile: Profile, title: str = TITLE) -> str:
    """The page's text; the same run gives the same text."""
    # Imported here because it takes longer than simulating a network, which most runs do without a report.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        summary=_summary(profile),
        width=WIDTH,
        cycles=f"{profile.cycles:,}",
        slice_cycles=f"{max(1, profile.cycles // WIDTH):,}",
        tracks=_tracks(profile.timeline),
        energy=_energy(profile),
        engines=_engines(profile),
        headings=HEADINGS[1:],
        levels=[{"name": level, "rows": profile.lines(level)} for level in LEVELS],
        provenance=sorted(profile.provenance().items()),
    )


def write_report(profile: Profile, path: str | Path, title: str = TITLE) -> None:
    """Write the page, whole or not at all."""
    write_atomically(path, html(profile, title))


def occupation(timeline: Timeline, engine: int, slices: int) -> list[float]:
    """Share of each of ``slices`` equal parts of the run in which an engine holds an instruction."""
    if timeline.cycles == 0:
        return [0.0] * slices
    mine = timeline.engine == engine
    start, release = timeline.start[mine], timeline.release[mine]
    if start.size == 0:
        return [0.0] * slices
    # Cumulative occupation is piecewise linear between starts and releases, which never overlap on one engine.
    before = np.concatenate(([0], np.cumsum(release - start)))
    times = np.column_stack((start, release)).ravel()
    levels = np.column_stack((before[:-1], before[1:])).ravel()
    edges = np.linspace(0, timeline.cycles, slices + 1)
    held = np.diff(np.interp(edges, times, levels, left=0.0))
    return np.clip(held * slices / timeline.cycles, 0.0, 1.0).tolist()


def _tracks(timeline: Timeline) -> list[dict[str, str]]:
    tracks: list[dict[str, str]] = []
    for index, engine in enumerate(ENGINES):
        if engine is Engine.DISPATCH:
            continue
        steps = "".join(
            f"V{HEIGHT - HEIGHT * share:.1f}H{x + 1}" for x, share in enumerate(occupation(timeline, index, WIDTH))
        )
        tracks.append({"name": engine.value, "colour": COLOURS[index], "path": f"M0 {HEIGHT}{steps}V{HEIGHT}Z"})
    return tracks


def _summary(profile: Profile) -> list[tuple[str, str]]:
    machine, band, total = profile.binary.machine, profile.energy.total_fj, profile.total
    moved = sum(total.dram_read_bytes.values()), sum(total.dram_write_bytes.values())
    return [
        ("machine", f"{machine.name}: {machine.description}"),
        ("latency", f"{profile.seconds * 1e3:.4f} ms ({profile.cycles:,} cycles at {machine.clock_hz / 1e6:g} MHz)"),
        (
            "energy",
            f"{band.nominal * 1e-9:,.2f} uJ (band {band.low * 1e-9:,.2f} to {band.high * 1e-9:,.2f} uJ)",
        ),
        ("utilization", f"{100 * profile.utilization:.1f} % of {machine.mmu.peak} MAC/cycle"),
        ("useful MACs", f"{total.macs:,}"),
        ("DRAM", f"{moved[0]:,} bytes read, {moved[1]:,} bytes written"),
        ("instructions", f"{total.instructions:,}"),
    ]


def _energy(profile: Profile) -> list[dict[str, str]]:
    total = max(1, profile.energy.total_fj.nominal)
    return [
        {
            "name": component.value,
            "colour": COLOURS[i % len(COLOURS)],
            "percent": f"{100 * band.nominal / total:.1f}",
            "low": f"{band.low * 1e-9:,.3f}",
            "nominal": f"{band.nominal * 1e-9:,.3f}",
            "high": f"{band.high * 1e-9:,.3f}",
        }
        for i, (component, band) in enumerate(profile.energy.band_fj.items())
    ]


def _engines(profile: Profile) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for engine in ENGINES:
        busy = profile.timeline.busy[engine]
        causes = sorted(profile.idle_cycles()[engine.value].items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{cause} {cycles:,}" for cause, cycles in causes[:MAX_CAUSES]]
        if rest := sum(cycles for _, cycles in causes[MAX_CAUSES:]):
            shown.append(f"others {rest:,}")
        percent = f"{100 * busy / max(1, profile.cycles):.1f}"
        rows.append({"name": engine.value, "busy": f"{busy:,}", "percent": percent, "idle": ", ".join(shown)})
    return rows
