"""Codebooks in graphs: 4-bit codes whose 16 values are free, as QuartDepth's LogNP needs (arXiv 2503.16709, eqs 5-7).

``quartic::quantize_codebook(x, thresholds)`` gives int8 codes -8 + (number of the 15 rising thresholds that are <= x);
``quartic::dequantize_codebook(q, codebook, zero, scale)`` gives fp32(codebook[q + 8] - zero) * fp32(scale).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from isa import numerics


@torch.library.custom_op("quartic::quantize_codebook", mutates_args=())
def quantize_codebook(x: torch.Tensor, thresholds: Sequence[float]) -> torch.Tensor:
    """int8 codes in -8 .. 7 of the shape of ``x``."""
    return numerics.encode(x, thresholds)


@quantize_codebook.register_fake
def _(x: torch.Tensor, thresholds: Sequence[float]) -> torch.Tensor:
    return torch.empty_like(x, dtype=torch.int8)


@torch.library.custom_op("quartic::dequantize_codebook", mutates_args=())
def dequantize_codebook(q: torch.Tensor, codebook: Sequence[int], zero: int, scale: float) -> torch.Tensor:
    """Binary32 values of codes."""
    return numerics.dequantize(numerics.decode(q, codebook), scale, zero)


@dequantize_codebook.register_fake
def _(q: torch.Tensor, codebook: Sequence[int], zero: int, scale: float) -> torch.Tensor:
    return torch.empty_like(q, dtype=torch.float32)
