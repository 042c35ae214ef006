"""MMU: a broadcast dot-product array; integer in, exact int32 accumulators out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from isa.encoding import Bits, Engine, Instruction
from isa.instructions.types import S8, S16, U1, U4, U6, U8, U14, U16, U24
from isa.instructions.vcu import DType


class Mode(IntEnum):
    """Operand widths of a matrix instruction: weights, then activations."""

    W8A8 = 0
    W4A8 = 1
    W4A4 = 2
    W8A16 = 3
    W16A16 = 4
    F32 = 5

    @property
    def weight(self) -> DType:
        """Storage type of the weights."""
        return _OPERANDS[self][0]

    @property
    def activation(self) -> DType:
        """Storage type of the activations (int4 instead with ``decode``)."""
        return _OPERANDS[self][1]

    @property
    def accumulator(self) -> DType:
        """Type of the accumulators: int32; int64 with 16-bit activations; binary32 in mode F32."""
        return _OPERANDS[self][2]


_OPERANDS = {
    Mode.W8A8: (DType.I8, DType.I8, DType.I32),
    Mode.W4A8: (DType.I4, DType.I8, DType.I32),
    Mode.W4A4: (DType.I4, DType.I4, DType.I32),
    Mode.W8A16: (DType.I8, DType.I16, DType.I64),
    Mode.W16A16: (DType.I16, DType.I16, DType.I64),
    Mode.F32: (DType.F32, DType.F32, DType.F32),
}


@dataclass(frozen=True)
class MmuInput(Instruction, opcode=0x30, engine=Engine.MMU, mnemonic="mmu.input"):
    """Set the activation tile in SRAM: ``height`` x ``width`` pixels of ``channels`` elements, strides in bytes.

    The mode of ``mmu.run`` says what an element is; a pixel of 4-bit codes starts at a byte. A tap outside the tile
    reads the activation's zero point (``mmu.codes``), which is how padding is made.
    """

    height: U16 = 1
    width: U16 = 1
    channels: U16 = 1
    row_stride: U24 = 0
    pixel_stride: U16 = 1


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
    """Set how weights lie in SRAM: ``row_stride`` bytes between rows; rows of 4-bit codes start at a byte.

    Rows are output channels of K = kernel_h*kernel_w*channels elements in (kh, kw, c) order; with
    ``transposed`` they are K rows of output channels. A depthwise run has rows of kernel_h*kernel_w taps
    with ``channels`` elements each: taps x channels. Rows that overlap are an AccessError of the run.
    """

    row_stride: U24 = 0
    transposed: U1 = 0


@dataclass(frozen=True)
class MmuCodes(Instruction, opcode=0x35, engine=Engine.MMU, mnemonic="mmu.codes"):
    """Set what codes stand for: the zero points, and the decode table in front of the activation port.

    With ``per_channel`` weight row n has the zero point int16 at ``weight_zeros`` + 2*n in SRAM instead of
    ``weight_zero``. With ``decode`` activations are 4-bit codes q, read as entry q + 8 of the table (``mmu.table``),
    int8, in a mode with 8-bit activations; ``act_zero`` then counts in entries' units. Mode F32 ignores all of it, and
    pads with 0.
    """

    act_zero: S16 = 0
    weight_zero: S16 = 0
    per_channel: U1 = 0
    weight_zeros: U24 = 0
    decode: U1 = 0


@dataclass(frozen=True)
class MmuTable(Instruction, opcode=0x36, engine=Engine.MMU, mnemonic="mmu.table"):
    """Set entries ``index`` .. ``index`` + 3 of the decode table; ``index`` is a multiple of 4 (AccessError)."""

    index: U4 = 0
    v0: S8 = 0
    v1: S8 = 0
    v2: S8 = 0
    v3: S8 = 0


@dataclass(frozen=True)
class MmuOutput(Instruction, opcode=0x33, engine=Engine.MMU, mnemonic="mmu.output"):
    """Set the output tile: ``height`` x ``width`` pixels, ``pixel_stride`` bytes apart in the accumulators."""

    height: U16 = 1
    width: U16 = 1
    pixel_stride: U24 = 0


@dataclass(frozen=True)
class MmuRun(Instruction, opcode=0x34, engine=Engine.MMU, mnemonic="mmu.run"):
    """acc[m, n] (+)= sum_k (a[m, k] - zero_a) * (w[n, k] - zero_w), exact in the accumulator's integer type.

    m runs over output pixels row by row, n over ``n`` output channels, k over (kh, kw, c). With
    ``accumulate`` the sum is added to what the accumulators hold, else it replaces it. With
    ``depthwise`` output channel n reads only input channel n; ``n`` must equal the tile's ``channels`` (AccessError).
    Sums beyond the accumulator wrap. Outputs that overlap each other are an AccessError. Mode F32 adds fp32(a * w) to
    a binary32 accumulator one k after the other in (c, kh, kw) order, each step rounded; it starts from 0.
    """

    act: U24 = 0
    weight: U24 = 0
    acc: U24 = 0
    n: U14 = 1
    accumulate: U1 = 0
    depthwise: U1 = 0
    mode: Annotated[Mode, Bits(4)] = Mode.W8A8
