"""The machine's memories as flat byte tensors, and checked typed views into them."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from isa.access import Box, Memory
from isa.errors import AccessError, UninitialisedError
from isa.instructions import DType
from isa.machine import Machine

TORCH_TYPES = {
    DType.I4: torch.int8,
    DType.I8: torch.int8,
    DType.I16: torch.int16,
    DType.I32: torch.int32,
    DType.F32: torch.float32,
    DType.I64: torch.int64,
}
"""What views hold; of 4-bit codes, bytes with two."""
ITEM_BYTES = {
    torch.int8: 1,
    torch.uint8: 1,
    torch.int16: 2,
    torch.int32: 4,
    torch.float32: 4,
    torch.int64: 8,
}
READ_ONLY = frozenset({Memory.CODE, Memory.CONSTANTS, Memory.INPUT})
REMEMBERED_VIEWS = 1 << 14
LEAST_BUFFER = 64
"""Bytes of the smallest buffer for what is derived; others are powers of two, so that later ones find them spare."""


class Memories:
    """Every space of one machine as torch uint8 [bytes]; views of other types share the bytes.

    Errors name space, address and limit; the executor adds the instruction.
    """

    def __init__(self, machine: Machine, dram: dict[Memory, torch.Tensor]) -> None:
        self.bytes = {
            Memory.SRAM: torch.zeros(machine.sram.bytes, dtype=torch.uint8),
            Memory.ACC: torch.zeros(machine.acc.bytes, dtype=torch.uint8),
            **{space: torch.zeros(0, dtype=torch.uint8) for space in Memory if space > Memory.ACC},
            **dram,
        }
        self._typed = {
            (space, dtype): flat[: flat.numel() // item * item].view(dtype)
            for space, flat in self.bytes.items()
            for dtype, item in ITEM_BYTES.items()
        }
        self._views: dict[object, torch.Tensor] = {}
        self._derived: dict[object, tuple[int, int, torch.Tensor]] = {}
        self._spare: dict[int, list[torch.Tensor]] = {}

    def derived(
        self, key: object, start: int, stop: int, shape: tuple[int, ...], dtype: torch.dtype = torch.int32
    ) -> tuple[torch.Tensor, bool]:
        """A buffer for what follows from SRAM bytes [start, stop) alone, and whether it holds that already.

        It does from the first call with ``key`` until :meth:`target` is asked for any of those bytes; then the buffer
        goes to whoever asks next, so only steps in the order of their binding may use it.
        """
        if (found := self._derived.get(key)) is not None:
            return _shaped(found[2], shape, dtype), True
        size = max(1 << ((prod(shape) + 1) * dtype.itemsize - 1).bit_length(), LEAST_BUFFER)
        spare = self._spare.setdefault(size, [])
        buffer = spare.pop() if spare else torch.empty(size, dtype=torch.uint8)
        self._derived[key] = (start, stop, buffer)
        return _shaped(buffer, shape, dtype), False

    def forget(self) -> None:
        """Drop what :meth:`derived` holds: the bytes may have changed in another way than through targets."""
        self._forget(0, (self.bytes[Memory.SRAM].numel(),), (1,), 1)

    def _forget(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> None:
        stop = address + item + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        stale = [k for k, (low, high, _) in self._derived.items() if low < stop and address < high]
        for key in stale:
            buffer = self._derived.pop(key)[2]
            self._spare[buffer.numel()].append(buffer)

    def view(
        self,
        space: Memory,
        dtype: torch.dtype,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> torch.Tensor:
        """Elements at ``address`` + sum(index * stride), strides in bytes. Raises AccessError.

        A view without elements touches nothing and is always legal.
        """
        key = (space, dtype, address, shape, strides)
        if (found := self._views.get(key)) is not None:
            return found
        item = ITEM_BYTES[dtype]
        self._check_bounds(space, address, shape, strides, item)
        if item > 1 and any(
            value % item for value in (address, *(s for n, s in zip(shape, strides, strict=True) if n > 1))
        ):
            raise AccessError(
                f"{space.name} address {address:#x} with strides {strides}: {dtype} data must lie at "
                f"multiples of {item} bytes; align the address and the strides"
            )
        steps = tuple(stride // item for stride in strides)
        found = self._typed[space, dtype].as_strided(shape, steps, address // item)
        if len(self._views) >= REMEMBERED_VIEWS:
            self._views.clear()
        self._views[key] = found
        return found

    def target(
        self,
        space: Memory,
        dtype: torch.dtype,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> torch.Tensor:
        """A view to write. Raises AccessError also if the space is read-only or two elements share a byte."""
        if space is Memory.SRAM and self._derived:
            self._forget(address, shape, strides, ITEM_BYTES[dtype])
        key = (space, dtype, address, shape, strides, True)
        if (found := self._views.get(key)) is not None:
            return found
        if space in READ_ONLY:
            raise AccessError(f"{space.name} address {address:#x}: the region is read-only")
        extent = ITEM_BYTES[dtype]
        for stride, n in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n > 1):
            if stride < extent:
                raise AccessError(
                    f"{space.name} address {address:#x}: the output of shape {shape} with byte strides {strides} "
                    f"overlaps itself; a stride of {stride} must be at least {extent}"
                )
            extent += (n - 1) * stride
        found = self.view(space, dtype, address, shape, strides)
        self._views[key] = found
        return found

    def _check_bounds(
        self, space: Memory, address: int, shape: tuple[int, ...], strides: tuple[int, ...], item: int
    ) -> None:
        limit = self.bytes[space].numel()
        stop = address + item + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if stop > limit and 0 not in shape:
            raise AccessError(
                f"{space.name} bytes {address:#x} to {stop:#x} (shape {shape}, byte strides {strides}): "
                f"the space ends at {limit:#x}"
            )


def _shaped(buffer: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return buffer[: prod(shape) * dtype.itemsize].view(dtype).view(shape)


class Written:
    """Which bytes have been written. Depends on addresses only, so one walk serves every input."""

    def __init__(self, sizes: dict[Memory, int], initialised: frozenset[Memory] = READ_ONLY) -> None:
        self._bytes = {space: bytearray(size) for space, size in sizes.items() if space not in initialised}
        self._arrays = {space: np.frombuffer(data, dtype=np.uint8) for space, data in self._bytes.items()}

    def write(self, box: Box) -> None:
        """Mark the bytes of ``box``, which must lie within its space."""
        if box.space not in self._bytes:
            return
        if box.dense:
            self._bytes[box.space][box.start : box.stop] = b"\1" * box.run
        else:
            self._strided(box)[...] = 1

    def first_unwritten(self, space: Memory, start: int, stop: int) -> int:
        """The first byte of [start, stop) that nothing wrote, or -1."""
        return self._bytes[space].find(0, start, stop)

    def read(self, box: Box) -> None:
        """Raise UninitialisedError unless every byte of ``box``, within its space, has been written."""
        if (data := self._bytes.get(box.space)) is None:
            return
        bad = data.find(0, box.start, box.stop) if box.dense else self._first(box)
        if bad >= 0:
            raise UninitialisedError(
                f"reads {box}, but no instruction before it wrote {box.space.name} address {bad:#x}"
            )

    def _strided(self, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.lib.stride_tricks.as_strided(
            self._arrays[box.space][box.start :],
            (box.n0, box.n1, box.n2, box.run),
            (box.stride0, box.stride1, box.stride2, 1),
        )

    def _first(self, box: Box) -> int:
        if (view := self._strided(box)).all():
            return -1
        i, j, k, byte = np.argwhere(view == 0)[0].tolist()
        return box.start + i * box.stride0 + j * box.stride1 + k * box.stride2 + byte
