"""Profiles: cycles, energy, traffic and MACs per instruction, kernel, FX node and module, adding up exactly.

Every quantity is first split over instructions and named overheads (timing and energy do that), then summed by
where the binary says that an instruction comes from. So at each level the rows add up to the run's totals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.container import Binary, Location
from isa.encoding import Instruction
from isa.energy import MAC_EVENTS, EnergyTable, Event
from isa.instructions import LoadCopy, LoadTile, Mode, Region, StoreCopy, StoreTile
from isa.machine import Machine
from isa.program import as_words, column, opcodes
from runtime.energy import COMPONENTS, Energy
from runtime.timing import DISPATCH, ENGINES, Timeline

LEVELS = ("kernel", "node", "module")
OVERHEAD = "overhead:"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One part of a run; those of a level add up to the run."""

    name: str
    """Of the kernel, node, module or instruction; an overhead is ``overhead:<name>``."""
    instructions: int
    """How many belong to it."""
    cycles: int
    """Its share of the critical path."""
    busy_cycles: Mapping[str, int]
    """By engine; they may overlap those of other rows."""
    energy_fj: Mapping[str, int]
    """Nominal femtojoules by component."""
    dram_read_bytes: Mapping[str, int]
    """By region of DRAM."""
    dram_write_bytes: Mapping[str, int]
    """By region of DRAM."""
    macs: int
    """Useful multiply-accumulates of its nodes."""
    utilization: float
    """Useful MACs over what the array can do in these cycles, in the modes that ran."""
    macs_by_mode: Mapping[str, int]
    """MACs that the matrix instructions did, by the mode that they ran in."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; zero entries of the splits are left out, units are in the key names."""
        return {
            "name": self.name,
            "instructions": self.instructions,
            "critical_cycles": self.cycles,
            "busy_cycles": _nonzero(self.busy_cycles),
            "energy_fj": _nonzero(self.energy_fj),
            "dram_read_bytes": _nonzero(self.dram_read_bytes),
            "dram_write_bytes": _nonzero(self.dram_write_bytes),
            "macs": self.macs,
            "utilization": self.utilization,
            "macs_by_mode": _nonzero(self.macs_by_mode),
        }


