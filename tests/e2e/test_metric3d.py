"""Metric3D v2 with narrow layers: registers, recurrent units and convex upsampling, bit for bit on five machines."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch.fx import GraphModule

import quartic
from benchmarks.zoo.metric3d import metric3d_small
from quantizer import capture
from tests.e2e.support import assert_bits, probes, quantized

SHAPE = (1, 3, 26, 40)


@lru_cache(maxsize=1)
def captured() -> GraphModule:
    torch.manual_seed(0)
    return capture(metric3d_small(), torch.zeros(SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "machine"),
    [
        ("w8a8", "edge28"),
        ("w4a8", "quartdepth28-w4a8"),
        ("w4a4", "quartdepth28-w4a4"),
        ("w4a4", "tiny"),
        ("f32", "quartdepth28-f32"),
    ],
)
def test_metric3d(recipe: str, machine: str) -> None:
    q = quantized(captured(), SHAPE, recipe=recipe)
    depth, confidence, normals = quartic.reference(q)(probes(SHAPE)[0])
    assert len(depth.unique()) > 20
    assert confidence.std() > 0.1
    assert normals.std() > 0.1
    assert_bits(q, probes(SHAPE), machine)
