"""End of program, and extra waits and signals on each engine's queue."""

from __future__ import annotations

from dataclasses import dataclass

from isa.encoding import Engine, Instruction


@dataclass(frozen=True)
class Halt(Instruction, opcode=0x01, engine=Engine.DISPATCH, mnemonic="halt"):
    """End the program once every engine's queue is empty; must be the last word."""


@dataclass(frozen=True)
class LoadSync(Instruction, opcode=0x18, engine=Engine.LOAD, mnemonic="load.sync"):
    """Only wait and signal, in Load's queue."""


@dataclass(frozen=True)
class StoreSync(Instruction, opcode=0x28, engine=Engine.STORE, mnemonic="store.sync"):
    """Only wait and signal, in Store's queue."""


@dataclass(frozen=True)
class MmuSync(Instruction, opcode=0x38, engine=Engine.MMU, mnemonic="mmu.sync"):
    """Only wait and signal, in the MMU's queue."""


@dataclass(frozen=True)
class VcuSync(Instruction, opcode=0x48, engine=Engine.VCU, mnemonic="vcu.sync"):
    """Only wait and signal, in the VCU's queue."""
