"""VCU: 64 lanes x chained stages of binary32, running short straight-line vector programs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from isa.encoding import Bits, Engine, Instruction
from isa.instructions.types import F32, S8, U4, U6, U8, U16, U24


class DType(IntEnum):
    """Storage type of a stream's elements."""

    I8 = 0
    I32 = 1
    F32 = 2


class Space(IntEnum):
    """On-chip memory that a stream walks."""

    SRAM = 0
    ACC = 1


class Reduce(IntEnum):
    """Window reduction in front of stream A."""

    NONE = 0
    MAX = 1
    SUM = 2


class Operand(IntEnum):
    """What the second operand of a vector op is."""

    REGISTER = 0
    IMMEDIATE = 1
    PARAMETER = 2


class Func(IntEnum):
    """One binary32 operation, rounded once: ``dst = func(a, b)``.

    MIN and MAX are IEEE 754-2019's minimum and maximum: NaN if an operand is NaN, and -0 below +0. RINT rounds to
    nearest even. Of zero, RECIPROCAL is the infinity of the same sign, RSQRT +inf for both zeros, LOG2 -inf; of
    negative values RSQRT and LOG2 are NaN.
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
    int32 rounded to nearest even, binary32 as it is.
    """

    id: Annotated[int, Bits(3)] = 0
    dtype: Annotated[DType, Bits(3)] = DType.I8
    space: Annotated[Space, Bits(1)] = Space.SRAM
    stride0: U24 = 0
    stride1: U24 = 0
    stride2: U24 = 1


@dataclass(frozen=True)
class VcuConvert(Instruction, opcode=0x43, engine=Engine.VCU, mnemonic="vcu.convert"):
    """Set the int8 conversion of stream ``id``: input (q - zero) * scale, output clamp(rne(y * scale) + zero).

    For an output stream ``scale`` is the reciprocal of the quantization step; NaN gives ``zero``, infinities saturate.
    Inputs with ``scale`` 0 skip the multiplication and give q - zero, the exact integer. int32 outputs, which no
    conversion scales, round to nearest even and saturate; NaN gives 0.
    """

    id: Annotated[int, Bits(3)] = 0
    zero: S8 = 0
    scale: F32 = 1.0


@dataclass(frozen=True)
class VcuParams(Instruction, opcode=0x44, engine=Engine.VCU, mnemonic="vcu.params"):
    """Set the parameter vectors: vector p, channel c is the binary32 at ``base`` + p*``stride`` + 4*c."""

    base: U24 = 0
    stride: U24 = 0


@dataclass(frozen=True)
class VcuWindow(Instruction, opcode=0x45, engine=Engine.VCU, mnemonic="vcu.window"):
    """Set the window reduction of stream A; ``reduce`` NONE turns it off.

    With a reduction, stream A holds a ``height`` x ``width`` int8 tile with pixel strides stride0, stride1, and
    element (y, x, c) is the reduction over taps of q - zero; taps outside the tile are left out. MAX
    and SUM are exact integers, converted once to binary32, then multiplied by the stream's scale unless it is 0.
    A window without a tap inside the tile gives MAX the lowest code (-128 - zero) and SUM 0. A stream A that is not
    int8 is an AccessError.
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
    read. A count of 0 copies stream A through the conversions. Outputs that overlap each other are an AccessError, and
    so is an output that lies on an input, unless both have the same address, element size and strides.
    """

    first: U6 = 0
    count: U6 = 0
    streams: Annotated[int, Bits(3)] = 1
    a: U24 = 0
    b: U24 = 0
    dst: U24 = 0
