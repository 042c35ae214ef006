"""Graphs within the graph: regions without autocast become part of it, control flow is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import quartic
from isa.errors import QuantizationError
from quantizer import capture
from tests.bits import assert_same

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear layer, and ``function`` of it and of its result."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x: torch.Tensor) -> Any:
        """[N, 4] to what the function gives."""
        return self.function(self.layer, self.layer(x))


def without_autocast(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        y = layer(x.float() * 2)
        with torch.autocast("cpu", enabled=False), torch.enable_grad():
            z = y.relu_() + 1
    return y * z


def test_regions_without_autocast_are_part_of_the_model() -> None:
    model = Net(without_autocast).eval()
    graph = capture(model, X)
    assert not any("wrap_with" in str(node.target) for node in graph.graph.nodes)
    assert torch.equal(graph(X), model(X))
    q = quartic.quantize(model, (X,), [(X,)])
    assert_same(quartic.simulate(quartic.compile(q, "tiny"), X).outputs, quartic.reference(q)(X))


def autocast(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=True):
        return x @ x.T


@pytest.mark.thin(1)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda _, x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,)), r"cond \(cond\)"),
        (autocast, r"\(wrap_with_autocast\)"),
    ],
)
def test_other_regions_are_refused(function: Callable[[nn.Module, torch.Tensor], Any], name: str) -> None:
    place = rf"{name} in \(root\), test_regions\.py:\d+"
    rule = "runs a graph of its own, and the chip knows no branches, loops or other types"
    with pytest.raises(QuantizationError, match=rf"{place}: {rule}: compute both sides and choose by torch.where"):
        quartic.quantize(Net(function).eval(), (X,), [(X,)])
