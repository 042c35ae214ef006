"""Perfetto traces: engines as tracks, instructions and waits as slices (Chrome's JSON trace event format)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isa.container import Binary, Location
from isa.encoding import Instruction
from isa.files import write_atomically
from runtime.timing import ENGINES, Timeline

PROCESS = 1


def trace(binary: Binary, timeline: Timeline) -> dict[str, Any]:
    """The trace as plain values; the same run gives the same trace."""
    clock_hz = binary.machine.clock_hz
    rows: list[dict[str, Any]] = [_named("process_name", 0, binary.machine.name)]
    rows += [_named("thread_name", track, engine.value) for track, engine in enumerate(ENGINES)]
    times = zip(
        timeline.engine.tolist(),
        timeline.head.tolist(),
        timeline.start.tolist(),
        timeline.release.tolist(),
        timeline.end.tolist(),
        strict=True,
    )
    where = _locations(binary)
    for i, (inst, (track, head, start, release, end)) in enumerate(zip(binary.instructions, times, strict=True)):
        if start > head:
            waits = [sem for sem in (inst.wait_a, inst.wait_b) if sem]
            name = "wait " + " ".join(f"semaphore {sem}" for sem in waits)
            rows.append(_slice(name, "wait", track, head, start, clock_hz, {"instruction": i}))
        found = where[i]
        args = {
            "instruction": i,
            "mnemonic": inst.mnemonic,
            "cycles": release - start,
            "complete_cycle": end,
            "kernel": found.kernel,
            "node": found.node,
            "module": found.module,
            "source": found.source,
            **_semaphores(inst),
        }
        rows.append(_slice(inst.mnemonic, found.kernel or "overhead", track, start, release, clock_hz, args))
    return {
        "displayTimeUnit": "ns",
        "otherData": {"machine": binary.machine.name, "machine_sha256": binary.machine.digest},
        "traceEvents": rows,
    }


def write_trace(binary: Binary, timeline: Timeline, path: str | Path) -> None:
    """Write the trace as JSON, atomically; open it at https://ui.perfetto.dev."""
    write_atomically(path, json.dumps(trace(binary, timeline), separators=(",", ":")) + "\n")


def _locations(binary: Binary) -> list[Location]:
    return [binary.locations[index] for count, index in binary.spans for _ in range(count)]


def _semaphores(inst: Instruction) -> dict[str, list[int]]:
    waits = [sem for sem in (inst.wait_a, inst.wait_b) if sem]
    signals = [sem for sem in (inst.signal_a, inst.signal_b) if sem]
    return {key: found for key, found in (("waits", waits), ("signals", signals)) if found}


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": track, "name": what, "args": {"name": name}}


def _slice(
    name: str, category: str, track: int, start: int, stop: int, clock_hz: int, args: dict[str, Any]
) -> dict[str, Any]:
    # The format counts in microseconds.
    scale = 1_000_000 / clock_hz
    return {
        "ph": "X",
        "pid": PROCESS,
        "tid": track,
        "name": name,
        "cat": category,
        "ts": start * scale,
        "dur": (stop - start) * scale,
        "args": args,
    }
