"""mmu.run in every mode, with codebooks and zero points per channel, against loops over integers and binary32."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import Memory
from isa.errors import AccessError
from isa.instructions import DType, MmuCodes, MmuInput, MmuOutput, MmuRun, MmuTable, MmuWeight, MmuWindow, Mode
from isa.numerics.integer import int_mm_is_exact
from tests.runtime.machine import context, put, run
from tests.runtime.plain import NUMPY, bytes_of, patches, pixels, row
from tests.thinning import examples

ACT, WEIGHT, ZEROS = 0, 24576, 60000
INTEGER = [mode for mode in Mode if mode is not Mode.F32]
ALIGNED = {DType.I4: 1, DType.I8: 1, DType.I16: 2, DType.F32: 4}
SMALL = st.integers(1, 3)


def up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


@st.composite
def products(draw, modes=tuple(INTEGER), depthwise=False):
    """The instructions of a run; channels and rows are odd as often as even, and lie with gaps."""
    mode = draw(st.sampled_from(modes))
    decode = int(mode.activation is DType.I8 and draw(st.booleans()))
    act, weight = DType.I4 if decode else mode.activation, mode.weight
    c, height, width = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    window = MmuWindow(0, 0, 0, 0, *(draw(SMALL) for _ in range(6)), draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    n = c if depthwise else draw(st.integers(1, 7))
    k = window.kernel_h * window.kernel_w * c
    transposed = 0 if depthwise else draw(st.integers(0, 1))
    pixel = bytes_of(act, c) + draw(st.integers(0, 2)) * ALIGNED[act]
    weights = bytes_of(weight, n if transposed or depthwise else k) + draw(st.integers(0, 2)) * ALIGNED[weight]
    out = MmuOutput(height=draw(SMALL), width=draw(SMALL))
    item = bytes_of(mode.accumulator, 1)
    return {
        "tile": MmuInput(height=height, width=width, channels=c, row_stride=width * pixel, pixel_stride=pixel),
        "window": window,
        "weight": MmuWeight(row_stride=weights, transposed=transposed),
        "codes": MmuCodes(
            act_zero=draw(st.integers(-128, 127)),
            weight_zero=draw(st.integers(-128, 127)),
            per_channel=draw(st.integers(0, 1)),
            weight_zeros=ZEROS,
            decode=decode,
        ),
        "out": MmuOutput(height=out.height, width=out.width, pixel_stride=item * (n + draw(st.integers(0, 2)))),
        "run": MmuRun(
            act=ACT,
            weight=WEIGHT,
            acc=item * draw(st.integers(0, 3)),
            n=n,
            accumulate=draw(st.integers(0, 1)),
            depthwise=int(depthwise),
            mode=mode,
        ),
    }


TABLE = np.random.default_rng(5).integers(-128, 128, 16)
TABLES = [MmuTable(0, 0, 0, 0, i, *TABLE[i : i + 4].tolist()) for i in range(0, 16, 4)]


def memory(found) -> np.ndarray:
    return found.memory.bytes[Memory.SRAM].numpy().copy()


def weights(data: np.ndarray, case: dict) -> np.ndarray:
    """[n, kh, kw, c]; of a depthwise run c is 1."""
    tile, window, action, lay = case["tile"], case["window"], case["run"], case["weight"]
    kernel = (window.kernel_h, window.kernel_w)
    k = kernel[0] * kernel[1] * (1 if action.depthwise else tile.channels)
    by_column = lay.transposed or action.depthwise
    shape = (k, action.n) if by_column else (action.n, k)
    kind = action.mode.weight
    stored = np.array([row(data, WEIGHT + i * lay.row_stride, shape[1], kind) for i in range(shape[0])])
    return (stored.T if by_column else stored).reshape(action.n, *kernel, -1)


def operands(data: np.ndarray, case: dict) -> tuple[np.ndarray, np.ndarray]:
    """a - zero of every window and w - zero of every channel, [m, n or 1, kh, kw, c] and [n, kh, kw, c]."""
    codes, action, out = case["codes"], case["run"], case["out"]
    plain = action.mode is Mode.F32
    kind = DType.I4 if codes.decode else action.mode.activation
    tile = pixels(data, ACT, case["tile"], kind)
    tile = TABLE[tile + 8] if codes.decode else tile
    zero = 0 if plain else codes.act_zero
    a = patches(tile, case["window"], (out.height, out.width), zero) - tile.dtype.type(zero)
    w, n = weights(data, case), action.n
    zeros = row(data, ZEROS, n, DType.I16) if codes.per_channel else np.full(n, codes.weight_zero)
    w = w if plain else w - zeros[:, None, None, None]
    return (np.moveaxis(a, -1, 1)[..., None] if action.depthwise else a[:, None]), w


def sums(a: np.ndarray, w: np.ndarray, kind: DType, start: np.ndarray) -> np.ndarray:
    """[m, n]: integers that wrap, or binary32 added one after the other along (c, kh, kw)."""
    if kind is not DType.F32:
        total = start.astype(np.int64) + (a * w).sum((2, 3, 4))
        return total.astype(NUMPY[kind])
    acc = start.copy()
    for c, i, j in product(*map(range, (w.shape[3], *w.shape[1:3]))):
        acc += a[:, :, i, j, c] * w[None, :, i, j, c]
    return acc


def accumulators(found, case: dict) -> torch.Tensor:
    out, action = case["out"], case["run"]
    kind = {DType.I32: torch.int32, DType.I64: torch.int64, DType.F32: torch.float32}[action.mode.accumulator]
    item = kind.itemsize
    data = found.memory.bytes[Memory.ACC][action.acc :].clone()
    data = data[: up(len(data) - item + 1, item)].view(kind)
    return data.as_strided((out.height * out.width, action.n), (out.pixel_stride // item, 1)).clone()


def check(found, case: dict) -> None:
    data, before = memory(found), accumulators(found, case).numpy()
    kind = case["run"].mode.accumulator
    start = before if case["run"].accumulate else np.zeros_like(before)
    with np.errstate(over="ignore"):
        want = sums(*operands(data, case), kind, start)
    parts = ("tile", "window", "weight", "codes", "out", "run")
    run(found, *TABLES, *(case[part] for part in parts))
    after = accumulators(found, case)
    bits = torch.int64 if kind is DType.I64 else torch.int32
    assert torch.equal(after.view(bits), torch.from_numpy(want).view(bits))


ENGINES = [
    pytest.param(False, id="binary32"),
    pytest.param(True, id="int8", marks=pytest.mark.skipif(not int_mm_is_exact(torch), reason="not exact here")),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """Both engines for 8-bit products, whichever is the faster one here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.functional.mmu.takes_int_mm", lambda _torch: request.param)
        yield request.param


