"""Graphs whose channels were scaled, and 4-bit codes of LogNP and powers of two: the chip computes what they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import quartic
from isa.instructions import MmuCodes
from quantizer import Recipe
from quantizer.fold import Fold
from quantizer.log2 import Log2
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


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", ["quartdepth28-w4a4", "edge28", "tiny"])
@pytest.mark.parametrize("kind", [Convolutions, Transformer])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_chip_computes_what_the_stages_give(recipe: Recipe, kind: type[nn.Module], machine: str) -> None:
    inputs = [x for (x,) in batches(kind.shape, 2)]  # type: ignore[attr-defined]
    assert_bits(quantized(kind, recipe), [*inputs, 100 * inputs[0]], machine)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["quartdepth28-w4a4", "edge28", "tiny"])
@pytest.mark.parametrize("steps", [1, 2])
def test_attention_multiplies_probabilities_in_powers_of_two(steps: int, machine: str) -> None:
    """They are decoded in front of the array: the product runs as with 8-bit probabilities, the kernels stay."""
    inputs = [x for (x,) in batches(Transformer.shape, 2)]
    coded = assert_bits(quantized(Transformer, dataclasses.replace(W4A4, log2=Log2(steps))), inputs, machine)
    plain = quartic.compile(quantized(Transformer, W4A4), machine)
    kernels = [len(quartic.timing(exe).profile.rows("kernel")) for exe in (coded, plain)]
    assert kernels[0] == kernels[1]
    decoding = [[i.decode for i in exe.binary.instructions if isinstance(i, MmuCodes)] for exe in (coded, plain)]
    assert any(decoding[0])
    assert not any(decoding[1])