@dataclass(frozen=True)
class Profile:
    """What one run cost and where; every split adds up to the whole exactly."""

    binary: Binary
    """The program that ran."""
    timeline: Timeline
    """When each instruction was issued, started and ended, in cycles, and what every engine waited for."""
    energy: Energy
    """Femtojoules by instruction and component, events, and the band (low, nominal, high)."""
    table: EnergyTable
    """What priced the energy."""

    @cached_property
    def _columns(self) -> Ints:
        """What :func:`make_columns` gives, which only tables and reports need."""
        return make_columns(self.binary.code, self.timeline, self.energy)

    @property
    def cycles(self) -> int:
        """Cycles of the whole program."""
        return self.timeline.cycles

    @property
    def seconds(self) -> float:
        """Cycles at the machine's clock."""
        return self.cycles / self.binary.machine.clock_hz

    @property
    def joules(self) -> float:
        """Nominal energy."""
        return self.energy.joules

    @cached_property
    def total(self) -> Row:
        """Everything in one row."""
        return self._group(lambda _location: "total", lambda _overhead: "total")[0]

    @property
    def utilization(self) -> float:
        """Useful MACs over what the array can do in these cycles, in the modes that ran."""
        used = {index for _, index in self.binary.spans}
        macs = sum(self.binary.locations[index].macs for index in used)
        return _utilization(macs, self.macs_by_mode, self.binary.machine, self.cycles)

    @property
    def macs_by_mode(self) -> dict[Mode, int]:
        """MACs that the matrix instructions did, by the mode that they ran in."""
        return {mode: self.energy.events.get(event, 0) for mode, event in MAC_EVENTS.items()}

    def rows(self, level: str) -> tuple[Row, ...]:
        """Rows of a level in program order, overheads last. Raises ValueError for an unknown level.

        * ``level``: "kernel", "node" (of the FX graph) or "module".
        """
        if level not in LEVELS:
            raise ValueError(f"level {level!r}: must be one of {', '.join(LEVELS)}")
        return self._group(lambda location: _key(location, level), lambda overhead: OVERHEAD + overhead)

    def instruction_rows(self) -> tuple[Row, ...]:
        """One row per instruction (its index and mnemonic), overheads last. MACs belong to nodes, not here."""
        names = [f"{i} {inst.mnemonic}" for i, inst in enumerate(self.binary.instructions)]
        return self._rows(names, np.arange(len(names)), lambda overhead: OVERHEAD + overhead, {})

    def _group(self, key: Callable[[Location], str], overhead: Callable[[str], str]) -> tuple[Row, ...]:
        numbers: dict[str, int] = {}
        macs: dict[str, int] = {}
        of_location: dict[int, int] = {}
        for _, index in self.binary.spans:
            if index not in of_location:
                location = self.binary.locations[index]
                name = key(location)
                of_location[index] = numbers.setdefault(name, len(numbers))
                macs[name] = macs.get(name, 0) + location.macs
        spans = self.binary.spans
        groups = np.repeat([of_location[index] for _, index in spans], [count for count, _ in spans])
        return self._rows(list(numbers), groups.astype(np.int64), overhead, macs)

    def _rows(
        self, names: list[str], groups: Ints, overhead: Callable[[str], str], macs: Mapping[str, int]
    ) -> tuple[Row, ...]:
        extra = _overhead_columns(self.timeline, self.energy)
        numbers = {name: i for i, name in enumerate(names)}
        of_extra = [numbers.setdefault(overhead(name), len(numbers)) for name in extra]
        sums = np.zeros((len(numbers), self._columns.shape[1]), dtype=np.int64)
        # Instructions of one group mostly follow each other: add up these runs, then the few sums.
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        if len(starts):
            np.add.at(sums, groups[starts], np.add.reduceat(self._columns, starts))
        for number, row in zip(of_extra, extra.values(), strict=True):
            sums[number] += row
        machine = self.binary.machine
        return tuple(
            _row(name, sums[i].tolist(), macs.get(name, 0), machine) for name, i in numbers.items() if sums[i].any()
        )

    def idle_cycles(self) -> dict[str, dict[str, int]]:
        """Engine -> cause -> cycles; with the engine's busy cycles they add up to the total."""
        idle = self.timeline.idle
        return {engine.value: {cause: n for cause, n in idle[engine].items() if n} for engine in ENGINES}

    def provenance(self) -> dict[str, str]:
        """What made these numbers: machine, energy table, their hashes, and the binary's own record."""
        machine = self.binary.machine
        return {
            **{f"binary.{key}": value for key, value in self.binary.provenance.items()},
            "machine": machine.name,
            "machine_sha256": machine.digest,
            "energy_table": self.table.name,
            "energy_table_sha256": self.table.digest,
        }

    def to_json(self, instructions: bool = False) -> dict[str, Any]:
        """Plain values for JSON; deterministic.

        * ``instructions``: add a row for every instruction.
        """
        band = self.energy.total_fj
        found: dict[str, Any] = {
            "cycles": self.cycles,
            "seconds": self.seconds,
            "energy_fj": band.nominal,
            "energy_low_fj": band.low,
            "energy_high_fj": band.high,
            "utilization": self.utilization,
            "provenance": self.provenance(),
            "idle_cycles": self.idle_cycles(),
            "dram_busy_cycles": dict(self.timeline.dram_busy),
            "energy_bands_fj": {
                component.value: {"low": b.low, "nominal": b.nominal, "high": b.high}
                for component, b in self.energy.band_fj.items()
            },
            "events": {event.name.lower(): n for event, n in self.energy.events.items() if n},
            "total": self.total.to_json(),
            **{f"{level}s": [row.to_json() for row in self.rows(level)] for level in LEVELS},
        }
        if instructions:
            found["instructions"] = [row.to_json() for row in self.instruction_rows()]
        return found

    def lines(self, level: str = "kernel", top: int | None = None) -> list[tuple[str, ...]]:
        """Cells of a table under ``HEADINGS``, the rows with most cycles first, the total last.

        * ``level``: as of ``rows``.
        * ``top``: limits the rows; the others become one.
        """
        rows = sorted(self.rows(level), key=lambda row: (-row.cycles, row.name))
        lines = [_line(row, self.cycles) for row in rows[:top]]
        if top is not None and len(rows) > top:
            lines.append(_rest(rows[top:], self.cycles))
        return [*lines, _line(self.total, self.cycles)]

    def to_text(self, level: str = "kernel", top: int | None = None) -> str:
        """``lines`` as a plain table.

        * ``level``: as of ``rows``.
        * ``top``: limits the rows; the others become one.
        """
        return format_table(HEADINGS, self.lines(level, top))


HEADINGS = ("", "cycles", "%", "MMU busy", "VCU busy", "DRAM KiB", "uJ", "util %")


def _line(row: Row, total: int) -> tuple[str, ...]:
    moved = sum(row.dram_read_bytes.values()) + sum(row.dram_write_bytes.values())
    return (
        row.name,
        f"{row.cycles}",
        f"{100 * row.cycles / max(1, total):.1f}",
        f"{row.busy_cycles['mmu']}",
        f"{row.busy_cycles['vcu']}",
        f"{moved / 1024:.1f}",
        f"{sum(row.energy_fj.values()) / 1e9:.2f}",
        f"{100 * row.utilization:.1f}" if row.macs else "",
    )