@settings(max_examples=examples(150))
@given(products(), st.integers(0, 2**31))
def test_integer_modes_are_sums_of_integers(engine, case, seed):
    check(context(seed), case)


@settings(max_examples=examples(100))
@given(products(depthwise=True), st.integers(0, 2**31))
def test_integer_modes_are_sums_over_taps_of_each_channel(case, seed):
    check(context(seed), case)


@settings(max_examples=examples(60))
@given(products((Mode.F32,)) | products((Mode.F32,), depthwise=True), st.integers(0, 2**31))
def test_binary32_sums_run_over_channels_then_taps(case, seed):
    found = context(seed)
    generator = torch.Generator().manual_seed(seed)
    for space in (Memory.SRAM, Memory.ACC):
        size = found.memory.bytes[space].numel() // 4
        put(found, space, 0, torch.randn(size, generator=generator) * 100)
    check(found, case)


@pytest.mark.parametrize("accumulate", [0, 1])
def test_long_sums_of_8_bit_codes_stay_exact(engine, accumulate):
    """Odd sums far beyond 2^24, which one binary32 product over all terms would round."""
    found, k, zero = context(), 2001, 127
    acts = torch.full((k,), -128, dtype=torch.int8)
    weights = torch.full((k,), -127, dtype=torch.int8)
    acts[::7], weights[::5] = -127, 126
    put(found, Memory.SRAM, 0, acts)
    put(found, Memory.SRAM, WEIGHT, weights)
    put(found, Memory.ACC, 0, torch.tensor([12345], dtype=torch.int32))
    codes, go = MmuCodes(act_zero=zero), MmuRun(act=0, weight=WEIGHT, n=1, accumulate=accumulate)
    run(found, MmuInput(channels=k), MmuWeight(row_stride=k), codes, go)
    want = ((acts.long() - zero) * weights.long()).sum().item() + 12345 * accumulate
    assert found.memory.bytes[Memory.ACC][:4].clone().view(torch.int32).item() == want


@pytest.mark.parametrize("mode", [Mode.W8A16, Mode.W16A16])
def test_wide_sums_do_not_fit_32_bits(mode):
    """The largest operands of the mode, less the zero points that are farthest, 257 times."""
    found, k = context(), 257
    weight = torch.int8 if mode is Mode.W8A16 else torch.int16
    put(found, Memory.SRAM, 0, torch.full((k,), -(2**15), dtype=torch.int16))
    put(found, Memory.SRAM, WEIGHT, torch.full((k,), torch.iinfo(weight).min, dtype=weight))
    codes = MmuCodes(act_zero=2**15 - 1, weight_zero=2**15 - 1)
    run(found, MmuInput(channels=k), codes, MmuRun(act=0, weight=WEIGHT, mode=mode))
    total = found.memory.bytes[Memory.ACC][:8].clone().view(torch.int64).item()
    assert total == k * (-(2**16) + 1) * (torch.iinfo(weight).min - 2**15 + 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_binary32_products_propagate_what_is_no_number(value):
    found = context()
    put(found, Memory.SRAM, 0, torch.tensor([1.0, value, 2.0]))
    put(found, Memory.SRAM, WEIGHT, torch.tensor([3.0, 0.5, 1.0, 1.0, 0.0, 1.0]))
    setup = MmuInput(channels=3), MmuWeight(row_stride=12), MmuOutput(pixel_stride=8)
    run(found, *setup, MmuRun(weight=WEIGHT, n=2, mode=Mode.F32))
    first, second = found.memory.bytes[Memory.ACC][:8].clone().view(torch.float32)
    assert np.array_equal(first, np.float32(value), equal_nan=True)
    assert second.isnan()


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([MmuCodes(decode=1), MmuRun(mode=Mode.W4A4)], r"decode in mode W4A4: must be one with 8-bit activations"),
        ([MmuCodes(decode=1), MmuRun(mode=Mode.F32)], r"decode in mode F32: must be one with 8-bit activations"),
        ([MmuRun(act=1, mode=Mode.F32)], r"SRAM address 0x1 .* must lie at multiples of 4"),
        ([MmuRun(act=1, mode=Mode.W8A16)], r"SRAM address 0x1 .* must lie at multiples of 2"),
        ([MmuRun(acc=2, mode=Mode.W8A16)], r"ACC address 0x2 .* must lie at multiples of [48]"),
    ],
)
def test_illegal_runs_of_a_mode_name_the_rule(instructions, message):
    with pytest.raises(AccessError, match=message):
        run(context(), *instructions)
