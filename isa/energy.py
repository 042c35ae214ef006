"""Energy as data: tables with value, band, quality and source per entry; integer femtojoules per event.

A table knows a process node, a machine knows its sizes; :class:`EnergyModel` joins the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import Enum, IntEnum
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

from isa.description import Checked, find, listing, parse_toml, read, write
from isa.errors import DescriptionError
from isa.instructions.mmu import Mode
from isa.machine import Machine

TABLES = Path(__file__).parent / "energy_tables"
QUALITIES = {"P": "published", "D": "derived", "C": "computed", "A": "assumed"}
FJ_PER_PJ = 1000
FJ_PER_S_PER_UW = 10**9
VCU_WORD_BITS = 32
CORNERS = ("low", "value", "high")
LARGEST_ENTRY = 10**6
"""In its entry's unit: above every technology, and small enough that a network's femtojoules fit 64 bits."""


class Event(IntEnum):
    """Something that costs energy each time it happens; the value is its column in count matrices."""

    INSTRUCTION = 0
    MAC_W8A8 = 1
    MAC_W4A8 = 2
    MAC_W4A4 = 3
    MAC_W8A16 = 4
    MAC_W16A16 = 5
    MAC_F32 = 6
    IDLE_W8A8 = 7
    IDLE_W4A8 = 8
    IDLE_W4A4 = 9
    IDLE_W8A16 = 10
    IDLE_W16A16 = 11
    IDLE_F32 = 12
    WEIGHT_LATCH_BYTE = 13
    LOCAL_ACCUMULATOR_READ = 14
    LOCAL_ACCUMULATOR_WRITE = 15
    ACC_READ_WORD = 16
    ACC_WRITE_WORD = 17
    SRAM_READ_WORD = 18
    SRAM_WRITE_WORD = 19
    DRAM_READ_BYTE = 20
    DRAM_WRITE_BYTE = 21
    VCU_ADD = 22
    VCU_MUL = 23
    VCU_REGISTER = 24


MAC_EVENTS: dict[Mode, Event] = {mode: Event[f"MAC_{mode.name}"] for mode in Mode}
"""Useful multiply-accumulates of each mode."""
IDLE_EVENTS: dict[Mode, Event] = {mode: Event[f"IDLE_{mode.name}"] for mode in Mode}
"""Lanes of each mode that had nothing to multiply."""


class Component(Enum):
    """Where energy goes; reports split by it. CLOCK, LEAKAGE and DRAM_BACKGROUND are overheads."""

    MMU = "mmu"
    VCU = "vcu"
    ACC = "acc"
    SRAM = "sram"
    DRAM = "dram"
    INSTRUCTION = "instruction"
    CLOCK = "clock"
    LEAKAGE = "leakage"
    DRAM_BACKGROUND = "dram_background"


EVENT_COMPONENT: dict[Event, Component] = {
    Event.INSTRUCTION: Component.INSTRUCTION,
    **{event: Component.MMU for event in (*MAC_EVENTS.values(), *IDLE_EVENTS.values())},
    Event.WEIGHT_LATCH_BYTE: Component.MMU,
    Event.LOCAL_ACCUMULATOR_READ: Component.MMU,
    Event.LOCAL_ACCUMULATOR_WRITE: Component.MMU,
    Event.ACC_READ_WORD: Component.ACC,
    Event.ACC_WRITE_WORD: Component.ACC,
    Event.SRAM_READ_WORD: Component.SRAM,
    Event.SRAM_WRITE_WORD: Component.SRAM,
    Event.DRAM_READ_BYTE: Component.DRAM,
    Event.DRAM_WRITE_BYTE: Component.DRAM,
    Event.VCU_ADD: Component.VCU,
    Event.VCU_MUL: Component.VCU,
    Event.VCU_REGISTER: Component.VCU,
}


@dataclass(frozen=True)
class Entry(Checked):
    """One constant with its band, unit, quality (P, D, C or A) and source."""

    value: Decimal
    low: Decimal
    high: Decimal
    unit: str
    quality: str
    source: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in CORNERS:
            if not (number := getattr(self, name)).is_finite() or not 0 <= number <= LARGEST_ENTRY:
                raise DescriptionError(f"{name} = {number}: must be in 0 .. {LARGEST_ENTRY}")
        if not self.low <= self.value <= self.high:
            raise DescriptionError(f"value = {self.value}: must be in its band {self.low} .. {self.high}")
        if self.quality not in QUALITIES:
            raise DescriptionError(f"quality = {self.quality!r}: must be one of {', '.join(QUALITIES)}")
        if not self.source.strip():
            raise DescriptionError("source = '': every number names its source")


@dataclass(frozen=True)
class EnergyTable(Checked):
    """The constants of one process node; every field's unit is fixed here, so units never mix."""

    name: str
    description: str
    mac_w8a8: Annotated[Entry, "pJ"]
    mac_w4a8: Annotated[Entry, "pJ"]
    mac_w4a4: Annotated[Entry, "pJ"]
    mac_w8a16: Annotated[Entry, "pJ"]
    mac_w16a16: Annotated[Entry, "pJ"]
    mac_f32: Annotated[Entry, "pJ"]
    mac_idle: Annotated[Entry, "ratio"]
    local_accumulator_read: Annotated[Entry, "pJ/bit"]
    local_accumulator_write: Annotated[Entry, "pJ/bit"]
    register_bit: Annotated[Entry, "pJ/bit"]
    sram_e0: Annotated[Entry, "pJ"]
    sram_e1: Annotated[Entry, "pJ/bit"]
    sram_k0: Annotated[Entry, "pJ/sqrt(KB)"]
    sram_k1: Annotated[Entry, "pJ/bit/sqrt(KB)"]
    sram_scale: Annotated[Entry, "ratio"]
    vcu_add: Annotated[Entry, "pJ"]
    vcu_mul: Annotated[Entry, "pJ"]
    instruction: Annotated[Entry, "pJ"]
    dram: Annotated[Entry, "pJ/bit"]
    dram_background: Annotated[Entry, "mW"]
    leakage_sram: Annotated[Entry, "uW/KB"]
    leakage_logic: Annotated[Entry, "mW/mm2"]
    area_mac: Annotated[Entry, "um2"]
    area_vcu_stage: Annotated[Entry, "um2"]
    clock_factor: Annotated[Entry, "ratio"]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, unit in self.units().items():
            if (found := getattr(self, name).unit) != unit:
                raise DescriptionError(f"{name}.unit = {found!r}: must be {unit!r}")
        if self.clock_factor.low < 1:
            raise DescriptionError(f"clock_factor.low = {self.clock_factor.low}: must be at least 1")

    @classmethod
    def load(cls, name_or_path: str | Path) -> EnergyTable:
        """A shipped table by name, or one from a TOML file. Raises DescriptionError."""
        text, source = find(name_or_path, TABLES, "energy table")
        return cls.from_toml(text, source)

    @classmethod
    def from_toml(cls, text: str, source: str = "<energy table>") -> EnergyTable:
        """Parse and check TOML ``text``; ``source`` names it in errors. Raises DescriptionError."""
        return _parsed(text, source)

    def to_toml(self) -> str:
        """Canonical text."""
        return write(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Names that :meth:`load` knows."""
        return listing(TABLES)

    @classmethod
    @cache
    def units(cls) -> Mapping[str, str]:
        """Unit of every entry, by key."""
        hints = get_type_hints(cls, include_extras=True)
        return {name: get_args(kind)[1] for name, kind in hints.items() if get_origin(kind) is Annotated}


@lru_cache(maxsize=16)
def _parsed(text: str, source: str) -> EnergyTable:
    """The table that ``text`` describes: every run of a binary asks for it again."""
    return read(EnergyTable, parse_toml(text, source), source)


@dataclass(frozen=True)
class Band:
    """Integer femtojoules: nominal, and the bounds that the sources allow."""

    low: int
    nominal: int
    high: int


@dataclass(frozen=True)
class EnergyModel:
    """Femtojoules per event and per cycle for one machine.

    ``event`` is dynamic energy; ``clock`` is the clock and control share that comes on top of each event
    (none for DRAM, which is another chip); ``cycle`` is what every cycle costs whatever happens.
    """

    table: EnergyTable
    event: Mapping[Event, Band]
    clock: Mapping[Event, Band]
    cycle: Mapping[Component, Band]

    @classmethod
    def of(cls, machine: Machine, table: EnergyTable | None = None) -> EnergyModel:
        """The model of ``machine``, with its own table unless another one is given."""
        table = EnergyTable.load(machine.energy) if table is None else table
        return cls(table, *_bands(machine, table))


@lru_cache(maxsize=16)
def _bands(
    machine: Machine, table: EnergyTable
) -> tuple[Mapping[Event, Band], Mapping[Event, Band], Mapping[Component, Band]]:
    """The model's three mappings. Tables that differ in digits only, not in value, share them."""
    corners = [_Corner(table, corner, machine) for corner in CORNERS]
    event = {key: _band([corner.event(key) for corner in corners]) for key in Event}
    clock = {key: _band([corner.clock(key) for corner in corners]) for key in Event}
    cycle = {key: _band([corner.cycle()[key] for corner in corners]) for key in corners[0].cycle()}
    return event, clock, cycle


def _band(corners: list[Decimal]) -> Band:
    low, nominal, high = (int(value.to_integral_value(ROUND_HALF_EVEN)) for value in corners)
    return Band(low, nominal, high)


class _Corner:
    """One corner (low, nominal, high) of a table on a machine; exact decimals, in femtojoules."""

    def __init__(self, table: EnergyTable, corner: str, machine: Machine) -> None:
        self._values: dict[str, Decimal] = {key: getattr(getattr(table, key), corner) for key in table.units()}
        self._machine = machine

    def _fj(self, key: str) -> Decimal:
        return self._values[key] * FJ_PER_PJ

    def sram_word(self) -> Decimal:
        """One access of one word of one bank: (e0 + e1 W + (k0 + k1 W) sqrt(C)) x scale, W bits, C KB."""
        bits = 8 * self._machine.sram.word_bytes
        with localcontext() as context:
            context.prec = 28  # the same digits on every host, whatever the caller's context
            root = (Decimal(self._machine.sram.bank_bytes) / 1024).sqrt()
            fixed = self._fj("sram_e0") + self._fj("sram_e1") * bits
            slope = self._fj("sram_k0") + self._fj("sram_k1") * bits
            return (fixed + slope * root) * self._values["sram_scale"]

    def event(self, event: Event) -> Decimal:
        """Dynamic energy of one event."""
        word = self.sram_word()
        latch = self._fj("local_accumulator_read"), self._fj("local_accumulator_write")
        energies = {
            Event.INSTRUCTION: self._fj("instruction"),
            **{MAC_EVENTS[mode]: self._fj(f"mac_{mode.name.lower()}") for mode in Mode},
            **{IDLE_EVENTS[mode]: self._fj(f"mac_{mode.name.lower()}") * self._values["mac_idle"] for mode in Mode},
            Event.WEIGHT_LATCH_BYTE: 8 * self._fj("register_bit"),
            Event.LOCAL_ACCUMULATOR_READ: 32 * latch[0],
            Event.LOCAL_ACCUMULATOR_WRITE: 32 * latch[1],
            # The accumulator SRAM is built from the same banks and words as the SRAM.
            Event.ACC_READ_WORD: word,
            Event.ACC_WRITE_WORD: word,
            Event.SRAM_READ_WORD: word,
            Event.SRAM_WRITE_WORD: word,
            Event.DRAM_READ_BYTE: 8 * self._fj("dram"),
            Event.DRAM_WRITE_BYTE: 8 * self._fj("dram"),
            Event.VCU_ADD: self._fj("vcu_add"),
            Event.VCU_MUL: self._fj("vcu_mul"),
            Event.VCU_REGISTER: VCU_WORD_BITS * self._fj("register_bit"),
        }
        return energies[event]

    def clock(self, event: Event) -> Decimal:
        """Clock and control energy on top of one event."""
        if EVENT_COMPONENT[event] is Component.DRAM:
            return Decimal(0)
        return self.event(event) * (self._values["clock_factor"] - 1)

    def cycle(self) -> dict[Component, Decimal]:
        """Energy of one cycle in which nothing happens."""
        machine, values = self._machine, self._values
        kilobytes = Decimal(machine.sram.bytes + machine.acc.bytes) / 1024
        square_um = (
            machine.mmu.multipliers * values["area_mac"]
            + machine.vcu.lanes * machine.vcu.stages * values["area_vcu_stage"]
        )
        # mW/mm2 x um2 = nW; uW/KB x KB = uW
        leakage_uw = values["leakage_sram"] * kilobytes + values["leakage_logic"] * square_um / 1000
        background_uw = values["dram_background"] * 1000
        return {
            Component.LEAKAGE: leakage_uw * FJ_PER_S_PER_UW / machine.clock_hz,
            Component.DRAM_BACKGROUND: background_uw * FJ_PER_S_PER_UW / machine.clock_hz,
        }
