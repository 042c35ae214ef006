"""The whitepaper's tables: rows, report, and the rescaling that changes nothing in float."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import whitepaper
from benchmarks.classify import measure, train
from benchmarks.classify.cases import NETWORKS, STEPS, Case, ablations, tables
from benchmarks.classify.findings import CLAIMS, findings, judged
from benchmarks.classify.networks import Separable
from benchmarks.classify.rescale import rescaled


def test_every_column_of_a_table_is_measured() -> None:
    cases = {(case.table, case.column) for case in tables()}
    assert {column for columns in whitepaper.COLUMNS.values() for column in columns} <= cases
    assert all(len(rest) == 2 + len(whitepaper.COLUMNS[at]) for at, *rest in whitepaper.PAPER)


@pytest.mark.slow
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


def row(name: str, accuracy: float = 0.5) -> dict[str, Any]:
    digests = {whitepaper.key(*job): whitepaper.digest(*job) for job in whitepaper.jobs()}
    return {"accuracy": accuracy, "bytes": 1, "seconds": 1.0, "digest": digests[name]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(whitepaper, "RESULTS", tmp_path)
    monkeypatch.setattr(whitepaper, "JSON", tmp_path / "whitepaper.json")
    return tmp_path


@pytest.mark.slow
def test_rows_that_are_known_are_kept(folder: Path) -> None:
    names = ["3/digits/sym/channel/0", "2/digits/sym/channel/0"]
    whitepaper.write({names[0]: row(names[0])})
    whitepaper.write({names[1]: row(names[1]), "of nothing": row(names[1])})
    assert list(whitepaper.known()) == names[::-1]
    assert "| digits | - | - | 0.500 (1) |" in (folder / "whitepaper.md").read_text()


@pytest.mark.slow
def test_rows_of_other_settings_are_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(case: Case, network: str, seed: int) -> dict[str, Any]:
        asked.append(whitepaper.key(case, network, seed))
        return {"accuracy": 0.5, "bytes": 1, "seconds": 1.0}

    monkeypatch.setattr(measure, "measure", measured)
    choice = ["--rows", "2/digits", "--seeds", "1"]
    whitepaper.main(choice)
    whitepaper.main(choice)
    names = [f"2/digits/{column}/1" for _, column in whitepaper.COLUMNS["2"]]
    assert asked == names
    monkeypatch.setattr(train, "TEST_IMAGES", 1000)
    assert whitepaper.known() == {}
    whitepaper.main(choice)
    assert asked == 2 * names
    assert list(whitepaper.known()) == names


@pytest.mark.slow
def test_a_digest_is_of_recipe_network_seed_and_images() -> None:
    digests = [whitepaper.digest(*job) for job in whitepaper.jobs()]
    assert len(set(digests)) == len(digests)
    case, network, seed = next(job for job in whitepaper.jobs() if job[0].recipe)
    assert case.recipe is not None
    other = dataclasses.replace(case, recipe=dataclasses.replace(case.recipe, description="another"))
    assert whitepaper.digest(other, network, seed) != whitepaper.digest(case, network, seed)


@pytest.mark.slow
def test_the_stated_rows_are_of_today_s_settings() -> None:
    assert len(whitepaper.known()) == len(whitepaper.stored())


def accuracies(network: str, *given: tuple[str, str, float]) -> dict[str, dict[str, float]]:
    """Of two seeds, .01 below and above."""
    signs = {0: -1, 2: 1}
    return {
        f"{table}/{network}/{column}/{seed}": {"accuracy": accuracy + 0.01 * sign}
        for table, column, accuracy in given
        for seed, sign in signs.items()
    }


def test_claims_are_judged_by_the_rows() -> None:
    given = accuracies("separable", ("1", "float", 0.8), ("2", "asym/layer", 0.5), ("5", "asym/layer", 0.3))
    assert findings(given, (0, 1, 2)).splitlines() == [
        "* **does not reproduce**: separable: one scale for all kernels costs half the accuracy or more at 8 bits "
        "(0.500 ±0.014 to 0.800 ±0.014; 2 seeds)"
    ]
    given = accuracies("separable", ("1", "float", 0.8), ("2", "asym/layer", 0.3))
    del given["2/separable/asym/layer/0"]
    assert findings(given, (0, 1, 2)) == (
        "* reproduces: separable: one scale for all kernels costs half the accuracy or more at 8 bits "
        "(0.310 to 0.810; 1 seed)"
    )
    assert findings({}, (0, 1, 2)) == ""


@pytest.mark.parametrize(
    ("says", "values", "holds"),
    [
        ("costs at most .01 at 8 bits", (0.795, 0.8), True),
        ("costs at most .01 at 8 bits", (0.78, 0.8), False),
        ("with a scale per kernel 8-bit weights", (0.785, 0.8), True),
        ("8-bit activations alone", (0.77, 0.8), False),
        ("trained at 8 bits, a scale per kernel", (0.81, 0.8), True),
        ("trained at 8 bits, one scale for all", (0.78, 0.8), False),
        ("a scale per kernel is better at 4-bit", (0.5, 0.5), False),
        ("training gives back half or more", (0.75, 0.6, 0.8), True),
        ("training gives back half or more", (0.65, 0.6, 0.8), False),
        ("4-bit activations are worse than 4-bit weights", (0.7, 0.75), True),
    ],
)
def test_every_claim(says: str, values: tuple[float, ...], holds: bool) -> None:
    (claim,) = (claim for claim in CLAIMS if says in claim.says)
    given = accuracies("residual", *((*column, v) for column, v in zip(claim.columns, values, strict=True)))
    line = judged(claim, "residual", given, (0, 2))
    assert line.startswith("* reproduces: " if holds else "* **does not reproduce**: ")


def test_claims_are_of_columns_that_are_measured() -> None:
    measured_ = {(case.table, case.column) for case in tables()}
    assert {column for claim in CLAIMS for column in claim.columns} <= measured_


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
