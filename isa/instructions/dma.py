"""Load and Store: the DMA pair between DRAM regions and SRAM."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from isa.encoding import Bits, Engine, Instruction
from isa.instructions.types import U16, U24, U32


class Region(IntEnum):
    """A DRAM region; offsets are bytes from its base, so binaries are position independent."""

    CODE = 0
    CONSTANTS = 1
    INPUT = 2
    OUTPUT = 3
    ARENA = 4


RegionField = Annotated[Region, Bits(3)]


@dataclass(frozen=True)
class LoadCopy(Instruction, opcode=0x10, engine=Engine.LOAD, mnemonic="load.copy"):
    """Copy ``bytes`` contiguous bytes from DRAM ``region``+``offset`` to SRAM ``sram``."""

    region: RegionField = Region.CONSTANTS
    offset: U32 = 0
    sram: U24 = 0
    bytes: U24 = 0


@dataclass(frozen=True)
class LoadShape(Instruction, opcode=0x11, engine=Engine.LOAD, mnemonic="load.shape"):
    """Set the box of later ``load.tile``: ``n0`` x ``n1`` runs of ``run`` contiguous bytes."""

    n0: U16 = 1
    n1: U16 = 1
    run: U24 = 0


@dataclass(frozen=True)
class LoadStrides(Instruction, opcode=0x12, engine=Engine.LOAD, mnemonic="load.strides"):
    """Set the byte distance between runs of later ``load.tile``, in DRAM and in SRAM, per loop."""

    dram0: U24 = 0
    dram1: U24 = 0
    sram0: U24 = 0
    sram1: U24 = 0


@dataclass(frozen=True)
class LoadTile(Instruction, opcode=0x13, engine=Engine.LOAD, mnemonic="load.tile"):
    """Copy a box from DRAM to SRAM: run (i, j) from offset + i*dram0 + j*dram1 to sram + i*sram0 + j*sram1.

    Runs may overlap where they are read, not where they are written (AccessError).
    """

    region: RegionField = Region.ARENA
    offset: U32 = 0
    sram: U24 = 0


@dataclass(frozen=True)
class StoreCopy(Instruction, opcode=0x20, engine=Engine.STORE, mnemonic="store.copy"):
    """Copy ``bytes`` contiguous bytes from SRAM ``sram`` to DRAM ``region``+``offset``."""

    region: RegionField = Region.ARENA
    offset: U32 = 0
    sram: U24 = 0
    bytes: U24 = 0


@dataclass(frozen=True)
class StoreShape(Instruction, opcode=0x21, engine=Engine.STORE, mnemonic="store.shape"):
    """Set the box of later ``store.tile``: ``n0`` x ``n1`` runs of ``run`` contiguous bytes."""

    n0: U16 = 1
    n1: U16 = 1
    run: U24 = 0


@dataclass(frozen=True)
class StoreStrides(Instruction, opcode=0x22, engine=Engine.STORE, mnemonic="store.strides"):
    """Set the byte distance between runs of later ``store.tile``, in DRAM and in SRAM, per loop."""

    dram0: U24 = 0
    dram1: U24 = 0
    sram0: U24 = 0
    sram1: U24 = 0


@dataclass(frozen=True)
class StoreTile(Instruction, opcode=0x23, engine=Engine.STORE, mnemonic="store.tile"):
    """Copy a box from SRAM to DRAM: run (i, j) from sram + i*sram0 + j*sram1 to offset + i*dram0 + j*dram1.

    Runs may overlap where they are read, not where they are written (AccessError).
    """

    region: RegionField = Region.ARENA
    offset: U32 = 0
    sram: U24 = 0
