"""Moves go behind elementwise operations, also where another operand repeats; products then swallow those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.pipeline import Options, form_kernels
from isa.machine import Machine
from tests.compiler.alias_graphs import permute, reshape
from tests.compiler.kern_graphs import add, bodies, checked, conv, dq, graph, linear, q, relu
from tests.e2e.support import assert_bits, quantized


def settled(body: Callable, *shapes: tuple[int, ...]) -> list[str]:
    """The kernels of a graph, bits checked."""
    return bodies(checked(graph(shapes, body), fuse_kernels, materialize_copies))


class Readout(nn.Module):
    """25 patches and two more tokens that all patches hear of, as an image that is read twice."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.patch = nn.Linear(channels, channels)
        self.learned = nn.Linear(2 * channels, channels, bias=False)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, 27, C] to [B, C, 5, 5]."""
        b, _, c = tokens.shape
        patches, learned = tokens[:, 2:].reshape(b, 5, 5, c), tokens[:, :2].reshape(b, 1, 1, 2 * c)
        x = functional.gelu(self.patch(patches) + self.learned(learned)).permute(0, 3, 1, 2)
        return x + self.second(functional.relu(self.first(functional.relu(x))))


GELU = "add+mul+erf+mul+add+mul"
EXACT = ["linear", f"linear+{GELU}", "relu", "conv2d+relu", "conv2d+add"]
CODES = [
    "quantize", "linear+quantize", f"linear+dequantize+{GELU}+quantize", "dequantize+quantize", "conv2d+quantize",
    "conv2d+dequantize+add",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "expected"), [("f32", EXACT), ("w8a8", CODES), ("w4a8", CODES), ("w4a4", CODES)],
)  # fmt: skip
def test_tokens_become_an_image_without_a_copy(recipe: str, expected: list[str]):
    from compiler.frontend.export import import_graph

    torch.manual_seed(3)
    net = quantized(Readout().eval(), (1, 27, 16), recipe=recipe)
    module = import_graph(net)
    form_kernels(module, Machine.load("edge28"), Options())
    assert bodies(module) == expected
    assert_bits(net, [torch.randn(1, 27, 16), torch.zeros(1, 27, 16)])


SHAPE = (1, 5, 5, 8)


def tokens(x):
    """[25, 8] as [1, 5, 5, 8], behind a product."""
    return reshape(linear(q(x), 8), *SHAPE)


@pytest.mark.parametrize(
    "other",
    [(1, 1, 1, 8), (8,), (1, 1, 8), (1, 5, 5, 1), (1, 1, 1, 1), ()],
    ids=["row", "row of rank 1", "row of rank 3", "column", "one element", "scalar"],
)
@pytest.mark.parametrize("codes", [False, True], ids=["binary32", "codes"])
def test_an_operand_that_repeats_over_whole_dimensions_lets_moves_pass(other: tuple[int, ...], codes: bool):
    def body(x, y):
        small = relu(reshape(y, *other))
        return q(permute(relu(add(tokens(x), dq(q(small)) if codes else small)), 0, 3, 1, 2))

    found = settled(body, (25, 8), other)
    joined = "linear+dequantize+add+relu+quantize" if codes else "linear+add+relu+quantize"
    assert joined in found, found


def test_a_row_may_be_of_an_image():
    def body(x, y):
        image = permute(tokens(x), 0, 3, 1, 2)
        return q(add(image, relu(y)))

    assert settled(body, (25, 8), (1, 8, 1, 1)) == ["quantize", "relu", "linear+add+quantize"]


@pytest.mark.parametrize(
    ("shape", "other"), [((2, 5, 5, 8), (2, 1, 1, 8)), (SHAPE, (1, 5, 1, 8)), (SHAPE, (1, 1, 5, 8))],
)  # fmt: skip
def test_moves_stay_where_an_operand_repeats_inside_a_dimension(shape: tuple[int, ...], other: tuple[int, ...]):
    rows = shape[0] * 25

    def body(x, y):
        return q(add(reshape(linear(q(x), 8), *shape), relu(y)))

    assert "linear" in settled(body, (rows, 8), other)


def test_moves_of_high_rank_stay_where_an_operand_repeats():
    def body(x, y):
        return q(add(reshape(relu(x), 2, 3, 2, 12), relu(y)))

    assert "add+quantize" in settled(body, (2, 3, 2, 3, 4), (1, 3, 1, 1))


def test_an_image_behind_takes_the_addition_of_tokens():
    def body(x):
        image = permute(relu(tokens(x)), 0, 3, 1, 2)
        return q(add(image, conv(q(image), 8, 3)))

    assert settled(body, (25, 8)) == ["quantize", "linear+relu", "quantize", "conv2d+add+quantize"]


def test_tokens_behind_take_the_addition_of_an_image():
    def body(x, y):
        image = conv(q(y), 8, 3)
        return q(add(permute(tokens(x), 0, 3, 1, 2), image))

    assert settled(body, (25, 8), (1, 8, 5, 5)) == ["quantize", "conv2d", "quantize", "linear+add+quantize"]
