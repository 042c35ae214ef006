"""The whitepaper's tables: rows, report, and the rescaling that changes nothing in float."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import whitepaper
from benchmarks.classify.cases import NETWORKS, STEPS, ablations, tables
from benchmarks.classify.networks import Separable
from benchmarks.classify.rescale import rescaled


def test_every_column_of_a_table_is_measured() -> None:
    cases = {(case.table, case.column) for case in tables()}
    assert {column for columns in whitepaper.COLUMNS.values() for column in columns} <= cases
    assert all(len(rest) == 2 + len(whitepaper.COLUMNS[at]) for at, *rest in whitepaper.PAPER)


def test_rows_have_names_of_their_own() -> None:
    names = [whitepaper.key(*job) for job in whitepaper.jobs()]
    assert len(set(names)) == len(names)


def test_trainings_are_of_the_same_length_but_for_one_from_scratch() -> None:
    steps = {c.scratch: c.recipe.train.steps for c in ablations() + tables() if c.recipe is not None and c.recipe.train}
    assert steps[False] == STEPS
    assert steps[True] > STEPS


def test_the_report_has_means_spreads_and_dashes() -> None:
    rows = {
        f"2/digits/asym/layer/{seed}": {"accuracy": 0.5 + 0.1 * seed, "bytes": 10, "seconds": 3.0} for seed in (0, 2)
    }
    text = whitepaper.report(rows)
    assert "| digits | - | 0.600 ±0.141 (2) | - | - | 3 |" in text
    assert "| *Mobilenet v1* | .709 | .001 | .591 | .704 |  |" in text
    assert all(network in text for network in NETWORKS)


def test_rows_that_are_known_are_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(whitepaper, "RESULTS", tmp_path)
    monkeypatch.setattr(whitepaper, "JSON", tmp_path / "whitepaper.json")
    row = {"accuracy": 0.5, "bytes": 1, "seconds": 1.0}
    whitepaper.write({"3/digits/sym/channel/0": row})
    whitepaper.write({"2/digits/sym/channel/0": row, "of nothing": row})
    assert list(whitepaper.known()) == ["2/digits/sym/channel/0", "3/digits/sym/channel/0"]


def test_rescaling_spreads_the_kernels_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Separable(0.5).eval()
    other, x = rescaled(model, 1), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other(x), model(x), atol=1e-4, rtol=1e-4)
    before, after = (m[3][0].weight.abs().amax((1, 2, 3)) for m in (model, other))
    assert after.max() / after.min() > 8 * before.max() / before.min()


def test_without_a_chain_behind_relu_nothing_is_rescaled() -> None:
    with pytest.raises(ValueError, match="no two convolutions follow each other behind a ReLU"):
        rescaled(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)), 0)