def _rest(rows: Sequence[Row], total: int) -> tuple[str, ...]:
    cycles = sum(row.cycles for row in rows)
    energy = sum(sum(row.energy_fj.values()) for row in rows)
    share = f"{100 * cycles / max(1, total):.1f}"
    return f"({len(rows)} more)", str(cycles), share, "", "", "", f"{energy / 1e9:.2f}", ""


def format_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is flush left, the others flush right."""
    widths = [max(len(row[i]) for row in (headings, *lines)) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headings, *lines)
    )


def _key(location: Location, level: str) -> str:
    found = {"kernel": location.kernel, "node": location.node, "module": location.module}[level]
    return found or location.node or OVERHEAD + "unknown"


def _nonzero(split: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in split.items() if value}


# Columns of the per-instruction matrix: 1, critical cycles, busy per engine, energy per component, DRAM bytes
# read per region, DRAM bytes written per region, MACs per mode.
BUSY, ENERGY = 2, 2 + len(ENGINES)
READ = ENERGY + len(COMPONENTS)
WRITE = READ + len(Region)
MACS = WRITE + len(Region)
WIDTH = MACS + len(Mode)
MOVERS: tuple[tuple[type[Instruction], Event, int], ...] = (
    (LoadCopy, Event.DRAM_READ_BYTE, READ),
    (LoadTile, Event.DRAM_READ_BYTE, READ),
    (StoreCopy, Event.DRAM_WRITE_BYTE, WRITE),
    (StoreTile, Event.DRAM_WRITE_BYTE, WRITE),
)


def _utilization(macs: int, by_mode: Mapping[Mode, int], machine: Machine, cycles: int) -> float:
    done = sum(by_mode.values())
    if not cycles or not done:
        return macs / (machine.mmu.peak * cycles) if cycles else 0.0
    ideal = sum(count / machine.mmu.macs_per_cycle(mode) for mode, count in by_mode.items() if count)
    return ideal * (macs / done) / cycles


def _row(name: str, sums: list[int], macs: int, machine: Machine) -> Row:
    cycles = sums[1]
    regions = [region.name.lower() for region in Region]
    by_mode = dict(zip(Mode, sums[MACS:], strict=True))
    return Row(
        name,
        sums[0],
        cycles,
        dict(zip((engine.value for engine in ENGINES), sums[BUSY:ENERGY], strict=True)),
        dict(zip((component.value for component in COMPONENTS), sums[ENERGY:READ], strict=True)),
        dict(zip(regions, sums[READ:WRITE], strict=True)),
        dict(zip(regions, sums[WRITE:MACS], strict=True)),
        macs,
        _utilization(macs, by_mode, machine, cycles),
        {mode.name.lower(): count for mode, count in by_mode.items()},
    )


def make_profile(binary: Binary, timeline: Timeline, energy: Energy, table: EnergyTable) -> Profile:
    """The profile of a run of ``binary`` whose times and energy are given; ``table`` priced the energy."""
    return Profile(binary, timeline, energy, table)


def make_columns(code: bytes, timeline: Timeline, energy: Energy) -> Ints:
    """One row per instruction: 1, critical cycles, busy per engine, energy per component, DRAM bytes per region."""
    words = as_words(code)
    n = len(words)
    columns = np.zeros((n, WIDTH), dtype=np.int64)
    if n == 0:
        return columns
    which = timeline.prices.which
    counts = np.array([cost.counts for cost in timeline.prices.costs], dtype=np.int64)[which]
    cycles = np.array([cost.cycles for cost in timeline.prices.costs], dtype=np.int64)[which]
    columns[:, 0] = 1
    columns[:, 1] = timeline.critical
    columns[np.arange(n), BUSY + timeline.engine] = cycles
    columns[:, BUSY + DISPATCH] = 1  # dispatching takes a cycle for every instruction
    columns[:, ENERGY:READ] = energy.instruction_fj
    for mode, event in MAC_EVENTS.items():
        columns[:, MACS + mode] = counts[:, event]
    for kind, event, place in MOVERS:
        moving = np.flatnonzero(opcodes(words) == kind.opcode)
        columns[moving, place + column(words[moving], kind, "region")] = counts[moving, event]
    return columns


def _overhead_columns(timeline: Timeline, energy: Energy) -> dict[str, Ints]:
    """What belongs to no instruction, by name: cycles on the critical path, energy, fetched bytes."""
    names = dict.fromkeys((*timeline.overhead, *energy.overhead_fj))
    columns = {name: np.zeros(WIDTH, dtype=np.int64) for name in names}
    for name, cycles in timeline.overhead.items():
        columns[name][1] += cycles
    for name, split in energy.overhead_fj.items():
        for component, femtojoules in split.items():
            columns[name][ENERGY + COMPONENTS.index(component)] += femtojoules
    columns["fetch"][READ + Region.CODE] += timeline.fetch_bytes
    return columns
