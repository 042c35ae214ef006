"""Load and Store: copies between DRAM regions and SRAM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from isa.access import DRAM, Memory
from isa.encoding import Instruction
from isa.instructions import LoadCopy, LoadTile, StoreCopy, StoreTile
from runtime.functional.context import Context, Step

ONE = (1,)


def load_copy(context: Context, inst: Instruction) -> Iterator[Step]:
    """SRAM[sram + i] = DRAM[offset + i] for i < bytes."""
    assert isinstance(inst, LoadCopy)
    memory, shape = context.memory, (inst.bytes,)
    if inst.bytes:
        source = memory.view(DRAM[inst.region], torch.uint8, inst.offset, shape, ONE)
        yield partial(memory.target(Memory.SRAM, torch.uint8, inst.sram, shape, ONE).copy_, source)


def store_copy(context: Context, inst: Instruction) -> Iterator[Step]:
    """DRAM[offset + i] = SRAM[sram + i] for i < bytes."""
    assert isinstance(inst, StoreCopy)
    memory, shape = context.memory, (inst.bytes,)
    if inst.bytes:
        source = memory.view(Memory.SRAM, torch.uint8, inst.sram, shape, ONE)
        yield partial(memory.target(DRAM[inst.region], torch.uint8, inst.offset, shape, ONE).copy_, source)


def load_tile(context: Context, inst: Instruction) -> Iterator[Step]:
    """Runs of bytes from strided DRAM to strided SRAM."""
    assert isinstance(inst, LoadTile)
    box, strides = context.state.load_shape, context.state.load_strides
    shape = (box.n0, box.n1, box.run)
    if 0 in shape:
        return
    memory, dram = context.memory, (strides.dram0, strides.dram1, 1)
    target = memory.target(Memory.SRAM, torch.uint8, inst.sram, shape, (strides.sram0, strides.sram1, 1))
    yield partial(target.copy_, memory.view(DRAM[inst.region], torch.uint8, inst.offset, shape, dram))


def store_tile(context: Context, inst: Instruction) -> Iterator[Step]:
    """Runs of bytes from strided SRAM to strided DRAM."""
    assert isinstance(inst, StoreTile)
    box, strides = context.state.store_shape, context.state.store_strides
    shape = (box.n0, box.n1, box.run)
    if 0 in shape:
        return
    memory, sram = context.memory, (strides.sram0, strides.sram1, 1)
    target = memory.target(DRAM[inst.region], torch.uint8, inst.offset, shape, (strides.dram0, strides.dram1, 1))
    yield partial(target.copy_, memory.view(Memory.SRAM, torch.uint8, inst.sram, shape, sram))
