"""Random graphs compile, and their bits match."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.graphs import Graph, Recipe, recipes
from tests.e2e.support import assert_bits, probes, quantized
from tests.thinning import examples

COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@given(recipes())
@settings(max_examples=examples(100), **COMMON)
def test_recipes_are_valid_modules(recipe: Recipe) -> None:
    with torch.device("meta"):
        out = Graph(recipe)(torch.empty(recipe.batch, *recipe.shape))
    assert out.shape[0] == recipe.batch


@given(recipes(max_steps=8), st.sampled_from(["tiny", "edge28"]), st.booleans(), st.booleans())
@settings(max_examples=examples(60), **COMMON)
def test_random_graph(recipe: Recipe, machine: str, fuse: bool, double_buffer: bool) -> None:
    shape = (recipe.batch, *recipe.shape)
    q = quantized(Graph(recipe).eval(), shape)
    assert_bits(q, probes(shape)[::3], machine, fuse=fuse, double_buffer=double_buffer)
