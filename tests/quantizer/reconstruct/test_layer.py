"""Layers as matrix products: every kind of weighted operator equals rows by columns, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantizer import prepare
from quantizer.reconstruct.layer import Layer, layers
from quantizer.size import constant

CASES = {
    "linear": (lambda: nn.Linear(6, 5), (2, 3, 6)),
    "row": (lambda: nn.Linear(6, 5), (6,)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "padded": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (1, 3, 7, 6)),
    "same": (lambda: nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(1, 3)), (1, 3, 7, 6)),
    "valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), (1, 3, 7, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (1, 4, 5, 5)),
    "unbatched": (lambda: nn.Conv2d(3, 4, 3), (3, 7, 6)),
    "signal": (lambda: nn.Conv1d(3, 4, 3, padding=1, stride=2), (2, 3, 9)),
    "patches": (lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 4, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=(2, 3), padding=1, output_padding=1), (1, 3, 4, 5)),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, (2, 3), groups=2, dilation=2), (1, 4, 4, 5)),
}


def whole(shape: tuple[int, ...]) -> torch.Tensor:
    """Small whole numbers, whose products and sums are exact in any order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_rows_by_columns(name: str) -> None:
    build, shape = CASES[name]
    module, x = build().eval(), whole(shape)
    assert module.bias is not None
    with torch.no_grad():
        module.weight.copy_(whole(tuple(module.weight.shape)))
        module.bias.zero_()
    (layer,) = layers(prepare(module, x, "w8a8"))
    weight = module.weight.detach()
    found = layer.rows(weight) @ layer.columns(x, weight.shape)
    expected = module(x).detach()
    assert torch.equal(found, layer.outputs(expected, weight.ndim))
    assert torch.equal(layer.weight_of(layer.rows(weight), weight.shape), weight)


def test_a_weight_that_two_layers_read_is_the_first_ones() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(x)))

    graph = prepare(Tied().eval(), torch.ones(1, 4), "w8a8")
    found: list[Layer] = layers(graph)
    assert [layer.name for layer in found] == ["first", "last"]
    assert constant(graph, found[0].held).shape == (4, 4)
