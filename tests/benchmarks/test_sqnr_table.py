"""The noise at 16 bits as it is stated: no layer of much noise of its own."""

from __future__ import annotations

import json

import pytest

from benchmarks.bench import RESULTS
from benchmarks.sqnr import SIDES, TRAINED, main, measure, report

STATED = json.loads((RESULTS / "sqnr.json").read_text())


def test_the_page_is_what_was_measured() -> None:
    assert (RESULTS / "sqnr.md").read_text() == report(STATED)


@pytest.mark.parametrize("name", STATED)
def test_no_layer_adds_more_noise_than_60_decibels_allow(name: str) -> None:
    assert name in SIDES
    assert STATED[name]["own_db"] >= 60


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_are_above_60_decibels(name: str) -> None:
    assert STATED[name]["sqnr_db"] >= 60


@pytest.mark.parametrize("name", sorted(set(STATED) - set(TRAINED)))
def test_results_below_60_decibels_are_of_random_weights_that_amplify_a_rounded_input(name: str) -> None:
    """By 30 dB and more: 16 bits alone are at 90 to 98."""
    assert STATED[name]["result_db"] >= 60 or STATED[name]["rounded input dB"] < 64


@pytest.mark.slow
def test_a_row_is_what_is_measured() -> None:
    """To .1 dB: float sums of another machine round otherwise, and half a bit is 3 dB."""
    found = measure("depth unet")
    assert found["sqnr_db"] == pytest.approx(STATED["depth unet"]["sqnr_db"], abs=0.1)
    assert found["own_db"] == pytest.approx(STATED["depth unet"]["own_db"], abs=0.1)


def test_networks_that_there_are_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["sqnr", "vgg16"])
    with pytest.raises(SystemExit):
        main()
    assert "vgg16: the networks are depth vit, depth unet, " in capsys.readouterr().err
