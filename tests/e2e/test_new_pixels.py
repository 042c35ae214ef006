"""New pixels that depth models reassemble: no kernel copies them, and the chip gives the bits of the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quartic
from compiler.frontend.export import import_graph
from compiler.pipeline import Options, form_kernels
from isa.machine import Machine
from tests.compiler.test_split_products import products
from tests.compiler.test_views import copies
from tests.e2e.support import assert_bits, probes, quantized


class Reassembled(nn.Module):
    """A convolution, new pixels, and two readers, one behind a relu: as depth models decode."""

    def __init__(self, factor: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(8, 16, 1)
        self.resize = nn.ConvTranspose2d(16, channels, factor, factor)
        self.a, self.b = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(channels, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.resize(self.project(x))
        return self.a(y.relu()) + self.b(y)


CASES = [
    ("f32", "quartdepth28-f32", 2, 32), ("w8a8", "edge28", 2, 32), ("w4a8", "quartdepth28-w4a8", 2, 48),
    ("w4a4", "edge28", 2, 32), ("f32", "quartdepth28-f32", 4, 8), ("w8a8", "tiny", 4, 8), ("w4a8", "edge28", 4, 16),
    ("w4a4", "quartdepth28-w4a4", 4, 8),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "machine", "factor", "channels"), CASES)
def test_kernels_of_a_transposed_convolution(recipe: str, machine: str, factor: int, channels: int):
    module = import_graph(quantized(Reassembled(factor, channels).eval(), (1, 8, 5, 7), recipe=recipe))
    form_kernels(module, Machine.load(machine), Options())
    assert copies(module) == (["qnn.pad"] if recipe == "f32" else [])  # the input, which lies as PyTorch keeps it
    assert products(module) == 3 + factor


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "machine", "factor", "channels"), CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_chip_gives_the_bits_of_the_reference(recipe: str, machine: str, factor: int, channels: int, batch: int):
    shape = (batch, 8, 5, 7)
    q = quantized(Reassembled(factor, channels).eval(), shape, recipe=recipe)
    exe = assert_bits(q, probes(shape, batch == 1), machine)
    again = quartic.compile(q, machine, schedule=exe.schedule)
    assert again.binary.to_bytes() == exe.binary.to_bytes()
