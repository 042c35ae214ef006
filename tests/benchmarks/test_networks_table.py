"""The table of all networks: rows are kept one by one, an interrupted run goes on, and differences show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import networks
from benchmarks.bench import RESULTS
from benchmarks.networks import PROBES, RANDOM, Case, cases, fill, known, measured, report, table, verify
from benchmarks.probes import PLANTS, plant, probes, same_bits
from benchmarks.zoo import NETWORKS

WANTED = [Case("vit_s", 224, recipe, "edge28") for recipe in ("w8a8", "w4a8", "w4a4")]
ROW = {
    "inputs": ["random", "zeros"], "different": [], "instructions": 1234, "cycles": 5678, "seconds": 1e-3,
    "joules": 2e-3, "utilization": 0.5, "compile seconds": 3.0, "peak bytes": 2**30,
}  # fmt: skip


def test_every_network_of_the_issue_has_its_rows() -> None:
    rows = list(cases())
    assert len(rows) == 3 * (22 + 2 * len(PLANTS))
    assert [Case.named(case.key) for case in rows] == rows
    assert {case.network for case in rows} <= set(NETWORKS)
    assert [case.recipe for case in cases(["vit_s@224"])] == ["w8a8", "w4a8", "w4a4"]
    assert {case.weights for case in cases(["deit_t"])} == {"random"}
    assert [case.weights for case in cases(["deit_t@planted"], ["w4a8"])] == list(PLANTS)
    with pytest.raises(ValueError, match="vit_x: the networks are"):
        list(cases(["vit_x"]))


def test_every_row_is_stated_and_exact() -> None:
    rows = known(RESULTS / "networks.json")
    assert [case.key for case in cases() if case.key not in rows] == []
    assert [key for key, row in rows.items() if "error" in row or row["different"]] == []
    assert table(rows) in (RESULTS / "networks.md").read_text()


def test_every_stated_row_was_tried_on_a_random_and_an_extreme_input() -> None:
    tried = {key: set(row["inputs"]) for key, row in known(RESULTS / "networks.json").items()}
    assert [key for key, names in tried.items() if "random" not in names or names <= {"random", "uniform"}] == []


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "networks.json", []

    def measure(case: Case, names: Sequence[str], seconds: float | None) -> dict[str, object]:
        asked.append(case.recipe)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ROW if len(asked) != 3 else {"error": "ended with 1: MemoryError"}

    monkeypatch.setattr(networks, "measured", measure)
    with pytest.raises(KeyboardInterrupt):
        fill(path, WANTED, False, ["random"], None)
    assert list(json.loads(path.read_text())) == [WANTED[0].key]
    fill(path, WANTED, False, ["random"], None)  # the second row fails
    assert "MemoryError" in path.with_suffix(".md").read_text()
    rows = fill(path, WANTED, False, ["random"], None)
    assert asked == ["w8a8", "w4a8", "w4a8", "w4a4", "w4a8"]
    assert [row["different"] for row in rows.values()] == [[]] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["networks.json", "networks.md"]


def test_a_row_that_fails_when_it_is_measured_again_keeps_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = tmp_path / "networks.json", [ROW, {"error": "took more than 5 s"}, {**ROW, "cycles": 9}]
    monkeypatch.setattr(networks, "measured", lambda *_: found.pop(0))
    first = fill(path, WANTED[:1], False, ["random"], None)[WANTED[0].key]
    failed = fill(path, WANTED[:1], False, ["ties"], None)[WANTED[0].key]
    assert failed == {**first, "error": "took more than 5 s"}
    text = path.with_suffix(".md").read_text()
    assert "| 5,678 |" in text
    assert f"* {WANTED[0].key}: took more than 5 s" in text
    (row,) = fill(path, WANTED[:1], False, ["random"], None).values()
    assert row["cycles"] == 9
    assert "error" not in row


def test_a_row_of_fewer_inputs_than_are_asked_for_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "networks.json", []

    def measure(case: Case, names: Sequence[str], seconds: float | None) -> dict[str, object]:
        asked.append(names)
        return {**ROW, "inputs": names}

    monkeypatch.setattr(networks, "measured", measure)
    for names in (["random", "zeros"], ["zeros"], ["random", "ties"], ["ties"]):
        fill(path, WANTED[:1], False, names, None)
    assert asked == [["random", "zeros"], ["random", "zeros", "ties"]]


def test_rows_of_other_sources_are_measured_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, source, asked = tmp_path / "networks.json", ["old"], list[str]()

    def measure(case: Case, names: Sequence[str], seconds: float | None) -> dict[str, object]:
        asked.append(source[0])
        return ROW

    monkeypatch.setattr(networks, "measured", measure)
    monkeypatch.setattr(networks, "sources", lambda packages: source[0])
    fill(path, WANTED[:1], False, ["random"], None)
    source[0] = "new"
    for again in (False, True, True):
        (row,) = fill(path, WANTED[:1], again, ["random"], None).values()
    assert asked == ["old", "new"]
    assert row["sources"] == "new"


def test_the_report_names_what_differs_fails_and_is_missing() -> None:
    keys = [case.key for case in WANTED]
    rows = {keys[0]: {**ROW, "different": ["zeros"]}, keys[1]: {"error": "took more than 5 s"}}
    text = report(rows, WANTED, "")
    assert "**no**: zeros" in text
    assert f"* {keys[1]}: took more than 5 s" in text
    assert f"## Not run\n\n* {keys[2]}\n" in text
    line = table({keys[0]: ROW}).splitlines()[2]
    assert line.startswith("| vit_s | 224 | w8a8 | edge28 | random | yes | 1,234 | 5,678 |")
    assert "| random, zeros |" in table({keys[0]: ROW})
    assert "| all |" in table({keys[0]: {**ROW, "inputs": [*PROBES]}})


def test_the_page_says_which_sources_gave_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "sources", lambda packages: "today")
    monkeypatch.setattr(networks, "NOTES", {"before": "zeros alone", "long ago": "no bits"})
    path = tmp_path / "networks.json"
    digests = ("before", "today", None)
    rows = {case.key: {**ROW, "sources": digest} for case, digest in zip(WANTED, digests, strict=True)}
    del rows[WANTED[2].key]["sources"]
    path.write_text(json.dumps(rows))
    networks.main(["--report", "--output", str(path)])
    text = path.with_suffix(".md").read_text()
    assert [line.split(" | ")[-1] for line in text.splitlines() if line.startswith("| vit_s")] == [
        "before |", "today |", "- |",
    ]  # fmt: skip
    assert "\nRows of sources before: zeros alone.\n" in text
    assert "long ago" not in text
    assert "2 of these rows were measured with other sources than those of this table, today." in text


@pytest.mark.slow
def test_a_row_counts_the_inputs_whose_bits_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("pools", 14, "w4a4", "tiny")
    row = verify(case)
    assert (row["different"], row["inputs"]) == ([], list(probes((1,))))
    assert row["output std"] > 0
    compared = []

    def flip(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
        compared.append(same_bits(some, others))
        return len(compared) != 2

    monkeypatch.setattr("benchmarks.probes.same_bits", flip)
    assert verify(case, PROBES[:3])["different"] == ["uniform"]
    assert compared == [True] * 3


@pytest.mark.slow
def test_a_row_of_planted_weights_is_measured_with_them() -> None:
    wanted = [Case("vit_nano", 48, "w4a8", "tiny", weights) for weights in (RANDOM, "no variance")]
    plain, planted = (verify(case, ["random"]) for case in wanted)
    assert plain["different"] == planted["different"] == []
    assert plain["output std"] != planted["output std"]
    with pytest.raises(KeyError, match="has no parameter"):
        verify(Case("pools", 14, "w4a8", "tiny", "no variance"))


@pytest.mark.slow
def test_a_process_that_fails_says_why() -> None:
    assert "nothing like this" in measured(Case("nothing like this", 8, "w8a8", "tiny"), PROBES, 60)["error"]


def test_probes_are_what_they_say() -> None:
    found = probes((2, 3, 4, 5))
    assert (tuple(found), tuple(PLANTS)) == (PROBES, networks.PLANTS)
    assert all(x.shape == (2, 3, 4, 5) for x in found.values())
    assert found["no numbers"].isnan().any()
    assert 0 < found["denormals"].abs().max() < torch.finfo(torch.float32).tiny
    assert found["one spike"].count_nonzero() == 1


def test_bits_differ_where_values_are_equal() -> None:
    one = torch.tensor([0.0, float("nan"), torch.inf])
    assert same_bits([one], [one.clone()])
    negative = torch.tensor([0, -0x400000, 0x7F800000], dtype=torch.int32).view(torch.float32)
    assert negative.isnan().tolist() == one.isnan().tolist()
    assert not same_bits([one], [negative])
    others = (-0.0, torch.nan, torch.inf), (0.0, 0.0, torch.inf), (0.0, torch.nan, torch.finfo(torch.float32).max)
    assert not any(same_bits([one], [torch.tensor(other)]) for other in others)
    assert not any(same_bits([one], other) for other in ([one.double()], [one[None]], [one, one]))


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", PLANTS)
def test_planted_weights_are_scaled(name: str) -> None:
    model = NETWORKS["deit_t"].model(shape=(3, 48, 48))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    after = plant(model, name).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {next(s for s in PLANTS[name] if key.endswith(s)) for key in changed} == set(PLANTS[name])


def test_weights_that_a_network_lacks_cannot_be_planted() -> None:
    with pytest.raises(KeyError, match=r"has no parameter attn\.qkv\.bias, attn\.qkv\.weight"):
        plant(torch.nn.Linear(2, 2), "equal scores")
