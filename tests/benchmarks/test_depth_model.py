"""The trained depth model: its stated accuracy, and the chip's bits."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from benchmarks import demo
from benchmarks.bench import RESULTS
from benchmarks.depth.evaluate import float_depth, held_out
from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import CHECKPOINT, trained
from benchmarks.depth.picture import coloured


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
def test_the_demo_shows_a_depth_map_of_the_chip_with_its_time_and_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At one recipe; all are in ``make depth``, some in the guide, which runs as a test."""
    picture, depths = tmp_path / "new/demo.png", []
    monkeypatch.setattr("sys.argv", ["demo", "--recipe", "w4a8", "--picture", str(picture)])
    monkeypatch.setattr("benchmarks.depth.picture.coloured", lambda x, *ends: depths.append(x) or coloured(x, *ends))
    demo.main()
    printed = capsys.readouterr().out
    assert re.search(r"bits equal +yes", printed)
    assert re.search(r"latency +0\.\d+ ms \([\d,]+ cycles\)", printed)
    assert re.search(r"energy +0\.\d+ mJ", printed)
    truth, floats, simulated = (torch.from_numpy(depth) for depth in depths)
    assert simulated.unique().numel() > 100
    assert 0 < (simulated - floats).abs().mean() < (simulated - truth).abs().mean()
    assert picture.read_bytes().startswith(b"\x89PNG")
