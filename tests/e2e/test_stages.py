"""Graphs whose channels were scaled, and 4-bit codes of LogNP and powers of two: the chip computes what they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import quartic
from quantizer import Recipe
from quantizer.fold import Fold
from quantizer.polish import Polish
from quantizer.smooth import Smooth
from tests.e2e.support import assert_bits
from tests.quantizer.test_scaling import Convolutions, Transformer, batches, network

W4A4 = Recipe.load("w4a4")
RECIPES = {
    "smooth": dataclasses.replace(W4A4, smooth=Smooth()),
    "fold": dataclasses.replace(W4A4, fold=Fold()),
    "polish": dataclasses.replace(W4A4, polish=Polish(modules=("*",))),
    "polish, w4a8": dataclasses.replace(Recipe.load("w4a8"), polish=Polish(modules=("*",))),
    "all": dataclasses.replace(
        W4A4, smooth=Smooth(), fold=Fold(modules=("fc*", "point", "whole")), polish=Polish(modules=("fc2", "last"))
    ),
}


def quantized(kind: type[nn.Module], recipe: Recipe) -> torch.fx.GraphModule:
    data = batches(kind.shape)  # type: ignore[attr-defined]
    return quartic.quantize(network(kind), data[0], data, recipe=recipe)


@pytest.mark.parametrize("machine", ["quartdepth28-w4a4", "edge28", "tiny"])
@pytest.mark.parametrize("kind", [Convolutions, Transformer])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_chip_computes_what_the_stages_give(recipe: Recipe, kind: type[nn.Module], machine: str) -> None:
    inputs = [x for (x,) in batches(kind.shape, 2)]  # type: ignore[attr-defined]
    assert_bits(quantized(kind, recipe), [*inputs, 100 * inputs[0]], machine)
