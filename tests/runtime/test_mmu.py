"""mmu.run against plain convolutions in float64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import Memory
from isa.errors import AccessError
from isa.instructions import MmuCodes, MmuInput, MmuOutput, MmuRun, MmuWeight, MmuWindow
from runtime.functional import operands
from tests.runtime.machine import context, get, put, run
from tests.thinning import examples

ACT, WEIGHT = 0, 32768
SIZES = st.integers(1, 6)
ZERO = st.sampled_from([0, -128, 127, 3])


@st.composite
def convolutions(draw, depthwise=False):
    """Windows whose taps may all lie outside the tile."""
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    sh, sw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    dh, dw = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    c = draw(st.integers(1, 9))
    return {
        "tile": MmuInput(
            height=height,
            width=width,
            channels=c,
            pixel_stride=(pixel := draw(st.integers(1, c + 3))),  # pixels may overlap
            row_stride=width * pixel + draw(st.integers(0, 5)),
        ),
        "window": MmuWindow(
            kernel_h=kh,
            kernel_w=kw,
            stride_h=sh,
            stride_w=sw,
            dilation_h=dh,
            dilation_w=dw,
            pad_top=draw(st.integers(0, 4)),
            pad_left=draw(st.integers(0, 4)),
        ),
        "n": c if depthwise else draw(st.integers(1, 9)),
        "out": (draw(st.integers(1, 7)), draw(st.integers(1, 7))),
        "gap": draw(st.integers(0, 2)),
        "zero": draw(ZERO),
        "zero_act": draw(ZERO),
        "transposed": 0 if depthwise else draw(st.integers(0, 1)),
    }


def reference(x: torch.Tensor, w: torch.Tensor, case: dict, groups: int) -> torch.Tensor:
    """The convolution of [h, w, c] and [n, kh, kw, c] codes in float64, as int32 [oh * ow, n]."""
    window, (oh, ow) = case["window"], case["out"]
    x = (x.double() - case["zero_act"]).permute(2, 0, 1)[None]
    w = (w.double() - case["zero"]).permute(0, 3, 1, 2)
    far = 128
    x = F.pad(x, (window.pad_left, far, window.pad_top, far))
    stride = (window.stride_h, window.stride_w)
    y = F.conv2d(x, w, None, stride, 0, (window.dilation_h, window.dilation_w), groups)
    return y[0, :, :oh, :ow].permute(1, 2, 0).reshape(oh * ow, -1).to(torch.int32)


def setup(case: dict, row_stride: int) -> tuple:
    oh, ow = case["out"]
    pixel = 4 * (case["n"] + case["gap"])
    return (
        case["tile"],
        case["window"],
        MmuWeight(row_stride=row_stride, transposed=case["transposed"]),
        MmuCodes(act_zero=case["zero_act"], weight_zero=case["zero"]),
        MmuOutput(height=oh, width=ow, pixel_stride=pixel),
    )


def activations(found, tile: MmuInput) -> torch.Tensor:
    data = found.memory.bytes[Memory.SRAM].view(torch.int8)[ACT:]
    shape = (tile.height, tile.width, tile.channels)
    return data.as_strided(shape, (tile.row_stride, tile.pixel_stride, 1)).clone()


def results(found, case: dict) -> torch.Tensor:
    oh, ow = case["out"]
    data = found.memory.bytes[Memory.ACC].view(torch.int32)
    return data.as_strided((oh * ow, case["n"]), (case["n"] + case["gap"], 1))


@settings(max_examples=examples(120))
@given(convolutions(), st.integers(0, 2**31), st.integers(0, 1))
def test_a_run_is_a_convolution(case, seed, accumulate):
    found, tile, window = context(seed), case["tile"], case["window"]
    k = window.kernel_h * window.kernel_w * tile.channels
    rows, row = (k, case["n"]) if case["transposed"] else (case["n"], k)
    stored = found.memory.bytes[Memory.SRAM].view(torch.int8)[WEIGHT:].as_strided((rows, row), (row + 3, 1))
    w = (stored.t() if case["transposed"] else stored).reshape(
        case["n"], window.kernel_h, window.kernel_w, tile.channels
    )
    before = results(found, case).clone()
    want = reference(activations(found, tile), w, case, 1) + (before if accumulate else 0)
    run(found, *setup(case, row + 3), MmuRun(act=ACT, weight=WEIGHT, n=case["n"], accumulate=accumulate))
    assert torch.equal(results(found, case), want)


def test_pixels_of_a_pointwise_run_may_overlap():
    found = context()
    x = found.memory.bytes[Memory.SRAM].view(torch.int8)[ACT:].as_strided((6, 4), (1, 1)).int()
    w = found.memory.bytes[Memory.SRAM].view(torch.int8)[WEIGHT:].as_strided((3, 4), (4, 1)).int()
    tile = MmuInput(height=1, width=6, channels=4, row_stride=6, pixel_stride=1)
    run(found, tile, MmuWeight(row_stride=4), MmuOutput(width=6, pixel_stride=12), MmuRun(act=ACT, weight=WEIGHT, n=3))
    assert torch.equal(get(found, Memory.ACC, 0, (6, 3), torch.int32), (x @ w.t()).to(torch.int32))


@settings(max_examples=examples(80))
@given(convolutions(depthwise=True), st.integers(0, 2**31), st.integers(0, 1))
def test_a_depthwise_run_is_a_grouped_convolution(case, seed, accumulate):
    found, tile, window = context(seed), case["tile"], case["window"]
    taps = window.kernel_h * window.kernel_w
    stored = found.memory.bytes[Memory.SRAM].view(torch.int8)[WEIGHT:].as_strided((taps, case["n"]), (case["n"] + 1, 1))
    w = stored.t().reshape(case["n"], window.kernel_h, window.kernel_w, 1)
    before = results(found, case).clone()
    want = reference(activations(found, tile), w, case, case["n"]) + (before if accumulate else 0)
    action = MmuRun(act=ACT, weight=WEIGHT, n=case["n"], accumulate=accumulate, depthwise=1)
    run(found, *setup(case, case["n"] + 1), action)
    assert torch.equal(results(found, case), want)


@settings(max_examples=examples(60))
@given(convolutions(), st.integers(0, 2**31))
def test_pieces_by_indexing_give_the_same_sums(case, seed):
    action = MmuRun(act=ACT, weight=WEIGHT, n=case["n"])
    first, second = context(seed), context(seed)
    with pytest.MonkeyPatch.context() as patch:
        run(first, *setup(case, 150), action)
        patch.setattr(operands, "BUFFER_BYTES", 48)
        run(second, *setup(case, 150), action)
    assert torch.equal(first.memory.bytes[Memory.ACC], second.memory.bytes[Memory.ACC])


def test_sums_beyond_int32_wrap():
    found = context()
    put(found, Memory.ACC, 0, torch.tensor([2**31 - 1], dtype=torch.int32))
    put(found, Memory.SRAM, 0, torch.tensor([2, 3], dtype=torch.int8))
    run(found, MmuRun(act=0, weight=1, accumulate=1))
    assert get(found, Memory.ACC, 0, (1,), torch.int32).item() == 2**31 - 1 + 6 - 2**32


def test_many_depthwise_taps_stay_exact():
    found = context()
    put(found, Memory.SRAM, 0, torch.full((400,), -128, dtype=torch.int8))
    put(found, Memory.SRAM, 1024, torch.full((400,), -128, dtype=torch.int8))
    window = MmuWindow(kernel_h=20, kernel_w=20)
    tile = MmuInput(height=20, width=20, row_stride=20)
    codes = MmuCodes(act_zero=127, weight_zero=127)
    run(found, tile, window, MmuWeight(row_stride=1), codes, MmuRun(weight=1024, depthwise=1))
    assert get(found, Memory.ACC, 0, (1,), torch.int32).item() == 400 * 255 * 255


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([MmuRun(act=65536)], r"instruction 0 \(mmu.run\): SRAM bytes 0x10000 to 0x10001 .* ends at 0x10000"),
        ([MmuRun(acc=2)], r"ACC address 0x2 .* must lie at multiples of 4"),
        ([MmuOutput(width=2, pixel_stride=4), MmuRun(n=2)], r"overlaps itself; a stride of 4 must be at least 8"),
        ([MmuRun(n=2, depthwise=1)], r"depthwise n = 2: must equal mmu.input channels = 1"),
        ([MmuRun(n=2)], r"row_stride = 0 with rows of 1 bytes: rows must not overlap"),
    ],
)
def test_illegal_runs_name_the_rule(instructions, message):
    with pytest.raises(AccessError, match=message):
        run(context(), *instructions)


def test_empty_tiles_do_nothing():
    found = context()
    before = found.memory.bytes[Memory.ACC].clone()
    run(found, MmuOutput(height=0), MmuRun(acc=0))
    assert torch.equal(found.memory.bytes[Memory.ACC], before)


def test_no_channels_sum_to_zero():
    found = run(context(), MmuInput(channels=0), MmuCodes(act_zero=3), MmuRun(n=1))
    assert get(found, Memory.ACC, 0, (1,), torch.int32).item() == 0
