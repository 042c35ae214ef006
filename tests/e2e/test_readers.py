"""Operators that read one value in different widths: each gets what it can read, and the chip has the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizer.recipe import Change, Recipe
from tests.e2e.support import assert_bits, probes, quantized

SHAPE = (1, 3, 6, 6)
READERS: dict[str, Callable[[Body, Tensor], Tensor]] = {
    "convolution": lambda m, y: m.behind(y),
    "mean of windows": lambda m, y: functional.avg_pool2d(y, 2),
    "maximum": lambda m, y: functional.max_pool2d(y, 2),
    "norm": lambda m, y: m.norm(y),
    "softmax": lambda m, y: y.softmax(1),
    "function": lambda m, y: torch.tanh(y),
    "output": lambda m, y: y,
}
PAIRS = [*combinations(READERS, 2)]
FLOAT = Change(bits=32)
RECIPES = {
    "w16a16": Recipe.load("w16a16"),
    "w8a8, wide binary32": replace(Recipe.load("w8a8"), wide=FLOAT),
    "w4a4, binary32 between": replace(Recipe.load("w4a4"), elementwise=FLOAT, wide=FLOAT),
    "w16a16, wide 16": replace(Recipe.load("w16a16"), wide=Change(bits=16)),
    "w4a8, functions binary32": replace(Recipe.load("w4a8"), elementwise=FLOAT),
}


class Body(nn.Module):
    """Two readers of what a convolution makes, or of a part of it beside the input, which moves bring."""

    def __init__(self, readers: tuple[str, str], moved: bool) -> None:
        super().__init__()
        self.front, self.behind, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)
        self.readers, self.moved = readers, moved

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [1, 3, 6, 6]."""
        y = self.front(x)
        y = torch.cat([y, x], 1)[:, 3:] if self.moved else y
        return tuple(READERS[name](self, y) for name in self.readers)


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_two_readers_of_one_value(pair: tuple[str, str], moved: bool) -> None:
    """At two of the recipes in turn, so that each pair meets most of them."""
    torch.manual_seed(0)
    model, first = Body(pair, moved).eval(), 2 * PAIRS.index(pair) + moved
    for step in (0, 2):
        recipe = [*RECIPES.values()][(first + step) % len(RECIPES)]
        assert_bits(quantized(model, SHAPE, recipe=recipe), probes(SHAPE), "tiny")
