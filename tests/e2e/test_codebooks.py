"""Codebooks of 16 entries, zero points on both sides, scales per channel: what is stored, and at which rate it runs."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

import quartic
from isa.instructions import MmuCodes, MmuRun, Mode
from quartic import Executable
from tests.e2e.mixed_graphs import Built, Value, aten
from tests.e2e.support import assert_bits, probes, quantized
from tests.e2e.test_mixed_widths import executed_macs
from tests.e2e.traffic import traffic

T = TypeVar("T")
MACHINES = ("tiny", "edge28")


def convolved(coded: str, bits: int, side: int) -> fx.GraphModule:
    """x [1, 16, side, side] in codes of ``coded``, "book" or a width, behind a convolution of ``bits``-bit weights."""
    g = Built((1, 16, side, side))
    x = g.decoded(g.x) if coded == "book" else g.requantized(g.x, coded)
    y = g.call(aten.conv2d.default, x.node, g.weight(bits, 16, 16, 1, 1))
    return g.returning(g.call(aten.relu.default, y))


def executed(exe: Executable, kind: type[T]) -> list[T]:
    return [i for i in exe.binary.instructions if isinstance(i, kind)]


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("bits", "mode"), [(4, Mode.W4A8), (8, Mode.W8A8)])
def test_codebooks_are_stored_in_4_bits(machine: str, bits: int, mode: Mode) -> None:
    side, elements = 96, 16 * 96 * 96
    book = convolved("book", bits, side)
    narrow = assert_bits(book, probes((1, 16, side, side)), machine)
    assert executed_macs(narrow).keys() == {mode}
    for module, size in ((book, elements // 2), (convolved("8", bits, side), elements)):
        moved = traffic(quartic.compile(module, machine, share_loops=False))
        assert moved["vcu", "SRAM"] == size + 4 * elements
        if machine == "tiny":  # whose SRAM does not hold them
            assert moved["store", "ARENA"] == moved["load", "ARENA"] == size


def product_cycles(exe: Executable) -> int:
    rows = quartic.timing(exe).profile.instruction_rows()
    return sum(row.busy_cycles["mmu"] for row in rows if row.name.endswith(" mmu.run"))


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
def test_codebooks_run_at_the_rate_of_8_bits(machine: str) -> None:
    book, byte, narrow = (quartic.compile(convolved(coded, 4, 16), machine) for coded in ("book", "8", "4"))
    assert all(i.decode for i in executed(book, MmuCodes))
    assert not any(i.decode for exe in (byte, narrow) for i in executed(exe, MmuCodes))
    for exe, mode in ((book, Mode.W4A8), (byte, Mode.W4A8), (narrow, Mode.W4A4)):
        assert {i.mode for i in executed(exe, MmuRun)} == {mode}
    assert product_cycles(book) == product_cycles(byte)
    assert sum(executed_macs(book).values()) == 16 * 16 * 16 * 16


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("width", "bits", "mode"), [("4u", 4, Mode.W4A4), ("8u", 4, Mode.W4A8), ("16", 8, Mode.W8A16)])
def test_zero_points_on_both_sides(machine: str, width: str, bits: int, mode: Mode) -> None:
    g = Built()
    x, weight = g.requantized(g.x, width), g.asymmetric(bits, 7, 6, 3, 3)
    y = g.call(aten.conv2d.default, x.node, weight, None, [1, 1], [1, 1])
    module = g.returning(g.requantized(Value(y), width).node)
    exe = assert_bits(module, probes(g.shape), machine)
    assert executed_macs(exe).keys() == {mode}
    codes = executed(exe, MmuCodes)
    assert all(i.per_channel and i.act_zero for i in codes)
    assert codes


class Scaled(nn.Module):
    """A convolution whose input has a scale per channel: divided by it in front, and it folded into the weights."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.first, self.second = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 3, padding=1)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        spread = torch.exp2(torch.arange(16) % 5 - 2.0)
        self.first.weight.data *= spread.view(16, 1, 1, 1)
        self.first.bias.data *= spread
        self.register_buffer("scale", spread.view(16, 1, 1))
        self.folded = folded
        if folded:
            self.second.weight.data *= spread.view(1, 16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(functional.relu(y / self.scale if self.folded else y))


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("recipe", "mode"), [("w4a8", Mode.W4A8), ("w4a4", Mode.W4A4)])
def test_scales_per_channel_of_activations_fold_into_weights(machine: str, recipe: str, mode: Mode) -> None:
    shape = (1, 8, 9, 10)
    plain, folded = (quantized(Scaled(folded).eval(), shape, recipe=recipe) for folded in (False, True))
    assert_bits(folded, probes(shape)[:6], machine)
    # Shared loops would carry rows, as many as their stripes say.
    exe, whole = (quartic.compile(each, machine, share_loops=False) for each in (folded, plain))
    assert executed_macs(exe) == executed_macs(whole)
    assert executed_macs(exe).keys() == {mode}
    kernels = [len(quartic.timing(one).profile.rows("kernel")) for one in (exe, whole)]
    assert kernels[0] == kernels[1]
    assert traffic(exe)["vcu", "SRAM"] == traffic(whole)["vcu", "SRAM"]
