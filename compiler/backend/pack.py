"""The constants of a binary: weights and parameters in blocks, one per load, each on a burst boundary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.ir.kernel import KernelSpec, MatrixAnchor
from compiler.ir.tiling import Range

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
    """int8 weights of output ``channels`` over input channels ``k`` of each group: rows [o][kh][kw][c].

    A depthwise block is taps x channels: [kh][kw][c].
    """
    anchor = spec.anchor
    assert isinstance(anchor, MatrixAnchor)
    weights = spec.constants[anchor.weight]
    if anchor.depthwise:
        return np.ascontiguousarray(weights[..., channels.start : channels.stop]).tobytes()
    rows = weights[channels.start : channels.stop, ..., k.start : k.stop]
    return np.ascontiguousarray(rows).tobytes()


def params_block(spec: KernelSpec, channels: Range) -> bytes:
    """Binary32 parameter vectors of both programs over ``channels``, one after the other."""
    vectors: tuple[NDArray[np.float32], ...] = spec.program.params
    if spec.pool_program is not None:
        vectors += spec.pool_program.params
    return b"".join(np.ascontiguousarray(v[channels.start : channels.stop]).tobytes() for v in vectors)
