"""Every estimator and kind of quantizer, and mixed widths by overrides: the chip's bits are the reference's."""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache

import pytest
import torch
from torch import nn

import quartic
from benchmarks.depth.model import trained as trained_depth
from benchmarks.zoo.digits import trained as trained_digits
from isa.errors import UnsupportedError
from quantizer import Change, Override, Recipe
from quantizer.ranges import Entropy, MeanError, MinMax, Percentile
from tests.e2e.support import assert_bits, probes
from tests.quantizer.test_scaling import Convolutions, Transformer, batches

PERCENTILE, ERROR, ENTROPY = Percentile(percent=99.0), MeanError(power=2.4, steps=30), Entropy(steps=30)


def recipe(base: str, weight: Change | None = None, activation: Change | None = None, *overrides: Override) -> Recipe:
    found = Recipe.load(base)
    return dataclasses.replace(
        found,
        weight=found.weight.changed(weight),
        activation=found.activation.changed(activation),
        overrides=overrides,
    )


ESTIMATORS = {
    "minmax": recipe("w8a8", None, Change(range=MinMax())),
    "percentile": recipe("w4a8", Change(range=PERCENTILE), Change(range=PERCENTILE)),
    "mse": recipe("w4a4", Change(range=ERROR), Change(range=ERROR)),
    "entropy": recipe("w8a8", Change(per="tensor", range=ENTROPY), Change(range=ENTROPY)),
    "affine": recipe("w4a8", Change(symmetric=False), Change(range=ERROR, symmetric=True)),
    "tensor": recipe("w8a8", Change(symmetric=False, per="tensor", range=PERCENTILE), Change(symmetric=True)),
    "wide": recipe("w8a16", Change(range=ERROR), Change(symmetric=True, range=PERCENTILE)),
    "overrides": recipe(
        "w4a4",
        None,
        None,
        Override(layer="first", weight=Change(bits=8), activation=Change(bits=8)),
        Override(layer="last", weight=Change(bits=16), activation=Change(bits=16)),
        Override("block1", weight=Change(bits=8), activation=Change(bits=8, range=ENTROPY)),
        Override("down", activation=Change(bits=16)),
    ),
}


@lru_cache
def images(side: int, channels: int, count: int = 4) -> tuple[tuple[torch.Tensor], ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple((torch.rand(1, channels, side, side, generator=generator),) for _ in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_digits(name: str) -> None:
    batches = images(8, 1)
    q = quartic.quantize(trained_digits(), batches[0], batches, ESTIMATORS[name])
    assert_bits(q, [batches[1][0], *probes((1, 1, 8, 8))[:3]], "tiny")


@pytest.mark.slow
def test_the_depth_model_with_an_estimator_in_every_part() -> None:
    batches = images(112, 3, 2)
    tensor = Change(per="tensor", range=ENTROPY)
    mixed = recipe(
        "w4a8",
        None,
        None,
        Override("encoder", weight=Change(range=ERROR), activation=Change(range=ERROR)),
        Override("encoder.blocks.1", weight=Change(symmetric=False), activation=Change(range=ENTROPY)),
        Override("head", weight=Change(range=PERCENTILE), activation=Change(range=PERCENTILE)),
        Override("head.resize_layers", weight=tensor, activation=Change(range=MinMax(), symmetric=True)),
    )
    assert_bits(quartic.quantize(trained_depth(), batches[0], batches, mixed), [batches[1][0]])


class Upsampled(nn.Module):
    """Layers of every kind that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.row, self.linear = nn.Conv1d(6, 4, 3), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [1, 3, 6, 6]."""
        y = torch.relu(self.up(torch.relu(self.conv(x))))
        return self.linear(self.row(y.flatten(2)).mean(2))


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("base", ["w8a8", "w4a4"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_every_layer_takes_every_kind_of_weight(base: str, symmetric: bool, per: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 6, 6)
    own = recipe(base, Change(symmetric=symmetric, per=per))
    assert_bits(quartic.quantize(Upsampled().eval(), (x,), [(x,)], own), [x, -3 * x], "tiny")


def quick(name: str) -> Recipe:
    """A preset whose learning takes moments; its formats and stages are its own."""
    found = Recipe.load(name)
    learned = found.round and dataclasses.replace(found.round, iterations=3)
    trained = found.train and dataclasses.replace(found.train, steps=2)
    return dataclasses.replace(found, round=learned, train=trained)


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("name", [name for name in Recipe.presets() if Recipe.load(name).compiles])
def test_every_preset_that_compiles_has_the_simulator_s_bits(name: str) -> None:
    for kind in (Convolutions, Transformer):
        inputs = [x for (x,) in batches(kind.shape, 2)]
        torch.manual_seed(0)
        q = quartic.quantize(kind().eval(), inputs[0], [(x,) for x in inputs], recipe=quick(name))
        assert_bits(q, [*inputs, 100 * inputs[0]])


def test_presets_that_do_not_compile_are_those_of_weights_alone() -> None:
    assert {name for name in Recipe.presets() if not Recipe.load(name).compiles} == {"w4a32", "w8a32"}


def test_weights_alone_are_evaluated_in_pytorch_and_say_that_they_do_not_compile() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval(), torch.randn(1, 3, 4, 4)
    q = quartic.quantize(model, (x,), [(x,)], "w8a32")
    with torch.no_grad():
        assert 0 < (q(x) - model(x)).abs().max() < 0.02
    for verb in (quartic.compile, quartic.reference):
        with pytest.raises(UnsupportedError, match=re.escape("weights alone are quantized")):
            verb(q)
