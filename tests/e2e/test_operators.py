"""Every operator gives the reference's bits on the simulator, at every width and on both machines."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quartic
from tests.bits import assert_same
from tests.e2e.operators import IMAGES, ROWS, Behind, Body, captured
from tests.e2e.support import assert_bits, probes, quantized

RECIPES = ("w8a8", "w4a8", "w4a4", "w8a16", "w16a16", "f32")
MACHINES = ("edge28", "tiny")
CASES = (*ROWS, *IMAGES)


@pytest.mark.thin(1)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", CASES)
def test_an_operator(name: str, recipe: str) -> None:
    """On ordinary and extreme inputs.

    Machines take turns, so that each meets each operator and each width; at one width, the interpreters of qnn, kern
    and tile run too, after every pass.
    """
    row, column = CASES.index(name), RECIPES.index(recipe)
    model, graph, batches = captured(name)
    q = quartic.quantize(graph, batches[:1], batches, recipe=recipe)
    exe = quartic.compile(q, MACHINES[(row + column) % 2], validate=row % len(RECIPES) == column)
    reference = quartic.reference(q)
    if recipe == "f32":  # says that what a rewrite made of the operator is the operator
        with torch.no_grad():
            torch.testing.assert_close(reference(batches[0])[0], model(batches[0]), rtol=1e-3, atol=1e-3)
    for x in probes(batches[0].shape):
        assert_same(quartic.simulate(exe, x).outputs, reference(x))


NUMBERLESS: dict[str, Body] = {
    "input itself": lambda x: x,
    "move": lambda x: x.transpose(1, 2),
    "window": lambda x: nn.functional.max_pool2d(x, 2),
    "row": lambda x: x.amax(3),
    "least": lambda x: torch.minimum(x, x.flip(3)),
    "sign": lambda x: -x,
    "sum": lambda x: x + x,
}


@pytest.mark.parametrize("name", NUMBERLESS)
def test_every_nan_is_the_same_one(name: str) -> None:
    """Whatever sign and payload the inputs' have, and whether a value is computed or moved (decision 0014)."""
    q = quantized(Behind(nn.Identity(), NUMBERLESS[name]).eval(), (1, 2, 4, 6), recipe="f32")
    x = torch.randn(1, 2, 4, 6)
    odd = torch.tensor([0x7FC00000, -0x400000, 0x7F800001, 0x7FFFFFFF, -1, 0x7FC12345]).to(torch.int32)
    x[0, :, 1] = odd.view(torch.float32)
    found, expected = quartic.simulate(quartic.compile(q, "tiny"), x).outputs, quartic.reference(q)(x)
    assert_same(found, expected)
    assert set(found[0][found[0].isnan()].view(torch.int32).tolist()) == {0x7FC00000}


DEFINED: dict[str, Body] = {
    "nan_to_num": torch.nan_to_num,
    "nan_to_num to values": lambda x: torch.nan_to_num(x, 1.0, 2.0, -2.0),
    "logsigmoid": nn.functional.logsigmoid,
    "threshold": lambda x: nn.functional.threshold(x, 0.1, 3.0),
    "hardshrink": nn.functional.hardshrink,
    "cosine_similarity": lambda x: nn.functional.cosine_similarity(x, x * x, 1),
    "log10": torch.log10,
}


@pytest.mark.parametrize("name", DEFINED)
def test_definitions_give_pytorchs_numbers_at_the_edges(name: str) -> None:
    """NaN, infinities, zeros and large numbers included."""
    x = torch.tensor([[torch.nan, torch.inf], [-torch.inf, 1.0], [0.0, -0.0], [0.1, 0.5], [-50.0, 80.0], [1e8, -0.4]])
    q = quartic.quantize(Behind(nn.Identity(), DEFINED[name]).eval(), (x,), [(x,)], recipe="f32")
    (found,) = quartic.simulate(quartic.compile(q, "tiny"), x).outputs
    assert_same([found], quartic.reference(q)(x))
    torch.testing.assert_close(found, DEFINED[name](x), rtol=1e-6, atol=1e-7, equal_nan=True)


INDICES: dict[str, Body] = {
    "argmax of channels": lambda x: x.argmax(1),
    "argmax of rows": lambda x: x.argmax(3, keepdim=True),
    "argmax of all": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(1),
    "max": lambda x: x.max(2)[1],
    "min": lambda x: x.min(2)[1],
}


@pytest.mark.thin(1)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", INDICES)
def test_indices_of_extrema(name: str, recipe: str) -> None:
    """The first of equal ones, NaN above all; int32, as the chip stores them. Machines take turns."""
    torch.manual_seed(0)
    row, column = list(INDICES).index(name), RECIPES.index(recipe)
    model = Behind(nn.Conv2d(4, 7, 1), INDICES[name]).eval()
    q = quantized(model, (1, 4, 6, 5), recipe=recipe)
    assert_bits(q, probes((1, 4, 6, 5)), MACHINES[(row + column) % 2])
    if recipe == "f32":
        x = torch.randn(1, 4, 6, 5)
        assert torch.equal(quartic.reference(q)(x)[0], model(x).int())
