"""Every operator gives the reference's bits on the simulator, at every width and on both machines."""

from __future__ import annotations

import pytest
import torch

import quartic
from tests.e2e.operators import IMAGES, ROWS, captured
from tests.e2e.support import probes

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
        (expected,), (found,) = reference(x), quartic.simulate(exe, x).outputs
        assert found.shape == expected.shape
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
