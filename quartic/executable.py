"""A compiled model: the binary, and what its compilation decided and took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.ir.schedule import Schedule
    from isa.container import Binary


@dataclass(frozen=True)
class Executable:
    """What ``quartic.compile`` and ``quartic.load`` give; ``simulate`` runs it."""

    binary: Binary
    """The program: its ``code`` and ``constants`` in bytes, ``machine``, ``inputs`` and ``outputs`` (name, shape and
    type of each), ``locations`` (the layer and source line of every instruction) and ``provenance``."""
    schedule: Schedule | None = None
    """Every decision of the compiler, kernel by kernel; ``to_toml()`` is a file to edit. None for one that was loaded:
    the file holds the program, not its making."""
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds per stage of the compiler, in order; empty for one that was loaded."""
    sram_peak_bytes: int | None = None
    """SRAM that the memory plan takes at its peak; None for one that was loaded."""

    @property
    def machine(self) -> str:
        """Name of the machine that it was compiled for."""
        return self.binary.machine.name

    @property
    def instructions(self) -> int:
        """Number of 128-bit instructions."""
        return len(self.binary.code) // 16

    def save(self, path: str | Path) -> None:
        """Write the ``.qbin`` container to ``path``, whole or not at all. Raises ContainerError."""
        self.binary.save(path)

    @classmethod
    def load(cls, path: str | Path) -> Executable:
        """Read the ``.qbin`` at ``path``. Raises ContainerError, which names the file."""
        from isa.container import Binary

        return cls(Binary.load(path))
