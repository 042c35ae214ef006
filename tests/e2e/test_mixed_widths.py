"""Widths meet at any edge of a graph: each tensor has its own, and the chip gives the reference's bits."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

import quartic
from isa.errors import UnsupportedError
from isa.instructions import Mode
from quartic import Executable
from tests.bits import assert_same
from tests.e2e.mixed_graphs import RANGES, Built, Q, Value, aten, mixed, widths_met
from tests.e2e.support import assert_bits, probes

MACHINES = ("tiny", "edge28")
FAST, ALL = 24, 200
PAIRS = [{4, 8}, {4, 16}, {8, 16}]


def executed_macs(exe: Executable) -> dict[Mode, int]:
    """Products that ``exe`` does, by mode."""
    return {mode: n for mode, n in quartic.timing(exe).profile.macs_by_mode.items() if n}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] if s >= FAST else []) for s in range(ALL)])
def test_drawn_graph(seed: int) -> None:
    """Each on one machine; the draws know of none."""
    module, shape = mixed(seed)
    assert_bits(module, probes(shape), MACHINES[seed % 2])


@pytest.mark.slow
def test_the_fast_graphs_hold_every_meeting() -> None:
    met: defaultdict[str, list[set[int]]] = defaultdict(list)
    products: set[tuple[int, ...]] = set()
    for seed in range(FAST):
        for name, bits in widths_met(mixed(seed)[0]):
            met[name].append(set(bits))
            if name in ("conv2d", "linear"):
                products.add(bits[1::-1])
    assert products == {(4, 4), (4, 8), (4, 16), (8, 4), (8, 8), (8, 16), (16, 16)}
    for name in ("add", "mul", "cat", "matmul"):
        assert sum(len(bits) > 1 for bits in met[name]) > 1, name
    for pair in PAIRS:
        assert pair in met["cat"] + met["add"] + met["mul"] + met["sub"] + met["maximum"]
    for name in ("reshape", "permute", "slice", "constant_pad_nd", "upsample_nearest2d", "upsample_bilinear2d"):
        assert met[name], name
    for name in ("avg_pool2d", "adaptive_avg_pool2d", "mean", "max_pool2d"):
        assert met[name], name


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_4_bit_product_behind_a_16_bit_one(machine: str) -> None:
    g = Built()
    wide = g.linear_of(g.requantized(g.x, "16"), 16, 10)
    narrow = g.linear_of(g.requantized(wide, "4"), 4, 12)
    module = g.returning(narrow.node)
    assert executed_macs(assert_bits(module, probes(g.shape), machine)).keys() == {Mode.W16A16, Mode.W4A4}


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_every_width_of_one_tensor_has_its_own_product(machine: str) -> None:
    g = Built()
    parts = [g.linear_of(g.requantized(g.x, width), bits) for width, bits in (("4", 4), ("8", 4), ("8u", 8), ("16", 8))]
    joined = g.call(aten.cat.default, [g.requantized(p, w).node for p, w in zip(parts, RANGES, strict=False)], 1)
    module = g.returning(g.requantized(Value(joined), "16").node)
    modes = executed_macs(assert_bits(module, probes(g.shape), machine))
    assert modes.keys() == {Mode.W4A4, Mode.W4A8, Mode.W8A8, Mode.W8A16}


FACTORS = [("4", "4"), ("4", "8"), ("8", "4"), ("8", "8u"), ("16", "8"), ("16", "16")]
MODES = [Mode.W4A4, Mode.W8A8, Mode.W4A8, Mode.W8A8, Mode.W8A16, Mode.W16A16]


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("factors", "mode"), list(zip(FACTORS, MODES, strict=True)), ids=str)
def test_matmul_of_two_widths(machine: str, factors: tuple[str, str], mode: Mode) -> None:
    g = Built()
    module = g.returning(g.matmul_of(*(g.requantized(g.x, width) for width in factors)).node)
    assert executed_macs(assert_bits(module, probes(g.shape), machine)).keys() == {mode}


@pytest.mark.parametrize(
    ("factors", "rule", "advice"),
    [
        (("8", "16"), "16-bit weights and 8-bit", "quantize the activations to 16 bits, or the weights (the second"),
        (("4", "16"), "16-bit weights and 4-bit", "quantize the activations to 16 bits, or the weights (the second"),
        (("16", "4"), "4-bit weights and 16-bit", "quantize the second factor to 8 bits"),
    ],
)
def test_matmul_of_widths_without_a_mode_is_refused(factors: tuple[str, str], rule: str, advice: str) -> None:
    g = Built()
    module = g.returning(g.matmul_of(*(g.requantized(g.x, width) for width in factors)).node)
    with pytest.raises(UnsupportedError) as caught:
        quartic.compile(module)
    found = str(caught.value)
    assert "1. aten.matmul.default (node matmul_default" in found
    assert f"rule: the matrix unit has no mode for {rule} activations" in found
    assert f"do: {advice}" in found


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
def test_16_bit_codes_enter_and_leave(machine: str) -> None:
    g = Built()
    low, high, dtype = RANGES["16"]
    args = (1e-4, -77, low, high, dtype)
    codes = torch.randint(low, high + 1, g.shape, generator=g.generator, dtype=dtype)
    g.x.node.meta["val"] = codes
    y = g.linear_of(g.dequantized(g.x.node, args, 16), 16)
    stored = g.requantized(y, "16").stored
    assert stored is not None
    narrow = g.call(
        Q.quantize_per_tensor.default, g.dequantized(g.x.node, args, 16).node, 0.03, 3, -128, 127, torch.int8
    )
    module = g.returning(stored[0], narrow)
    extremes = [torch.full(g.shape, code, dtype=dtype) for code in (low, high, -77)]
    exe, reference = quartic.compile(module, machine), quartic.reference(module)
    for x in (codes, *extremes):
        assert_same(quartic.simulate(exe, x).outputs, reference(x))
