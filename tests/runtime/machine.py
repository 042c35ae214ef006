"""Run a few instructions on the tiny machine, with chosen bytes in its memories."""

import torch

from isa.access import Memory
from isa.encoding import Instruction
from isa.machine import Machine
from runtime.functional import Context, execute
from runtime.memory import Memories

TINY = Machine.load("tiny")


NOISE = torch.randint(0, 256, (1 << 18,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def context(seed: int = 0, dram: int = 4096, machine: Machine = TINY) -> Context:
    """A machine whose on-chip memories and DRAM regions hold random bytes."""

    def noise(space: Memory, size: int) -> torch.Tensor:
        start = (seed * 7919 + space * 10007) % (NOISE.numel() - size)
        return NOISE[start : start + size].clone()

    memory = Memories(machine, {space: noise(space, dram) for space in Memory if space > Memory.ACC})
    for space in (Memory.SRAM, Memory.ACC):
        memory.bytes[space].copy_(noise(space, memory.bytes[space].numel()))
    return Context(machine, memory)


def put(found: Context, space: Memory, address: int, values: torch.Tensor) -> None:
    """Store the bytes of ``values`` at ``address``."""
    data = values.contiguous().flatten().view(torch.uint8)
    found.memory.bytes[space][address : address + data.numel()] = data


def get(found: Context, space: Memory, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A copy of the ``shape`` values at ``address``."""
    size = torch.Size(shape).numel() * dtype.itemsize
    return found.memory.bytes[space][address : address + size].clone().view(dtype).view(shape)


def run(found: Context, *instructions: Instruction) -> Context:
    """Execute ``instructions`` and return the context."""
    execute(instructions, found)
    return found
