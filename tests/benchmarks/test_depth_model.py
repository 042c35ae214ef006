"""The trained depth model: its stated accuracy, and the chip's bits."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
import torch

from benchmarks.bench import RESULTS
from benchmarks.depth.evaluate import compiled, float_depth, held_out
from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import CHECKPOINT, trained


def stated() -> dict:
    return json.loads((RESULTS / "depth.json").read_text())


def test_the_stated_results_are_of_this_checkpoint_and_every_frame_was_equal() -> None:
    found = stated()
    assert found["provenance"]["checkpoint_sha256"] == sha256(CHECKPOINT.read_bytes()).hexdigest()
    assert {row["recipe"] for row in found["rows"]} == {"w8a8", "w4a8", "w4a4", "w8a16", "w16a16"}
    for row in found["rows"]:
        assert row["equal frames"] == found["provenance"]["scenes"]["count"]
        assert row["simulated"] == row["reference"]


@pytest.mark.slow
def test_float_accuracy_is_the_stated_one() -> None:
    found = stated()
    images, truth = held_out(found["provenance"]["scenes"]["count"])
    metrics = Metrics.of(float_depth(trained(), images), truth)
    digits = {name: round(value, 4) for name, value in found["float"].items() if name != "silog"}
    assert {name: round(getattr(metrics, name), 4) for name in digits} == digits


@pytest.mark.slow
def test_the_chip_computes_the_bits_of_the_reference() -> None:
    """As the table's; other recipes are in the guide, which runs as a test, and in ``make depth``."""
    import quartic

    q, exe = compiled(trained(), "w4a8", "edge28")
    images, _ = held_out(2)
    for image in images.split(1):
        run = quartic.simulate(exe, image)
        assert torch.equal(run.outputs[0], quartic.reference(q)(image)[0])
        assert run.outputs[0].unique().numel() > 100
