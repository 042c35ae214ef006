"""What the back end takes from a fused kernel: frozen values with the maths of windows and layouts.

A kernel computes one output tensor, seen as (n, h, w, c). The anchor produces an int32 or binary32 value per
output element (accumulators of the MMU, a window reduction, or just stream A); the vector program turns
it, with other streams and per-channel parameters, into what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isa.instructions import DType, Func, Mode, Operand, Reduce, Resize, RowReduce

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Taps of a convolution or pool over (h, w); paddings after the end follow from the shapes."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)

    @property
    def taps(self) -> int:
        """Number of taps."""
        return self.kernel[0] * self.kernel[1]

    def extent(self, axis: int) -> int:
        """Input length that one output reads along ``axis`` (0 = h, 1 = w)."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def input_range(self, axis: int, start: int, stop: int, size: int) -> tuple[int, int, int]:
        """Input [lo, hi) that outputs [start, stop) read, and how many taps hang over in front of lo.

        lo and hi are clipped to [0, size); an empty range is given as (0, 0, ...) with the overhang kept.
        """
        first = start * self.stride[axis] - self.pad[axis]
        last = (stop - 1) * self.stride[axis] - self.pad[axis] + self.extent(axis)
        low, high = min(max(first, 0), size), min(max(last, 0), size)
        return low, max(low, high), low - first


@dataclass(frozen=True)
class MatrixAnchor:
    """Convolution, linear or matmul on the MMU: operand ``act`` times operand ``weight``."""

    act: int
    weight: int
    window: Window
    groups: int
    zero_act: int
    zero_weight: int = 0
    depthwise: bool = False
    dynamic_weight: bool = False
    """The weight is an activation (matmul), [K, N] or with ``transposed`` [N, K], not a constant [N, K]."""
    transposed: bool = False
    mode: Mode = Mode.W8A8
    weight_zeros: tuple[int, ...] = ()
    """Zero point of each output channel; empty when ``zero_weight`` is that of all."""
    codebook: tuple[int, ...] = ()
    """16 entries that 4-bit activation codes stand for; ``zero_act`` counts in their units."""


@dataclass(frozen=True)
class PoolAnchor:
    """Window reduction of int8 operand ``act`` on the VCU; sum or max of (q - zero), times ``scale`` unless 0."""

    act: int
    window: Window
    reduce: Reduce
    zero: int
    scale: float


