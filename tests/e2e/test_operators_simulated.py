"""Every operator of ``operators`` through quantize, reference, compile and simulate, at all six recipes."""

from __future__ import annotations

import zlib

import pytest
import torch
from torch import nn

import quartic
from tests.e2e.operators import IMAGES, ROWS, Body
from tests.e2e.support import probes

RECIPES = ("w8a8", "w4a8", "w4a4", "w8a16", "w16a16", "f32")
CASES = [*ROWS, *IMAGES]


class Between(nn.Module):
    """A body between two layers, so that there are codes around it."""

    def __init__(self, first: nn.Module, body: Body, second: nn.Module) -> None:
        super().__init__()
        self.first, self.body, self.second = first, body, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the second layer makes of the body's result."""
        return self.second(self.body(self.first(x)))


def built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The model of a case, with its parameters drawn, and the shape of its input."""
    torch.manual_seed(0)
    if name in ROWS:
        model, shape = Between(nn.Linear(8, 8), ROWS[name](), nn.LazyLinear(4)), (2, 6, 8)
    else:
        model, shape = Between(nn.Conv2d(4, 4, 1), IMAGES[name](), nn.LazyConv2d(3, 1)), (1, 4, 6, 5)
    with torch.no_grad():
        model.eval()(torch.randn(shape))
    return model, shape


def holds(name: str, recipe: str) -> None:
    """The simulator gives the reference's bits on ordinary and extreme inputs; f32 is near the float model."""
    model, shape = built(name)
    batches = [(torch.randn(shape),) for _ in range(2)]
    q = quartic.quantize(model, batches[0], batches, recipe=recipe)
    reference, exe = quartic.reference(q), quartic.compile(q)
    if recipe == "f32":  # says that what a rewrite made of the operator is the operator
        with torch.no_grad():
            torch.testing.assert_close(reference(*batches[0])[0], model(*batches[0]), rtol=1e-3, atol=1e-3)
    for x in probes(shape):
        (expected,), (found,) = reference(x), quartic.simulate(exe, x).outputs
        assert found.shape == expected.shape
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def _one(name: str) -> str:
    """The recipe that the fast tests take: any, but always the same."""
    return RECIPES[zlib.crc32(name.encode()) % len(RECIPES)]


@pytest.mark.parametrize("name", CASES)
def test_an_operator_at_one_recipe(name: str) -> None:
    holds(name, _one(name))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", CASES)
def test_an_operator_at_every_recipe(name: str, recipe: str) -> None:
    holds(name, recipe)
