"""VCU: 64 lanes x chained stages of binary32, running short straight-line vector programs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from isa.encoding import Bits, Engine, Instruction
from isa.instructions.types import F32, S8, S16, S32, U1, U4, U6, U8, U14, U16, U24


class DType(IntEnum):
    """Storage type of a stream's elements."""

    I8 = 0
    I32 = 1
    F32 = 2
    I4 = 3
    I16 = 4
    I64 = 5


STORED_BITS = {DType.I4: 4, DType.I8: 8, DType.I16: 16, DType.I32: 32, DType.F32: 32, DType.I64: 64}
"""Bits of one element in memory. Two 4-bit codes share a byte, the first in the low half; a row of them (the innermost
loop) starts at a byte, and the spare half of an odd row is 0."""


class Space(IntEnum):
    """On-chip memory that a stream walks."""

    SRAM = 0
    ACC = 1


class Reduce(IntEnum):
    """Window reduction in front of stream A."""

    NONE = 0
    MAX = 1
    SUM = 2


class RowReduce(IntEnum):
    """Reduction of every row (the n2 elements of one n0, n1) behind the vector program.

    With v = rne(value * 2**fraction), an exact integer: SUM gives fp32(sum v) * 2**-fraction, SQUARES
    fp32(sum v*v) * 2**(-2*fraction), MOMENTS two numbers, SUM and fp32(n2 * sum v*v - (sum v)**2) * 2**(-2*fraction).
    MAX and MIN are those of ``Func`` over the row, ARGMAX the index of the first maximum (a NaN is one).
    """

    NONE = 0
    MAX = 1
    MIN = 2
    SUM = 3
    SQUARES = 4
    MOMENTS = 5
    ARGMAX = 6


class Resize(IntEnum):
    """Interpolation in front of stream A."""

    NONE = 0
    NEAREST = 1
    BILINEAR = 2


class Operand(IntEnum):
    """What the second operand of a vector op is."""

    REGISTER = 0
    IMMEDIATE = 1
    PARAMETER = 2


class Func(IntEnum):
    """One binary32 operation, rounded once: ``dst = func(a, b)``.

    MIN and MAX are IEEE 754-2019's minimum and maximum: NaN if an operand is NaN, and -0 below +0. RINT rounds to
    nearest even. Of zero, RECIPROCAL is the infinity of the same sign, RSQRT +inf for both zeros, LOG2 -inf; of
    negative values RSQRT and LOG2 are NaN. DIV and SQRT are IEEE's, correctly rounded. GE, GT and EQ give 1 or 0 (0
    where an operand is NaN). SELECT is ``dst = a != 0 ? b : dst``, the one that reads ``dst``. ALIGN is the power of
    two 2**(b - 1 - floor(log2 |a|)), its exponent at most 60: it brings a to b bits; 1 for a = 0, NaN for what is not
    finite.
    """

    COPY = 0
    ADD = 1
    SUB = 2
    MUL = 3
    MIN = 4
    MAX = 5
    RINT = 6
    SIGMOID = 7
    TANH = 8
    EXP2 = 9
    LOG2 = 10
    ERF = 11
    RECIPROCAL = 12
    RSQRT = 13
    ABS = 14
    DIV = 15
    SQRT = 16
    EXP = 17
    LOG = 18
    GE = 19
    GT = 20
    EQ = 21
    SELECT = 22
    FLOOR = 23
    ALIGN = 24


STREAM_OUTPUT = 7


@dataclass(frozen=True)
class VcuOp(Instruction, opcode=0x40, engine=Engine.VCU, mnemonic="vcu.op"):
    """Write program slot ``slot``: r[dst] = func(r[a], operand b).

    Operand b is register ``b``, the immediate, or parameter vector ``b`` (one binary32 per channel, see
    ``vcu.params``). Registers 0..3 are preloaded with streams A..D, a register that nothing wrote reads 0; the
    result of the last op is stored.
    """

    slot: U6 = 0
    func: Annotated[Func, Bits(6)] = Func.COPY
    dst: U4 = 0
    a: U4 = 0
    b_kind: Annotated[Operand, Bits(2)] = Operand.REGISTER
    b: U4 = 0
    immediate: F32 = 0.0


@dataclass(frozen=True)
class VcuShape(Instruction, opcode=0x41, engine=Engine.VCU, mnemonic="vcu.shape"):
    """Set the iteration space of ``vcu.run``: ``n0`` x ``n1`` x ``n2``; n2 is the channel axis."""

    n0: U16 = 1
    n1: U16 = 1
    n2: U16 = 1


@dataclass(frozen=True)
class VcuStream(Instruction, opcode=0x42, engine=Engine.VCU, mnemonic="vcu.stream"):
    """Set stream ``id`` (0..3 = A..D, 7 = output): space, storage type and byte strides along n0, n1, n2.

    A stride of 0 broadcasts. Inputs become binary32: int8 as (q - zero) * scale (see ``vcu.convert``),
    int4 and int16 likewise, int32 and int64 rounded to nearest even, binary32 as it is. ``stride2`` of an int4 stream
    is in elements and 0 or 1 (AccessError). An output with ``encode`` is the code -8 + (number of ``vcu.threshold``
    values that are <= y), int4; NaN gives the conversion's zero.
    """

    id: Annotated[int, Bits(3)] = 0
    dtype: Annotated[DType, Bits(3)] = DType.I8
    space: Annotated[Space, Bits(1)] = Space.SRAM
    stride0: U24 = 0
    stride1: U24 = 0
    stride2: U24 = 1
    encode: U1 = 0


