"""Streams of every width, encoders, interpolation and row reductions of vcu.run against loops over exact numbers."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import Memory
from isa.errors import AccessError
from isa.instructions import (
    DType,
    Func,
    LoadCopy,
    Operand,
    Reduce,
    Region,
    Resize,
    RowReduce,
    Space,
    StoreCopy,
    VcuConvert,
    VcuOp,
    VcuReduce,
    VcuResize,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuThreshold,
    VcuWindow,
)
from tests.isa.exact import binary32, same
from tests.isa.test_numerics_rows import exact_moments, exact_sum
from tests.runtime.machine import context, get, put, run
from tests.runtime.plain import NUMPY, bytes_of, packed, patches, rows
from tests.thinning import examples

OUT, ROWS = 32768, 49152
CODES = [DType.I4, DType.I8, DType.I16]
WIDTH = {DType.I4: 4, DType.I8: 8, DType.I16: 16}
ALIGNED = {DType.I4: 1, DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F32: 4, DType.I64: 8}
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
ZEROS = st.integers(-9, 9)
SCALES = st.sampled_from([0.0, 1.0, 0.1, -3.7])


def memory(found, space: Memory = Memory.SRAM) -> np.ndarray:
    return found.memory.bytes[space].numpy().copy()


def dense(kind: DType, shape: tuple[int, int, int], gap: int = 0) -> tuple[int, int]:
    """Strides of n0 and n1, with ``gap`` elements (or bytes of two) behind every row."""
    row = bytes_of(kind, shape[2]) + gap * ALIGNED[kind]
    return shape[1] * row, row


def stream(number: int, kind: DType, strides: tuple[int, int], space: Space = Space.SRAM, **more: int) -> VcuStream:
    inner = 1 if kind is DType.I4 else bytes_of(kind, 1)
    return VcuStream(
        id=number, dtype=kind, space=space, stride0=strides[0], stride1=strides[1], **{"stride2": inner, **more}
    )


def f32(found, address: int, shape: tuple[int, ...]) -> np.ndarray:
    return get(found, Memory.SRAM, address, shape, torch.float32).numpy()


@settings(max_examples=examples(120))
@given(st.sampled_from(CODES), SHAPES, st.integers(0, 2), ZEROS, SCALES, st.integers(0, 2**31))
def test_codes_of_every_width_are_dequantized(kind, shape, gap, zero, scale, seed):
    found, strides = context(seed), dense(kind, shape, gap)
    q = rows(memory(found), 4, shape, strides, kind)
    want = (q - zero).astype(np.float32) * np.float32(scale or 1.0)
    setup = VcuShape(*[0] * 4, *shape), stream(0, kind, strides), VcuConvert(id=0, zero=zero, scale=scale)
    run(found, *setup, stream(7, DType.F32, dense(DType.F32, shape)), VcuRun(a=4, dst=OUT))
    assert same(f32(found, OUT, shape), want)


@pytest.mark.parametrize("kind", [DType.I32, DType.I64])
def test_accumulators_round_once(kind):
    """Also where binary64 would have rounded before, to a tie."""
    values = [2**24 + 1, -(2**24) - 3, 2**31 - 1, -(2**31), 0, 5]
    values += [2**60 + 2**36 + 1, -(2**60) - 2**36 - 1, 2**63 - 1] if kind is DType.I64 else []
    found = context()
    put(found, Memory.ACC, 0, torch.from_numpy(np.array(values, NUMPY[kind])))
    setup = VcuShape(n2=len(values)), stream(0, kind, (0, 0), Space.ACC), stream(7, DType.F32, (0, 0))
    run(found, *setup, VcuRun(a=0, dst=OUT))
    assert same(f32(found, OUT, (len(values),)), [binary32(v) for v in values])


@pytest.mark.parametrize("kind", CODES)
def test_a_stride_of_zero_repeats_the_first_element(kind):
    found, shape = context(3), (2, 3, 5)
    q = rows(memory(found), 0, (2, 3, 1), (12, 4), kind)
    setup = VcuShape(*[0] * 4, *shape), stream(0, kind, (12, 4), stride2=0), VcuConvert(id=0)
    run(found, *setup, stream(7, DType.F32, dense(DType.F32, shape)), VcuRun(a=0, dst=OUT))
    assert same(f32(found, OUT, shape), np.broadcast_to(q, shape).astype(np.float32))


VALUES = st.floats(width=32) | st.floats(-50, 50, width=32)


def coded(values: np.ndarray, kind: DType, scale: float, zero: int) -> np.ndarray:
    """clamp(rne(y * scale) + zero), NaN is zero: by Python integers."""
    low, high = -(1 << (WIDTH[kind] - 1)), (1 << (WIDTH[kind] - 1)) - 1
    with np.errstate(over="ignore"):
        scaled = values * np.float32(scale)
    found = []
    for y in scaled.ravel():
        if np.isfinite(y):
            found.append(min(max(round(float(y)) + zero, low), high))
        else:
            found.append(zero if np.isnan(y) else high if y > 0 else low)
    return np.array(found).reshape(values.shape)


def stored(codes: np.ndarray, kind: DType) -> np.ndarray:
    """Bytes of rows."""
    return packed(codes) if kind is DType.I4 else codes.astype(NUMPY[kind]).view(np.uint8)


@settings(max_examples=examples(120))
@given(
    st.sampled_from(CODES),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([1.0, 20.0, 1e-3]),
    ZEROS,
    st.integers(0, 2),
    st.data(),
)
def test_outputs_of_every_width_are_quantized(kind, n1, n2, scale, zero, gap, data):
    """Nothing but the rows is written: what lies in the gaps stays."""
    values = np.array(data.draw(st.lists(VALUES, min_size=n1 * n2, max_size=n1 * n2)), np.float32).reshape(1, n1, n2)
    found, shape, strides = context(), (1, n1, n2), dense(kind, (1, n1, n2), gap)
    put(found, Memory.SRAM, 0, torch.from_numpy(values))
    want = memory(found)
    for i, line in enumerate(stored(coded(values, kind, scale, zero)[0], kind)):
        want[OUT + i * strides[1] :][: len(line)] = line
    setup = VcuShape(*[0] * 4, *shape), stream(0, DType.F32, dense(DType.F32, shape)), stream(7, kind, strides)
    run(found, *setup, VcuConvert(id=7, scale=scale, zero=zero), VcuRun(a=0, dst=OUT))
    assert np.array_equal(memory(found), want)


@settings(max_examples=examples(60))
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=15, max_size=15, unique=True).map(sorted),
    st.lists(VALUES, min_size=1, max_size=9),
    ZEROS.filter(lambda z: -8 <= z <= 7),
)
def test_encoders_count_thresholds(thresholds, values, zero):
    values = np.array([*values, *thresholds[:3], np.inf, -np.inf, np.nan], np.float32)
    want = [zero if np.isnan(v) else -8 + sum(t <= float(v) for t in thresholds) for v in values]
    found, n = context(), len(values)
    put(found, Memory.SRAM, 0, torch.from_numpy(values))
    setup = [VcuThreshold(0, 0, 0, 0, i, t) for i, t in enumerate(thresholds)]
    setup += [VcuShape(n2=n), stream(0, DType.F32, (0, 0)), stream(7, DType.I4, (0, 0), encode=1)]
    run(found, *setup, VcuConvert(id=7, zero=zero), VcuRun(a=0, dst=OUT))
    line = packed(np.array(want))
    assert memory(found)[OUT : OUT + len(line)].tolist() == line.tolist()


def place(y: int, axis: VcuResize) -> tuple[int, int, np.float32]:
    """Both neighbours of output y and the weight of the second."""
    p = Fraction(max(y * axis.num + axis.phase, 0), axis.den)
    first = min(floor(p), axis.size - 1)
    return first, min(first + 1, axis.size - 1), binary32(p - floor(p))


def interpolated(tile: np.ndarray, axes: tuple[VcuResize, VcuResize], size: tuple[int, int]) -> np.ndarray:
    """[*size, c] of ``tile`` binary32 [h, w, c], one output after the other."""
    y = np.empty((*size, tile.shape[2]), np.float32)
    for i, j in np.ndindex(*size):
        (top, bottom, down), (left, right, across) = place(i, axes[0]), place(j, axes[1])
        if axes[0].kind is Resize.NEAREST:
            y[i, j] = tile[top, left]
            continue
        lines = [tile[r, left] + (tile[r, right] - tile[r, left]) * across for r in (top, bottom)]
        y[i, j] = lines[0] + (lines[1] - lines[0]) * down
    return y


AXES = st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(-9, 9), st.integers(1, 5))


@settings(max_examples=examples(150))
@given(
    st.sampled_from([Resize.NEAREST, Resize.BILINEAR]),
    st.sampled_from([*CODES, DType.F32]),
    AXES,
    AXES,
    SHAPES,
    ZEROS,
    SCALES,
    st.integers(0, 2**31),
)
def test_stream_a_is_interpolated(kind, dtype, rows_axis, columns_axis, shape, zero, scale, seed):
    found = context(seed)
    axes = tuple(VcuResize(0, 0, 0, 0, i, kind, *a) for i, a in enumerate((rows_axis, columns_axis)))
    size = (axes[0].size, axes[1].size, shape[2])
    if dtype is DType.F32:
        put(found, Memory.SRAM, 0, torch.randn(1000, generator=torch.Generator().manual_seed(seed)))
    strides = dense(dtype, size, 1)
    tile = rows(memory(found), 0, size, strides, dtype)
    plain = dtype is DType.F32
    want = interpolated(tile if plain else (tile - zero).astype(np.float32), axes, shape[:2])
    want = want if plain else want * np.float32(scale or 1.0)
    setup = VcuShape(*[0] * 4, *shape), stream(0, dtype, strides), VcuConvert(id=0, zero=zero, scale=scale)
    run(found, *setup, *axes, stream(7, DType.F32, dense(DType.F32, shape)), VcuRun(a=0, dst=OUT))
    assert same(f32(found, OUT, shape), want)


@settings(max_examples=examples(60))
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), ZEROS, st.integers(0, 2**31))
def test_maxima_of_16_bit_codes(shape, kernel, step, pad, zero, seed):
    """What lies outside is the lowest code, which no code is below."""
    found, (height, width) = context(seed), (4, 5)
    strides = dense(DType.I16, (height, width, shape[2]))
    tile = rows(memory(found), 0, (height, width, shape[2]), strides, DType.I16)
    window = VcuWindow(0, 0, 0, 0, Reduce.MAX, kernel, 2, step, 1, 1, 2, pad, 1, height, width)
    want = patches(tile, window, shape[:2], -(2**15)).max((1, 2)).reshape(shape) - zero
    setup = VcuShape(*[0] * 4, *shape), window, stream(0, DType.I16, strides), VcuConvert(id=0, zero=zero, scale=0.0)
    run(found, *setup, stream(7, DType.F32, dense(DType.F32, shape)), VcuRun(a=0, dst=OUT))
    assert same(f32(found, OUT, shape), want.astype(np.float32))


def reduced(kind: RowReduce, row: np.ndarray, fraction: int) -> list[np.float32]:
    """One number of a row, or two, by Python integers."""
    if kind in (RowReduce.MAX, RowReduce.MIN):
        low = kind is RowReduce.MIN
        best = sorted(row.tolist(), key=lambda v: (v, not np.signbit(v)))[0 if low else -1]
        return [np.float32(np.nan if np.isnan(row).any() else best)]
    if kind is RowReduce.ARGMAX:
        nans = np.flatnonzero(np.isnan(row))
        return [np.float32(nans[0] if nans.size else row.tolist().index(max(row.tolist())))]
    if kind is RowReduce.SUM:
        return [exact_sum(row, fraction)]
    total, squares, spread = exact_moments(row, fraction)
    return [squares] if kind is RowReduce.SQUARES else [total, spread]


@settings(max_examples=examples(150))
@given(
    st.sampled_from([k for k in RowReduce if k is not RowReduce.NONE]),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9)),
    st.integers(-4, 12),
    st.integers(0, 1),
    st.sampled_from([None, np.nan, np.inf, -np.inf, -0.0]),
    st.integers(0, 2**31),
)
def test_rows_are_reduced_behind_the_program(kind, shape, fraction, elements, special, seed):
    """The program doubles and adds 1; elements are written only if asked for."""
    values = np.random.default_rng(seed).normal(0, 30, shape).astype(np.float32).round(2)
    if special is not None:
        values[0, 0, -1] = special
    found = context(seed)
    put(found, Memory.SRAM, 0, torch.from_numpy(values))
    want = memory(found)
    computed = values * np.float32(2) + np.float32(1)
    results = [reduced(kind, computed[i, j], fraction) for i, j in np.ndindex(*shape[:2])]
    setup = [VcuOp(0, 0, 0, 0, 0, Func.MUL, 4, 0, Operand.IMMEDIATE, 0, 2.0)]
    setup += [VcuOp(0, 0, 0, 0, 1, Func.ADD, 4, 4, Operand.IMMEDIATE, 0, 1.0)]
    setup += [VcuShape(*[0] * 4, *shape), stream(0, DType.F32, dense(DType.F32, shape))]
    setup += [stream(7, DType.F32, dense(DType.F32, shape)), VcuReduce(0, 0, 0, 0, kind, fraction, elements, ROWS)]
    run(found, *setup, VcuRun(count=2, a=0, dst=OUT))
    assert same(f32(found, ROWS, (len(results), len(results[0]))), np.array(results, np.float32))
    wrote = f32(found, OUT, shape)
    assert same(wrote, computed) if elements else np.array_equal(memory(found)[OUT:ROWS], want[OUT:ROWS])


def test_a_column_of_4_bit_codes_from_dram_to_dram():
    """Packed rows with a spare half: loaded as bytes, widened, added, narrowed, stored as bytes."""
    found, shape = context(9), (1, 3, 5)
    q = rows(memory(found, Memory.INPUT), 10, shape, (9, 3), DType.I4)
    setup = [LoadCopy(region=Region.INPUT, offset=10, sram=64, bytes=9), VcuShape(*[0] * 4, *shape)]
    setup += [stream(0, DType.I4, (9, 3)), VcuConvert(id=0, zero=-1, scale=0.5), stream(7, DType.I4, (9, 3))]
    setup += [VcuConvert(id=7, zero=2, scale=2.0), VcuOp(func=Func.ADD, dst=0, a=0, b=0)]
    run(found, *setup, VcuRun(count=1, a=64, dst=OUT), StoreCopy(region=Region.OUTPUT, offset=3, sram=OUT, bytes=9))
    want = packed(np.clip(2 * (q + 1) + 2, -8, 7)).ravel()
    assert memory(found, Memory.OUTPUT)[3:12].tolist() == want.tolist()


SUMS = VcuReduce(kind=RowReduce.SQUARES, dst=0)
BOTH = [VcuResize(axis=i, kind=Resize.BILINEAR) for i in (0, 1)]


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([VcuStream(id=0, dtype=DType.I4, stride2=2)], r"stride2 = 2 of 4-bit codes: must be 0 or 1"),
        ([VcuStream(id=7, dtype=DType.I4, stride2=2), VcuShape(n2=2)], r"output stride2 = 2 of 4-bit codes: must be 1"),
        ([VcuStream(id=7, dtype=DType.I8, encode=1)], r"an encoded output is I8: must be I4"),
        ([VcuStream(id=7, dtype=DType.I64, stride2=8)], r"an output stream is I64: accumulators are written"),
        ([BOTH[0]], r"vcu.resize of one axis only: set both, to the same kind"),
        ([BOTH[0], VcuResize(axis=1, kind=Resize.NEAREST)], r"BILINEAR and NEAREST: both axes have the same kind"),
        ([*BOTH, VcuWindow(reduce=Reduce.MAX)], r"vcu.resize beside a window reduction: turn one of them off"),
        ([BOTH[0], VcuResize(axis=1, kind=Resize.BILINEAR, den=0)], r"vcu.resize den = 0: must be at least 1"),
        ([SUMS, VcuShape(n2=8193), VcuStream(id=0, stride2=0)], r"SQUARES of rows of 8193: must be at most 8192"),
        ([VcuReduce(kind=RowReduce.MAX, dst=2)], r"SRAM address 0x2 .* must lie at multiples of 4"),
    ],
)
def test_illegal_runs_name_the_rule(instructions, message):
    with pytest.raises(AccessError, match=message):
        run(context(), *instructions, VcuRun(a=0, dst=OUT))
