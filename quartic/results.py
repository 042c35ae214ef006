"""A run's figures as plain values, for the command's output and the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.profile import Profile

JOULES_PER_FJ = 1e-15


def summary(profile: Profile) -> dict[str, Any]:
    """Cycles, seconds, utilization, joules by component with band, DRAM bytes, and what made the numbers."""
    total = profile.total
    band = profile.energy.total_fj
    return {
        "cycles": profile.cycles,
        "seconds": profile.seconds,
        "utilization": profile.utilization,
        "joules": {
            "total": profile.joules,
            **{name: value * JOULES_PER_FJ for name, value in total.energy_fj.items() if value},
        },
        "joules band": {"low": band.low * JOULES_PER_FJ, "high": band.high * JOULES_PER_FJ},
        "DRAM read bytes": sum(total.dram_read_bytes.values()),
        "DRAM write bytes": sum(total.dram_write_bytes.values()),
        "provenance": profile.provenance(),
    }


def headline(profile: Profile) -> dict[str, int | float]:
    """The figures by which schedules compare; units are in the names."""
    total = profile.total
    return {
        "cycles": profile.cycles,
        "us": profile.seconds * 1e6,
        "uJ": profile.joules * 1e6,
        "DRAM read KiB": sum(total.dram_read_bytes.values()) / 1024,
        "DRAM written KiB": sum(total.dram_write_bytes.values()) / 1024,
    }