@dataclass(frozen=True)
class VcuConvert(Instruction, opcode=0x43, engine=Engine.VCU, mnemonic="vcu.convert"):
    """Set the conversion of codes (int4, int8, int16) of stream ``id``: input (q - zero) * scale, output
    clamp(rne(y * scale) + zero) to the width's range.

    For an output stream ``scale`` is the reciprocal of the quantization step; NaN gives ``zero``, infinities saturate.
    Inputs with ``scale`` 0 skip the multiplication and give q - zero, the exact integer. int32 outputs, which no
    conversion scales, round to nearest even and saturate; NaN gives 0.
    """

    id: Annotated[int, Bits(3)] = 0
    zero: S16 = 0
    scale: F32 = 1.0


@dataclass(frozen=True)
class VcuParams(Instruction, opcode=0x44, engine=Engine.VCU, mnemonic="vcu.params"):
    """Set the parameter vectors: vector p, channel c is the binary32 at ``base`` + p*``stride`` + 4*c."""

    base: U24 = 0
    stride: U24 = 0


@dataclass(frozen=True)
class VcuWindow(Instruction, opcode=0x45, engine=Engine.VCU, mnemonic="vcu.window"):
    """Set the window reduction of stream A; ``reduce`` NONE turns it off.

    With a reduction, stream A holds a ``height`` x ``width`` tile of int8, or for MAX int16, with pixel strides
    stride0, stride1, and element (y, x, c) is the reduction over taps of q - zero; taps outside the tile are left out.
    MAX and SUM are exact integers, converted once to binary32, then multiplied by the stream's scale unless it is 0.
    A window without a tap inside the tile gives MAX the lowest code less zero and SUM 0. A stream A of another type
    is an AccessError.
    """

    reduce: Annotated[Reduce, Bits(2)] = Reduce.NONE
    kernel_h: U8 = 1
    kernel_w: U8 = 1
    stride_h: U6 = 1
    stride_w: U6 = 1
    dilation_h: U6 = 1
    dilation_w: U6 = 1
    pad_top: U8 = 0
    pad_left: U8 = 0
    height: U16 = 1
    width: U16 = 1


@dataclass(frozen=True)
class VcuBase(Instruction, opcode=0x46, engine=Engine.VCU, mnemonic="vcu.base"):
    """Set the base addresses of streams C and D."""

    c: U24 = 0
    d: U24 = 0


@dataclass(frozen=True)
class VcuRun(Instruction, opcode=0x47, engine=Engine.VCU, mnemonic="vcu.run"):
    """Run program slots ``first`` .. ``first``+``count``-1 on every element and store to the output stream.

    Streams A and B start at ``a`` and ``b``, the output at ``dst``; ``streams`` says how many of A..D are
    read. A count of 0 copies stream A through the conversions. A NaN that is stored as F32, by the output stream or a
    row reduction, is 0x7fc00000. Outputs that overlap each other are an AccessError, and
    so is an output that lies on an input, unless both have the same address, element size and strides.
    """

    first: U6 = 0
    count: U6 = 0
    streams: Annotated[int, Bits(3)] = 1
    a: U24 = 0
    b: U24 = 0
    dst: U24 = 0


@dataclass(frozen=True)
class VcuReduce(Instruction, opcode=0x49, engine=Engine.VCU, mnemonic="vcu.reduce"):
    """Set the row reduction of later ``vcu.run``; ``kind`` NONE turns it off.

    The result of row (i0, i1) is the binary32 at ``dst`` + 4*(i0*n1 + i1) in SRAM; MOMENTS stores pairs, 8 bytes apart.
    The output stream is written only with ``elements``. A row with a value that is not finite, or |v| >= 2**46 (SUM) or
    |v| > 2**18 (SQUARES, MOMENTS), gives NaN; SQUARES and MOMENTS take rows of at most 8192 elements (AccessError).
    """

    kind: Annotated[RowReduce, Bits(3)] = RowReduce.NONE
    fraction: S8 = 0
    elements: U1 = 0
    dst: U24 = 0


@dataclass(frozen=True)
class VcuThreshold(Instruction, opcode=0x4A, engine=Engine.VCU, mnemonic="vcu.threshold"):
    """Set threshold ``index`` (0..14, rising) of the encoder behind an output stream with ``encode``."""

    index: U4 = 0
    value: F32 = 0.0


@dataclass(frozen=True)
class VcuResize(Instruction, opcode=0x4B, engine=Engine.VCU, mnemonic="vcu.resize"):
    """Set the interpolation of stream A along ``axis`` (0 = rows, 1 = columns); ``kind`` NONE on both turns it off.

    Output y lies at p = max(y*num + phase, 0) / den in a tile of ``size`` rows: i0 = min(floor(p), size-1),
    i1 = min(i0 + 1, size-1), t = fp32(remainder / den). BILINEAR is a + (b - a)*t along columns, then along rows, each
    operation rounded once, on q - zero (codes; then times the stream's scale unless 0) or on binary32; NEAREST takes
    i0. Both axes have the same kind; a window reduction beside it is an AccessError.
    """

    axis: U1 = 0
    kind: Annotated[Resize, Bits(2)] = Resize.NONE
    num: U14 = 1
    den: U14 = 1
    phase: S32 = 0
    size: U16 = 1
