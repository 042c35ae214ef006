"""[polish] with where = "error": an operand is polished where its product gets nearer to the float one by it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from quantizer import Change, Recipe, quantize, report, rescale
from quantizer.channels import Factors, observe
from quantizer.flow import capture
from quantizer.fold import Fold
from quantizer.operands import is_layer, operands
from quantizer.plan import plan
from quantizer.polish import Polish
from quantizer.quantizers import affine, simulate, symmetric
from quantizer.ranges import MinMax
from quantizer.recipe_file import read
from quantizer.scaling import is_polished
from quantizer.trial import PIECES, Way, noises
from tests.quantizer.test_scaling import Convolutions, Transformer, batches, network

POLISH = Polish(where="error", modules=("*",))
W4A4 = dataclasses.replace(Recipe.load("w4a4"), polish=POLISH)


class Shaped(nn.Module):
    """A layer that reads ``shape`` of the input."""

    def __init__(self, shape: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.shape, self.last = shape, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.shape(x))


def told(shape: Callable[[torch.Tensor], torch.Tensor], recipe: Recipe = W4A4) -> list[str]:
    torch.manual_seed(0)
    data = [(2 * torch.rand(1, 64, 8) - 1,) for _ in range(3)]
    q = quantize(Shaped(shape).eval(), data[0], data, recipe)
    return [words for layer in report(q).layers if layer.weight for words in layer.scaled]


def test_heavy_tails_within_channels_are_polished() -> None:
    tails = told(lambda x: x / torch.sqrt(1.01 - x.abs()))  # as Student's t of two degrees of freedom
    assert tails == ["polish: LogNP codes, scale by a product behind div"]


def test_uniform_values_are_not_and_it_is_said() -> None:
    (words,) = told(torch.neg)
    found = re.fullmatch(
        r"polish: not here: its product has an SQNR of (\d+\.\d\d) dB, and of (\d+\.\d\d) dB without", words
    )
    assert found
    assert float(found[1]) < float(found[2]) - 1


def test_wider_operands_are_divided_where_that_is_better() -> None:
    """Factors make 4-bit weights coarser: only where channels differ much does a division help 8-bit codes."""
    wide = dataclasses.replace(Recipe.load("w4a8"), polish=POLISH)
    assert told(torch.neg, wide)[0].startswith("polish: not here: its product has an SQNR of ")
    spread = 10.0 ** torch.arange(-4, 4)
    assert told(lambda x: x * spread, dataclasses.replace(wide, weight=wide.weight.changed(Change(bits=8)))) == [
        "polish: uniform codes, scale by a product behind mul"
    ]


def test_what_the_stage_before_makes_is_the_alternative() -> None:
    both = dataclasses.replace(W4A4, fold=Fold())
    words = told(lambda x: x * torch.arange(1.0, 9.0), both)
    assert words[0].startswith("polish: not here: its product has an SQNR of ")
    assert words[1] == "fold: scale and shift by a product behind mul"


def test_what_is_polished_has_the_smaller_error() -> None:
    data = batches(Transformer.shape)
    graph = rescale(network(Transformer), data[0], data, W4A4)
    layers = [node for node in graph.graph.nodes if is_layer(node)]
    assert {is_polished(layer) for layer in layers} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Convolutions, Transformer])
def test_in_binary32_no_way_costs_anything(kind: type[nn.Module]) -> None:
    data = batches(kind.shape)  # type: ignore[attr-defined]
    graph = capture(network(kind), data[0])
    found = {each: each.axis for each in operands(graph) if not each.problem}
    seen = observe(graph, data, {each.value: axis for each, axis in found.items()}, [95.0])
    ones = torch.ones(1)
    ways = {
        each: [Way(Fold().factors(seen[each.value], ones, False)), Way(polished, True)]
        for each in found
        if not isinstance(polished := Polish().factors(seen[each.value], ones, False), str)
    }
    assert len(ways) == len(found) > 2
    formats = plan(Recipe.load("f32"), graph).roles
    assert max(noise for row in noises(graph, data, ways, formats).values() for noise in row) < 1e-10


def test_noise_is_of_the_codes_of_operand_and_weight() -> None:
    torch.manual_seed(1)
    model, data = Shaped(torch.neg).eval(), [(torch.randn(1, 16, 8),) for _ in range(PIECES + 1)]
    data[-1] = (1000 * data[-1][0],)  # not tried
    graph = capture(model, data[0])
    base = Recipe.load("w4a4")
    formats = plan(dataclasses.replace(base, activation=base.activation.changed(Change(range=MinMax()))), graph).roles
    (operand,) = operands(graph)
    scale = torch.linspace(0.5, 2, 8)
    ((noise,),) = noises(graph, data, {operand: [Way(Factors(scale.double()))]}, formats).values()
    x, weight = -torch.cat([piece[0] for piece in data[:PIECES]]), model.last.weight.detach()
    codes, held = affine(4), symmetric(4, narrow=True)
    coded = simulate(x / scale, *codes.parameters(*torch.aminmax(x / scale)), codes)
    factors, zeros = held.parameters(*torch.aminmax(weight * scale, dim=1))
    changed = coded @ simulate(weight * scale, factors[:, None], zeros[:, None], held).T + model.last.bias.detach()
    exact = x @ weight.T + model.last.bias.detach()
    wanted = (changed - exact).double().square().sum() / exact.double().square().sum()
    assert noise == pytest.approx(wanted.item(), rel=1e-4)


def test_a_file_says_it() -> None:
    recipe = read('base = "w4a4"\n[polish]\nwhere = "error"\nmodules = ["*"]\n', "mine")
    assert recipe.polish == POLISH
    assert read(recipe.to_toml(), "mine").polish == POLISH
