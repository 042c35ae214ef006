"""Which bytes an instruction touches: the ground truth of synchronization, race checks and traffic.

Boxes are exact for every access that walks an arithmetic progression of rows and columns, and a superset
otherwise (a window whose taps leave gaps of several sizes). They never miss a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from isa.encoding import Instruction
from isa.instructions import (
    STORED_BITS,
    DType,
    Func,
    Halt,
    LoadCopy,
    LoadSync,
    LoadTile,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuSync,
    MmuWindow,
    Mode,
    Operand,
    Reduce,
    Region,
    Resize,
    RowReduce,
    Space,
    StoreCopy,
    StoreSync,
    StoreTile,
    VcuResize,
    VcuRun,
    VcuStream,
    VcuSync,
    VcuWindow,
)
from isa.instructions.vcu import STREAM_OUTPUT
from isa.state import SETTERS, State

ELEMENT_BYTES = {DType.I4: 1, DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F32: 4, DType.I64: 8}
"""Bytes between neighbouring elements; of 4-bit codes, a byte holds two."""
CODES = frozenset({DType.I4, DType.I8, DType.I16})
SPLIT_TAPS = 8
"""Taps along one axis that get a box each when the rows that they visit leave gaps of several sizes."""
BINARY_FUNCS = frozenset(
    {Func.ADD, Func.SUB, Func.MUL, Func.MIN, Func.MAX, Func.DIV, Func.GE, Func.GT, Func.EQ, Func.SELECT, Func.ALIGN}
)
"""Those that read operand b."""


class Memory(IntEnum):
    """Every byte-addressed space that an instruction can touch."""

    SRAM = 0
    ACC = 1
    CODE = 2
    CONSTANTS = 3
    INPUT = 4
    OUTPUT = 5
    ARENA = 6


ON_CHIP = {Space.SRAM: Memory.SRAM, Space.ACC: Memory.ACC}
DRAM = {region: Memory[region.name] for region in Region}


class Box(NamedTuple):
    """The bytes start + i*stride0 + j*stride1 + k*stride2 + [0, run) of one space; strides fall."""

    space: Memory
    start: int
    run: int
    n0: int = 1
    stride0: int = 0
    n1: int = 1
    stride1: int = 0
    n2: int = 1
    stride2: int = 0

    @property
    def stop(self) -> int:
        """One past the last byte."""
        return (
            self.start
            + self.run
            + (self.n0 - 1) * self.stride0
            + (self.n1 - 1) * self.stride1
            + (self.n2 - 1) * self.stride2
        )

    @property
    def bytes(self) -> int:
        """Number of bytes, counted once each when no two runs meet."""
        return self.run * self.n0 * self.n1 * self.n2

    @property
    def dense(self) -> bool:
        """Whether the box is one contiguous run."""
        return self.n0 == 1

    def overlaps(self, other: Box) -> bool:
        """False only when no byte is in both; sees that interleaved slices of one tensor are apart."""
        if self.space is not other.space or self.start >= other.stop or other.start >= self.stop:
            return False
        return self.n0 == 1 == other.n0 or not _interleaved(self, other)

    def __str__(self) -> str:
        loops = ((self.n0, self.stride0), (self.n1, self.stride1), (self.n2, self.stride2))
        steps = "".join(f", {n} x {stride}" for n, stride in loops if n > 1)
        return f"{self.space.name} [{self.start:#x}, {self.start + self.run:#x}){steps}"


class Accesses(NamedTuple):
    """What one instruction reads and writes. A box that is only ever empty is left out."""

    reads: tuple[Box, ...]
    writes: tuple[Box, ...]


NOTHING = Accesses((), ())


def make_box(space: Memory, start: int, run: int, *loops: tuple[int, int]) -> tuple[Box, ...]:
    """The normal form of ``loops`` of (count, stride) over ``run`` bytes: at most three, strides falling.

    Broadcast and single loops are dropped, loops that only extend the run are merged into it. Empty when
    there is no byte.
    """
    if run == 0 or any(n == 0 for n, _ in loops):
        return ()
    kept: list[int] = []
    for n, stride in sorted((loop for loop in loops if loop[0] > 1), key=_stride):
        if not kept and stride <= run:
            run += (n - 1) * stride
        else:
            kept[:0] = (n, stride)
    return (Box(space, start, run, *kept),)


def _stride(loop: tuple[int, int]) -> int:
    return loop[1]


def _interleaved(a: Box, b: Box) -> bool:
    """Whether some common period keeps the two apart.

    Collapse each box's inner loops into its run, level by level. The bytes then repeat with every
    remaining stride, so with period g, their greatest common divisor: if the two runs do not meet
    modulo g, no byte is shared.
    """
    return any(
        _apart(a.start, run_a, b.start, run_b, gcd(g_a, g_b)) for run_a, g_a in _levels(a) for run_b, g_b in _levels(b)
    )


def _levels(box: Box) -> list[tuple[int, int]]:
    """(run, gcd of the strides left) with 0, 1, ... inner loops taken into the run."""
    _, _, run, n0, s0, n1, s1, n2, s2 = box
    levels = [(run, gcd(s0, s1, s2))]
    if n2 > 1:
        run += (n2 - 1) * s2
        levels.append((run, gcd(s0, s1)))
    if n1 > 1:
        run += (n1 - 1) * s1
        levels.append((run, s0))
    if n0 > 1:
        levels.append((run + (n0 - 1) * s0, 0))
    return levels


def _apart(start_a: int, run_a: int, start_b: int, run_b: int, period: int) -> bool:
    if period == 0:
        return False
    return (start_b - start_a) % period >= run_a and (start_a - start_b) % period >= run_b


def accesses(instruction: Instruction, state: State) -> Accesses:
    """The bytes that ``instruction`` reads and writes under ``state``; setup instructions touch none."""
    return ACCESSES[type(instruction)](instruction, state)


def _none(_instruction: Instruction, _state: State) -> Accesses:
    return NOTHING


def _load_copy(inst: Instruction, _state: State) -> Accesses:
    assert isinstance(inst, LoadCopy)
    return Accesses(make_box(DRAM[inst.region], inst.offset, inst.bytes), make_box(Memory.SRAM, inst.sram, inst.bytes))


def _load_tile(inst: Instruction, state: State) -> Accesses:
    assert isinstance(inst, LoadTile)
    shape, strides = state.load_shape, state.load_strides
    n0, n1, run = shape.n0, shape.n1, shape.run
    return Accesses(
        make_box(DRAM[inst.region], inst.offset, run, (n0, strides.dram0), (n1, strides.dram1)),
        make_box(Memory.SRAM, inst.sram, run, (n0, strides.sram0), (n1, strides.sram1)),
    )


def _store_copy(inst: Instruction, _state: State) -> Accesses:
    assert isinstance(inst, StoreCopy)
    return Accesses(make_box(Memory.SRAM, inst.sram, inst.bytes), make_box(DRAM[inst.region], inst.offset, inst.bytes))


def _store_tile(inst: Instruction, state: State) -> Accesses:
    assert isinstance(inst, StoreTile)
    shape, strides = state.store_shape, state.store_strides
    n0, n1, run = shape.n0, shape.n1, shape.run
    return Accesses(
        make_box(Memory.SRAM, inst.sram, run, (n0, strides.sram0), (n1, strides.sram1)),
        make_box(DRAM[inst.region], inst.offset, run, (n0, strides.dram0), (n1, strides.dram1)),
    )


@lru_cache(maxsize=4096)
def taps(out: int, kernel: int, stride: int, dilation: int, pad: int, size: int) -> tuple[tuple[int, int, int], ...]:
    """Progressions (first, count, step) of the rows inside a tile of ``size`` that a window's taps visit.

    One if they form one, else one per tap; beyond ``SPLIT_TAPS`` taps every row from the first to the last.
    """
    seen = np.zeros(size, dtype=bool)
    parts: list[tuple[int, int, int]] = []
    for offset in range(-pad, kernel * dilation - pad, dilation) if dilation else (-pad,) * min(kernel, 1):
        low, high = max(0, -(offset // stride)) if stride else 0, out - 1
        if stride:
            high = min(high, (size - 1 - offset) // stride)
        elif not 0 <= offset < size:
            continue
        if low <= high:
            first, last = offset + low * stride, offset + high * stride
            seen[first : last + 1 : max(stride, 1)] = True
            parts.append((first, 1, 1) if first == last else (first, high - low + 1, stride))
    rows = np.flatnonzero(seen)
    if rows.size == 0:
        return ()
    first, last = int(rows[0]), int(rows[-1])
    step = int(rows[1]) - first if rows.size > 1 else 1
    if last - first == step * (rows.size - 1) and bool((np.diff(rows) == step).all()):
        return ((first, int(rows.size), step),)
    return tuple(parts) if len(parts) <= SPLIT_TAPS else ((first, last - first + 1, 1),)


def reach(out: int, kernel: int, stride: int, dilation: int, pad: int, size: int) -> range:
    """The rows of a tile from the first to the last that some tap visits."""
    parts = taps(out, kernel, stride, dilation, pad, size)
    if not parts:
        return range(0)
    return range(min(first for first, _, _ in parts), max(first + (n - 1) * step for first, n, step in parts) + 1)


def stored_bytes(elements: int, dtype: DType) -> int:
    """Bytes of a row of ``elements``."""
    return (elements * STORED_BITS[dtype] + 7) // 8


def row_bytes(kind: RowReduce) -> int:
    """Bytes that a row reduction leaves per row."""
    return 8 if kind is RowReduce.MOMENTS else 4


def _activation(act: int, run: int, tile: MmuInput, window: MmuWindow, out: MmuOutput) -> tuple[Box, ...]:
    rows = taps(out.height, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, tile.height)
    cols = taps(out.width, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, tile.width)
    return _pixels(Memory.SRAM, act, run, rows, tile.row_stride, cols, tile.pixel_stride)


def _pixels(
    space: Memory,
    start: int,
    run: int,
    rows: tuple[tuple[int, int, int], ...],
    row_stride: int,
    cols: tuple[tuple[int, int, int], ...],
    col_stride: int,
    *loops: tuple[int, int],
) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for row, height, row_step in rows:
        for col, width, col_step in cols:
            at = start + row * row_stride + col * col_stride
            boxes += make_box(space, at, run, (height, row_step * row_stride), (width, col_step * col_stride), *loops)
    return tuple(boxes)


def _mmu_run(inst: Instruction, state: State) -> Accesses:
    assert isinstance(inst, MmuRun)
    tile, window, out, weight = state.mmu_input, state.mmu_window, state.mmu_output, state.mmu_weight
    pixels, n, kernel = out.height * out.width, inst.n, window.kernel_h * window.kernel_w
    mode, codes = inst.mode, state.mmu_codes
    acc = make_box(Memory.ACC, inst.acc, stored_bytes(n, mode.accumulator), (pixels, out.pixel_stride))
    if not acc:
        return NOTHING
    k = kernel * tile.channels
    if inst.depthwise:
        rows, run = kernel, n
    else:
        rows, run = (k, n) if weight.transposed else (n, k)
    weights = make_box(Memory.SRAM, inst.weight, stored_bytes(run, mode.weight), (rows, weight.row_stride))
    stored = DType.I4 if codes.decode else mode.activation
    channels = n if inst.depthwise else tile.channels
    act = _activation(inst.act, stored_bytes(channels, stored), tile, window, out)
    zeros = make_box(Memory.SRAM, codes.weight_zeros, 2 * n) if codes.per_channel and mode is not Mode.F32 else ()
    return Accesses(act + weights + zeros + (acc if inst.accumulate else ()), acc)


def _stream(stream: VcuStream, start: int, n0: int, n1: int, n2: int) -> tuple[Box, ...]:
    return make_box(
        ON_CHIP[stream.space], start, *_row(stream, n2), (n0, stream.stride0), (n1, stream.stride1)
    )


def _row(stream: VcuStream, n2: int) -> tuple[int, tuple[int, int]]:
    """The innermost loop of a stream: bytes of one run, and the loop over runs."""
    if stream.dtype is DType.I4:
        return stored_bytes(n2 if stream.stride2 else min(n2, 1), DType.I4), (1, 0)
    return ELEMENT_BYTES[stream.dtype], (n2, stream.stride2)


def _windowed(stream: VcuStream, window: VcuWindow, start: int, n0: int, n1: int, n2: int) -> tuple[Box, ...]:
    rows = taps(n0, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, window.height)
    cols = taps(n1, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, window.width)
    run, loop = _row(stream, n2)
    return _pixels(ON_CHIP[stream.space], start, run, rows, stream.stride0, cols, stream.stride1, loop)


def interpolated(outputs: int, resize: VcuResize) -> range:
    """The indices from the first to the last that an interpolated axis reads; empty without outputs or input."""
    if outputs == 0 or resize.size == 0 or resize.den == 0:
        return range(0)
    low, high = (max(y * resize.num + resize.phase, 0) // resize.den for y in (0, outputs - 1))
    more = 2 if resize.kind is Resize.BILINEAR else 1
    return range(min(low, resize.size - 1), min(high + more, resize.size))


def _resized(stream: VcuStream, resizes: list[VcuResize], start: int, n0: int, n1: int, n2: int) -> tuple[Box, ...]:
    rows, cols = interpolated(n0, resizes[0]), interpolated(n1, resizes[1])
    run, loop = _row(stream, n2)
    at = start + rows.start * stream.stride0 + cols.start * stream.stride1
    loops = ((len(rows), stream.stride0), (len(cols), stream.stride1), loop)
    return make_box(ON_CHIP[stream.space], at, run, *loops)


def _vcu_run(inst: Instruction, state: State) -> Accesses:
    assert isinstance(inst, VcuRun)
    n0, n1, n2 = state.vcu_shape.n0, state.vcu_shape.n1, state.vcu_shape.n2
    if not n0 * n1 * n2:
        return NOTHING
    reduce, writes = state.vcu_reduce, ()
    if reduce.kind is RowReduce.NONE or reduce.elements:
        writes = _stream(state.vcu_streams[STREAM_OUTPUT], inst.dst, n0, n1, n2)
    if reduce.kind is not RowReduce.NONE:
        writes += make_box(Memory.SRAM, reduce.dst, row_bytes(reduce.kind) * n0 * n1)
    base = (inst.a, inst.b, state.vcu_base.c, state.vcu_base.d)
    reads: list[Box] = []
    for i in range(min(inst.streams, len(base))):
        if i == 0 and state.vcu_window.reduce != Reduce.NONE:
            reads.extend(_windowed(state.vcu_streams[0], state.vcu_window, base[0], n0, n1, n2))
        elif i == 0 and state.vcu_resizes[0].kind != Resize.NONE:
            reads.extend(_resized(state.vcu_streams[0], state.vcu_resizes, base[0], n0, n1, n2))
        else:
            reads.extend(_stream(state.vcu_streams[i], base[i], n0, n1, n2))
    for vector in parameters(inst, state):
        reads.extend(make_box(Memory.SRAM, state.vcu_params.base + vector * state.vcu_params.stride, 4 * n2))
    return Accesses(tuple(reads), writes)


def parameters(inst: VcuRun, state: State) -> list[int]:
    """The parameter vectors that a run's program reads, each once, rising."""
    return sorted(
        {
            op.b
            for op in state.vcu_ops[inst.first : inst.first + inst.count]
            if op.b_kind == Operand.PARAMETER and op.func in BINARY_FUNCS
        }
    )


ACCESSES: dict[type[Instruction], Callable[[Instruction, State], Accesses]] = {
    **dict.fromkeys((*SETTERS, Halt, LoadSync, StoreSync, MmuSync, VcuSync), _none),
    LoadCopy: _load_copy,
    LoadTile: _load_tile,
    StoreCopy: _store_copy,
    StoreTile: _store_tile,
    MmuRun: _mmu_run,
    VcuRun: _vcu_run,
}
