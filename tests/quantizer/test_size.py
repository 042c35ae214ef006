"""The size report: every constant counted once, at its width, and all rows add up."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantizer import Change, Recipe, quantize, report
from quantizer.codebook import dequantize_codebook, quantize_codebook
from quantizer.size import CODEBOOK_BITS, Size, width

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 1


def model() -> nn.Module:
    """Convolution 3 to 4 of 3 x 3 with a batch norm, a layer norm of 36, linear 36 to 5."""
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(convolution, nn.Flatten(2), nn.LayerNorm(36), nn.Linear(36, 5)).eval()


def quantized(recipe: str | Recipe) -> GraphModule:
    return quantize(model(), (X,), [X], recipe)


def weight(recipe: str, **changes: object) -> Recipe:
    base = Recipe.load(recipe)
    return dataclasses.replace(base, weight=base.weight.changed(Change(**changes)))


CONVOLUTION, LINEAR = 4 * 3 * 9, 5 * 36
ROWS = [
    ("w8a8", 8, 32 * (4 + 5), 0),
    ("w4a8", 4, 32 * (4 + 5), 0),
    ("w16a16", 16, 32 * (4 + 5), 0),
    (weight("w4a8", symmetric=False), 4, 32 * (4 + 5), 4 * (4 + 5)),
    (weight("w8a8", per="tensor"), 8, 32 * 2, 0),
]


@pytest.mark.thin(1)
@pytest.mark.parametrize(("recipe", "bits", "scales", "zeros"), ROWS)
def test_weights_scales_and_zero_points(recipe: str | Recipe, bits: int, scales: int, zeros: int) -> None:
    q = quantized(recipe)
    found = report(q).size
    quantizers = [n.args for n in q.graph.nodes if str(n.target).startswith("quantized_decomposed.quantize_per_tensor")]
    own = sum(width(*args[3:5]) for args in quantizers if args[2])
    assert found.codes == bits * (CONVOLUTION + LINEAR)
    assert found.scales == scales + 32 * len(quantizers)
    assert found.zeros == zeros + own
    assert found.floats == 32 * (4 + 2 * 36 + 5)  # biases and the norm's parameters
    assert found.numbers == CONVOLUTION + LINEAR + 4 + 2 * 36 + 5


def test_layers_add_up_and_are_named() -> None:
    found = report(quantized("w4a8"))
    rows = {layer.module: layer for layer in found.layers}
    assert list(rows) == ["0.0", "1", "2", "3"]
    assert [layer.weight and layer.weight.bits for layer in rows.values()] == [4, None, None, 4]
    assert rows["0.0"].size == Size(4 * CONVOLUTION, 32 * 4 + 32, 8, 32 * 4, CONVOLUTION + 4)
    assert rows["2"].size.floats == 32 * 2 * 36
    assert sum(layer.size.total for layer in found.layers) == found.size.total


def test_a_float_model_is_all_leftovers() -> None:
    found = report(quantized("f32"))
    assert found.recipe == "f32"
    assert found.size.floats == found.size.total == found.size.in_float
    assert {layer.weight.bits for layer in found.layers if layer.weight} == {32}


def test_constants_that_nobody_reads_do_not_count() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 4, bias=False), nn.Linear(1000, 1000)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x [N, 3]."""
            return self.used(x)

    x = torch.randn(2, 3)
    assert report(quantize(Unused().eval(), (x,), [x])).size.numbers == 12


def test_a_codebook_counts_with_its_tables() -> None:
    class Coded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x [N, 3]."""
            codes = quantize_codebook(x, [float(i) for i in range(15)])
            return torch.relu(dequantize_codebook(codes, list(range(16)), 0, 0.5))

    graph = torch.export.export(Coded(), (torch.randn(2, 3),)).module()
    (layer,) = report(graph).layers
    assert (layer.activation, layer.size) == (4, Size(scales=32 + CODEBOOK_BITS, zeros=8))
