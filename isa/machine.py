"""Machines as data: what the compiler plans for and the simulator times. Read from TOML files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isa.description import Checked, find, listing, parse_toml, read, within, write
from isa.errors import DescriptionError, UnsupportedError
from isa.instructions.mmu import Mode

MACHINES = Path(__file__).parent / "machines"
ADDRESS_BYTES = 1 << 24
"""What the 24-bit address fields of the instruction table can reach."""
SLOWEST_HZ = 1_000_000
LARGEST_COUNT = 1 << 16
"""Lanes, rows, stages, cycles of one pipeline: above every machine, and small enough for exact 64-bit sums."""


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise DescriptionError(message)


@dataclass(frozen=True)
class Sram(Checked):
    """Local SRAM: ``bytes`` in single-ported banks that give one word per cycle."""

    bytes: int
    bank_bytes: int
    word_bytes: int

    @property
    def banks(self) -> int:
        """Number of banks; consecutive words lie in consecutive banks."""
        return self.bytes // self.bank_bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.bytes <= ADDRESS_BYTES, f"bytes = {self.bytes}: must be at most {ADDRESS_BYTES}")
        _require(
            self.bytes % self.bank_bytes == 0,
            f"bytes = {self.bytes}: must be a multiple of bank_bytes = {self.bank_bytes}",
        )
        _require(
            self.bank_bytes % self.word_bytes == 0,
            f"bank_bytes = {self.bank_bytes}: must be a multiple of word_bytes = {self.word_bytes}",
        )
        _require(self.word_bytes % 4 == 0, f"word_bytes = {self.word_bytes}: must be a multiple of 4")


@dataclass(frozen=True)
class Acc(Checked):
    """Accumulator SRAM between MMU and VCU; int32 entries."""

    bytes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.bytes <= ADDRESS_BYTES, f"bytes = {self.bytes}: must be at most {ADDRESS_BYTES}")
        _require(self.bytes % 4 == 0, f"bytes = {self.bytes}: must be a multiple of 4")


@dataclass(frozen=True)
class Lanes(Checked):
    """The array in one mode: ``k`` products summed into each of ``n`` output lanes per cycle; 0 x 0 is not built."""

    k: int = within(0, LARGEST_COUNT)
    n: int = within(0, LARGEST_COUNT)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.k) == bool(self.n), f"k = {self.k}, n = {self.n}: both are 0, or none is")

    @property
    def macs(self) -> int:
        """MACs per cycle."""
        return self.k * self.n


@dataclass(frozen=True)
class ModeLanes(Checked):
    """The array in every mode of ``mmu.run``."""

    w8a8: Lanes
    w4a8: Lanes
    w4a4: Lanes
    w8a16: Lanes
    w16a16: Lanes
    f32: Lanes


LANES_OF = {mode: mode.name.lower() for mode in Mode}
"""The field of ``ModeLanes`` for each mode."""
QUARTER_MULTIPLIERS = {Mode.W8A8: 4, Mode.W4A8: 2, Mode.W4A4: 1, Mode.W8A16: 8, Mode.W16A16: 16, Mode.F32: 64}
"""Area of a multiplier of each mode, in quarters of an 8-bit one: partial products; binary32 as Horowitz, ISSCC'14."""


