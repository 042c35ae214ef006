"""Where the cycles, the energy and the traffic of a run went, module by module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.profile import OVERHEAD, Profile, Row

HEAD = ("where it went", "MMAC", "cycles", "%", "uJ", "DRAM KiB")
OVERHEADS = "leakage and other overheads"


@dataclass(frozen=True)
class Part:
    """Sums over modules; ``dram_bytes`` are read and written."""

    name: str
    macs: int = 0
    cycles: int = 0
    femtojoules: int = 0
    dram_bytes: int = 0

    def plus(self, other: Part) -> Part:
        """Both, under this one's name."""
        return Part(
            self.name,
            self.macs + other.macs,
            self.cycles + other.cycles,
            self.femtojoules + other.femtojoules,
            self.dram_bytes + other.dram_bytes,
        )

    def cells(self, cycles: int) -> tuple[str, ...]:
        """A line of a table under ``HEAD``, of a run of so many cycles."""
        return (
            self.name,
            f"{self.macs / 1e6:,.2f}",
            f"{self.cycles:,}",
            f"{self.cycles / cycles:.1%}",
            f"{self.femtojoules / 1e9:,.2f}",
            f"{self.dram_bytes / 1024:,.0f}",
        )


def parts(profile: Profile, depth: int, most: int) -> list[Part]:
    """Modules by the first ``depth`` names of their paths: the ``most`` longest, the others as one, and overheads.

    Together they are the run.
    """
    found: dict[str, Part] = {}
    for row in profile.rows("module"):
        part = _part(row, depth)
        found[part.name] = found.get(part.name, Part(part.name)).plus(part)
    overheads = found.pop(OVERHEADS, Part(OVERHEADS))
    ranked = sorted(found.values(), key=lambda part: -part.cycles)
    return [*ranked[:most], *_together(ranked[most:]), overheads]


def _part(row: Row, depth: int) -> Part:
    name = OVERHEADS if row.name.startswith(OVERHEAD) else ".".join(row.name.split(".")[:depth])
    moved = sum(row.dram_read_bytes.values()) + sum(row.dram_write_bytes.values())
    return Part(name, row.macs, row.cycles, sum(row.energy_fj.values()), moved)


def _together(rest: Sequence[Part]) -> list[Part]:
    total = Part(f"({len(rest)} more)")
    for part in rest:
        total = total.plus(part)
    return [total] if rest else []
