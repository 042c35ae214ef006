"""Models that write into their inputs: they see it themselves, and whoever called them does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import quartic


class Writer(nn.Module):
    """``write`` into the input, then a linear layer and the input as it is by then."""

    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.layer, self.write = nn.Linear(4, 4), write

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, 4] to twice that shape."""
        self.write(x)
        return self.layer(x), x


@pytest.mark.parametrize(
    "write", [lambda x: x.mul_(2), lambda x: x[:, 0].add_(1), lambda x: x.copy_(x * 3), lambda x: x.view(8).relu_()]
)
@pytest.mark.parametrize("recipe", ["w8a8", "f32"])
def test_inputs_are_only_read(write: Callable[[torch.Tensor], object], recipe: str) -> None:
    torch.manual_seed(0)
    model, given = Writer(write).eval(), [torch.randn(2, 4) for _ in range(2)]
    kept = [x.clone() for x in given]
    q = quartic.quantize(model, (given[0],), [(given[1],)], recipe=recipe)
    expected = quartic.reference(q)(given[1])
    found = quartic.simulate(quartic.compile(q, "tiny"), given[1]).outputs
    assert all(map(torch.equal, given, kept))
    assert all(map(torch.equal, found, expected))
    wanted = model(given[1])[0]
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=wanted.abs().max().item() * 0.03)