@dataclass(frozen=True)
class Mmu(Checked):
    """Broadcast dot-product array with local accumulators; its shape depends on the mode."""

    lanes: ModeLanes
    acc_rows: int = within(1, LARGEST_COUNT)
    weight_port_bytes: int = within(1, LARGEST_COUNT)
    pipeline_cycles: int = within(0, LARGEST_COUNT)
    depthwise_taps: int = within(1, LARGEST_COUNT)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.modes), "lanes: no mode is built")

    def shape(self, mode: Mode) -> Lanes:
        """The array in ``mode``; UnsupportedError when it is not built."""
        lanes = self._lanes(mode)
        if lanes.macs == 0:
            built = ", ".join(m.name for m in self.modes)
            raise UnsupportedError(f"mode {mode.name} is not built; the machine has {built}")
        return lanes

    def _lanes(self, mode: Mode) -> Lanes:
        lanes: Lanes = getattr(self.lanes, LANES_OF[mode])
        return lanes

    def has(self, mode: Mode) -> bool:
        """Whether the array is built for ``mode``."""
        return self._lanes(mode).macs > 0

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that are built."""
        return tuple(mode for mode in Mode if self.has(mode))

    def taps(self, mode: Mode) -> int:
        """Window taps per lane and cycle of a depthwise run in ``mode``: a lane has no more products than ``k``."""
        return min(self.depthwise_taps, self.shape(mode).k)

    def macs_per_cycle(self, mode: Mode) -> int:
        """Peak MACs per cycle in ``mode``; 0 when it is not built."""
        return self._lanes(mode).macs

    @property
    def multipliers(self) -> int:
        """8-bit multipliers that the array is as large as: those of its costliest mode (binary32 takes 16)."""
        return max(self.macs_per_cycle(mode) * cost // 4 for mode, cost in QUARTER_MULTIPLIERS.items())

    @property
    def peak(self) -> int:
        """MACs per cycle of the fastest mode."""
        return max(self.macs_per_cycle(mode) for mode in self.modes)

    @property
    def widest_n(self) -> int:
        """Most output lanes of any mode: what a row of accumulators is a multiple of."""
        return max(self.shape(mode).n for mode in self.modes)


@dataclass(frozen=True)
class Vcu(Checked):
    """Vector unit: ``lanes`` elements per cycle through ``stages`` chained binary32 operations."""

    lanes: int = within(1, LARGEST_COUNT)
    stages: int = within(1, LARGEST_COUNT)
    pipeline_cycles: int = within(0, LARGEST_COUNT)
    registers: int = within(4)
    slots: int = within(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.registers <= 16, f"registers = {self.registers}: must be at most 16 (4-bit fields)")
        _require(self.slots <= 64, f"slots = {self.slots}: must be at most 64 (6-bit fields)")


@dataclass(frozen=True)
class Dram(Checked):
    """External memory: one server whose sustained rate is ``efficiency_percent`` of ``bytes_per_second``."""

    bytes_per_second: int
    efficiency_percent: int
    latency_cycles: int = within(0, LARGEST_COUNT)
    burst_bytes: int = within(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.efficiency_percent <= 100,
            f"efficiency_percent = {self.efficiency_percent}: must be at most 100",
        )


@dataclass(frozen=True)
class Dispatch(Checked):
    """Instruction supply: queue entries per engine and the size of one program fetch."""

    queue_depth: int = within(1, LARGEST_COUNT)
    fetch_block_bytes: int = within(16, ADDRESS_BYTES)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.fetch_block_bytes % 16 == 0,
            f"fetch_block_bytes = {self.fetch_block_bytes}: must be a multiple of 16, the instruction's size",
        )


@dataclass(frozen=True)
class Sync(Checked):
    """Counting semaphores 1 .. ``semaphores``, each counting to at most ``semaphore_max``."""

    semaphores: int
    semaphore_max: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.semaphores <= 63, f"semaphores = {self.semaphores}: must be at most 63 (6-bit fields)")


@dataclass(frozen=True)
class Machine(Checked):
    """One NPU. All quantities are integers, so time is exact; names carry the units."""

    name: str
    description: str
    clock_hz: int
    energy: str
    sram: Sram
    acc: Acc
    mmu: Mmu
    vcu: Vcu
    dram: Dram
    dispatch: Dispatch
    sync: Sync

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.clock_hz >= SLOWEST_HZ, f"clock_hz = {self.clock_hz}: must be at least {SLOWEST_HZ}")
        _require(bool(self.name), "name = '': must not be empty")
        _require(bool(self.energy), "energy = '': must name an energy table")
        chunk = 4 * self.mmu.acc_rows * self.mmu.widest_n
        _require(
            self.acc.bytes >= chunk,
            f"acc.bytes = {self.acc.bytes}: must hold one chunk of acc_rows x output lanes int32 = {chunk}",
        )
        _require(
            self.dispatch.fetch_block_bytes % self.dram.burst_bytes == 0,
            f"dispatch.fetch_block_bytes = {self.dispatch.fetch_block_bytes}: must be a multiple of "
            f"dram.burst_bytes = {self.dram.burst_bytes}",
        )

    @classmethod
    def load(cls, name_or_path: str | Path) -> Machine:
        """A shipped machine by name, or one from a TOML file. Raises DescriptionError."""
        text, source = find(name_or_path, MACHINES, "machine")
        return cls.from_toml(text, source)

    @classmethod
    def from_toml(cls, text: str, source: str = "<machine>") -> Machine:
        """Parse and check TOML ``text``; ``source`` names it in errors. Raises DescriptionError."""
        return read(cls, parse_toml(text, source), source)

    def to_toml(self) -> str:
        """Canonical text: the same machine always gives the same bytes."""
        return write(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Names that :meth:`load` knows."""
        return listing(MACHINES)
