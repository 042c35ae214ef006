"""Codes of every width: their ranges, packing of 4-bit codes, and codebooks."""

from __future__ import annotations

from collections.abc import Sequence

from isa.numerics.namespace import Array, cast, fp32, is_torch, namespace

CODEBOOK_LOW = -8
"""The code of a codebook's first entry."""


def code_range(width: int) -> tuple[int, int]:
    """Lowest and highest signed code of ``width`` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def code_type(width: int) -> str:
    """Name of the array type that holds one code of ``width`` bits per element."""
    return "int16" if width == 16 else "int8"


def pack4(codes: Array) -> Array:
    """int8 codes -8 .. 7, [..., n], as bytes [..., ceil(n/2)]: a pair's first in the low half, 0 after an odd end."""
    xp = namespace(codes)
    if codes.shape[-1] % 2:
        end = xp.zeros((*codes.shape[:-1], 1), dtype=codes.dtype)
        codes = xp.cat((codes, end), -1) if is_torch(codes) else xp.concatenate((codes, end), -1)
    return (codes[..., 0::2] & 15) | (codes[..., 1::2] << 4)


def unpack4(packed: Array, n: int) -> Array:
    """The ``n`` int8 codes per row that :func:`pack4` has packed into int8 bytes [..., ceil(n/2)]."""
    xp = namespace(packed)
    pairs = ((packed << 4) >> 4, packed >> 4)
    codes = xp.stack(pairs, -1).reshape((*packed.shape[:-1], 2 * packed.shape[-1]))
    return codes[..., :n]


def encode(y: Array, thresholds: Sequence[float]) -> Array:
    """int8 codes -8 + (number of rising binary32 ``thresholds`` that are <= y); NaN gives -8."""
    xp = namespace(y)
    total = xp.full(tuple(y.shape), CODEBOOK_LOW, dtype=xp.int8)
    for threshold in thresholds:
        total = total + cast(y >= fp32(threshold), "int8")
    return total


def decode(codes: Array, codebook: Sequence[int]) -> Array:
    """int8 entries of a codebook for codes -8 .. 7."""
    xp = namespace(codes)
    make = xp.tensor if is_torch(codes) else xp.array
    table = make(list(codebook), dtype=xp.int8)
    return table[cast(codes, "int64") - CODEBOOK_LOW]
