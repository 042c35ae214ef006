"""MMU: a broadcast dot-product array; integer in, exact int32 accumulators out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from isa.encoding import Bits, Engine, Instruction
from isa.instructions.types import S8, U1, U6, U8, U14, U16, U24


class Mode(IntEnum):
    """Operand widths of a matrix instruction: weights, then activations."""

    W8A8 = 0


@dataclass(frozen=True)
class MmuInput(Instruction, opcode=0x30, engine=Engine.MMU, mnemonic="mmu.input"):
    """Set the activation tile in SRAM: ``height`` x ``width`` pixels of ``channels`` int8, strides in bytes.

    A tap outside the tile reads ``zero`` (the activation's zero point), which is how padding is made.
    """

    height: U16 = 1
    width: U16 = 1
    channels: U16 = 1
    row_stride: U24 = 0
    pixel_stride: U16 = 1
    zero: S8 = 0


@dataclass(frozen=True)
class MmuWindow(Instruction, opcode=0x31, engine=Engine.MMU, mnemonic="mmu.window"):
    """Set the window: output (y, x) tap (i, j) reads input (y*stride_h + i*dilation_h - pad_top, ...)."""

    kernel_h: U8 = 1
    kernel_w: U8 = 1
    stride_h: U6 = 1
    stride_w: U6 = 1
    dilation_h: U6 = 1
    dilation_w: U6 = 1
    pad_top: U8 = 0
    pad_left: U8 = 0


@dataclass(frozen=True)
class MmuWeight(Instruction, opcode=0x32, engine=Engine.MMU, mnemonic="mmu.weight"):
    """Set how weights lie in SRAM: int8, ``row_stride`` bytes between rows, zero point ``zero``.

    Rows are output channels of K = kernel_h*kernel_w*channels bytes in (kh, kw, c) order; with
    ``transposed`` they are K rows of output channels. A depthwise run has rows of kernel_h*kernel_w taps
    with ``channels`` bytes each: taps x channels. Rows that overlap are an AccessError of the run.
    """

    row_stride: U24 = 0
    zero: S8 = 0
    transposed: U1 = 0


@dataclass(frozen=True)
class MmuOutput(Instruction, opcode=0x33, engine=Engine.MMU, mnemonic="mmu.output"):
    """Set the output tile: ``height`` x ``width`` pixels, ``pixel_stride`` bytes apart in the accumulators."""

    height: U16 = 1
    width: U16 = 1
    pixel_stride: U24 = 0


@dataclass(frozen=True)
class MmuRun(Instruction, opcode=0x34, engine=Engine.MMU, mnemonic="mmu.run"):
    """acc[m, n] (+)= sum_k (a[m, k] - zero_a) * (w[n, k] - zero_w), exact in int32.

    m runs over output pixels row by row, n over ``n`` output channels, k over (kh, kw, c). With
    ``accumulate`` the sum is added to what the accumulators hold, else it replaces it. With
    ``depthwise`` output channel n reads only input channel n; ``n`` must equal the tile's ``channels`` (AccessError).
    Sums beyond int32 wrap modulo 2^32. Outputs that overlap each other are an AccessError.
    """

    act: U24 = 0
    weight: U24 = 0
    acc: U24 = 0
    n: U14 = 1
    accumulate: U1 = 0
    depthwise: U1 = 0
    mode: Annotated[Mode, Bits(4)] = Mode.W8A8