@dataclass(frozen=True)
class ResizeAnchor:
    """Interpolation of operand ``act`` over (h, w): output y reads max(y*num + phase, 0) / den; see ``vcu.resize``."""

    act: int
    kind: Resize
    num: tuple[int, int]
    den: tuple[int, int]
    phase: tuple[int, int]
    zero: int = 0
    scale: float = 0.0

    def input_range(self, axis: int, start: int, stop: int, size: int) -> tuple[int, int]:
        """Input [lo, hi) that outputs [start, stop) read along ``axis`` (0 = h, 1 = w)."""
        first, last = (max(y * self.num[axis] + self.phase[axis], 0) // self.den[axis] for y in (start, stop - 1))
        more = 2 if self.kind is Resize.BILINEAR else 1
        return min(first, size - 1), min(last + more, size)


@dataclass(frozen=True)
class CopyAnchor:
    """Move elements of ``act`` by strides, outermost loop first, in elements of each tensor; both whole in SRAM.

    For fills and for nests of more than four loops; others are a :class:`Movement`, which tiles.
    """

    act: int
    sizes: tuple[int, ...]
    input_strides: tuple[int, ...]
    output_strides: tuple[int, ...]
    input_offset: int = 0
    output_offset: int = 0
    fill: float | None = None
    """Code or number that the whole output holds before the copy (pad); None when the copy writes all of it."""


Anchor = MatrixAnchor | PoolAnchor | ResizeAnchor | CopyAnchor | None


@dataclass(frozen=True)
class Stream:
    """One input of a vector program; ``operand`` None is the anchor's result (accumulators or reduced window)."""

    operand: int | None
    dtype: DType
    zero: int = 0
    scale: float = 0.0
    """Dequantization step; 0 leaves the exact integer (q - zero)."""
    row: int = -1
    """Not an operand but number ``row`` of what the row stages gave: one binary32 per row of channels."""


@dataclass(frozen=True)
class VectorOp:
    """``r[dst] = func(r[a], b)``; registers 0..3 start as the streams in order."""

    func: Func
    dst: int
    a: int
    kind: Operand = Operand.REGISTER
    b: int = 0
    immediate: float = 0.0


@dataclass(frozen=True, eq=False)
class VectorProgram:
    """Straight-line float program of a kernel; the last op's result is converted and stored.

    ``inverse_scale`` is fp32(1/s) of the output step; an empty op list stores stream A.
    """

    streams: tuple[Stream, ...]
    ops: tuple[VectorOp, ...]
    output: DType
    zero: int = 0
    inverse_scale: float = 1.0
    params: tuple[NDArray[np.float32], ...] = ()
    """Per-channel vectors, each of the output's channel count."""
    thresholds: tuple[float, ...] = ()
    """15 rising thresholds of the encoder that makes the output's codes, not the conversion; NaN gives ``zero``."""


@dataclass(frozen=True, eq=False)
class RowStage:
    """A pass over the tile before the kernel's program, which leaves one binary32 per row (two for MOMENTS).

    ``reduce`` NONE: the program runs once per row, on rows of earlier stages alone. With ``in_place`` the elements
    replace the accumulators as binary32, and later programs that read the anchor's result read those.
    Results are numbered in order of the stages; MOMENTS takes two numbers.
    """

    program: VectorProgram
    reduce: RowReduce = RowReduce.NONE
    fraction: int = 0
    in_place: bool = False

    @property
    def results(self) -> int:
        """How many numbers per row."""
        return 2 if self.reduce is RowReduce.MOMENTS else 1


@dataclass(frozen=True)
class Movement:
    """Operand 0 and the result of a vector-only kernel as the same loops over different strides, in elements.

    Both are walked as one (n, h, w, c), the operand from ``input_offset`` on; neither lies as that shape alone says.
    """

    input_strides: Shape4
    output_strides: Shape4
    input_offset: int = 0


@dataclass(frozen=True, eq=False)
class KernelSpec:
    """A fused kernel: operands as (n, h, w, c), the anchor, its program, and an optional trailing anchor.

    ``stages`` reduce rows of channels before ``program``; such a kernel's tiles hold whole rows. With ``pool``,
    ``program`` writes a tensor of shape ``inner`` that never leaves the chip, and ``pool_program`` turns its window
    reduction, or the product with another operand (attention's P V), into the output.
    """

    name: str
    operands: tuple[Shape4, ...]
    dtypes: tuple[DType, ...]
    output: Shape4
    anchor: Anchor
    program: VectorProgram
    pool: PoolAnchor | MatrixAnchor | None = None
    inner: Shape4 | None = None
    pool_program: VectorProgram | None = None
    macs: int = 0
    movement: Movement | None = None
    stages: tuple[RowStage, ...] = ()
    row_channels: int = 0
    """Length of the rows that ``stages`` sweep, where that is not the program's channels (a reduction leaves one)."""
    constants: dict[int, NDArray[np.generic]] = field(default_factory=dict[int, NDArray[np.generic]])
    """Compile-time constants: weights as [O, kh, kw, C/g] or [O, K], a code per element; others as (n, h, w, c)."""

    @property
    def programs(self) -> tuple[VectorProgram, ...]:
        """All vector programs, in the order in which they run on a tile."""
        last = () if self.pool_program is None else (self.pool_program,)
        return (*(stage.program for stage in self.stages), self.program, *last)

    @property
    def product(self) -> MatrixAnchor | None:
        """The trailing matrix product, if there is one."""
        return self.pool if isinstance(self.pool, MatrixAnchor) else None

    @cached_property
    def reads(self) -> tuple[tuple[str, int], ...]:
        """(role of ``compiler.ir.tiling.READS``, operand) of all that is read as boxes: not weights or parameters."""
        anchor = self.anchor
        found: list[tuple[str, int]] = [] if anchor is None else [("act", anchor.act)]
        if isinstance(anchor, MatrixAnchor) and anchor.dynamic_weight:
            found.append(("rhs", anchor.weight))
        if self.product is not None:
            found.append(("second", self.product.weight))
        swept = "row" if self.row_channels else "stream"
        roles = [*((swept, stage.program) for stage in self.stages), ("stream", self.program)]
        if self.pool_program is not None:
            roles.append(("pooled", self.pool_program))
        for role, program in roles:
            found += [(role, s.operand) for s in program.streams if s.operand is not None]
        return tuple(dict.fromkeys(found))

    @property
    def row_results(self) -> int:
        """Numbers per row that the stages leave."""
        return sum(stage.results for stage in self.stages)

    @property
    def stored(self) -> VectorProgram:
        """The program that makes the kernel's output."""
        return self.pool_program or self.program
