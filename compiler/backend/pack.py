"""The constants of a binary: weights and parameters in blocks, one per load, each on a burst boundary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.ir.kernel import KernelSpec, MatrixAnchor
from compiler.ir.tiling import Range
from isa import numerics
from isa.instructions import DType

ALIGN = 64


@dataclass
class ConstantPool:
    """Bytes of ``Region.CONSTANTS``; equal blocks are stored once."""

    data: bytearray = field(default_factory=bytearray)
    _offsets: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def add(self, block: bytes) -> int:
        """Offset of ``block``."""
        key = hashlib.blake2b(block, digest_size=16).digest()
        if (known := self._offsets.get(key)) is not None:
            return known
        self.data += bytes(-len(self.data) % ALIGN)
        offset = self._offsets[key] = len(self.data)
        self.data += block
        return offset


def weight_block(spec: KernelSpec, channels: Range, k: Range) -> bytes:
    """Weights of output ``channels`` over input channels ``k`` of each group: rows [o][kh][kw][c], each from a byte on.

    A depthwise block is taps x channels: [kh][kw][c]. Behind the rows, from an even byte on, are the zero points of the
    output channels (int16) where these differ.
    """
    anchor = spec.anchor
    assert isinstance(anchor, MatrixAnchor)
    weights = spec.constants[anchor.weight]
    if anchor.depthwise:
        rows = weights[..., channels.start : channels.stop].reshape(anchor.window.taps, channels.size)
    else:
        rows = weights[channels.start : channels.stop, ..., k.start : k.stop].reshape(channels.size, -1)
    block = packed(rows, spec.dtypes[anchor.weight])
    if anchor.weight_zeros:
        zeros = np.asarray(anchor.weight_zeros[channels.start : channels.stop], "<i2")
        block += bytes(len(block) % 2) + zeros.tobytes()
    return block


def packed(array: NDArray[np.generic], dtype: DType) -> bytes:
    """An array of one code or number per element as it is stored; each row of 4-bit codes starts at a byte."""
    if dtype is DType.I4:
        return numerics.pack4(array.astype(np.int8)).tobytes()
    kind = {DType.I8: "i1", DType.I16: "<i2", DType.F32: "<f4"}[dtype]
    return np.ascontiguousarray(array, kind).tobytes()


def params_block(spec: KernelSpec, channels: Range) -> bytes:
    """Binary32 parameter vectors of all programs over ``channels``, in the order in which they run."""
    vectors = [vector for program in spec.programs for vector in program.params]
    return b"".join(np.ascontiguousarray(v[channels.start : channels.stop]).tobytes() for v in vectors)
