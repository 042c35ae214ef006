"""QuartDepth's tables: rows that are kept and resumed, one of them end to end, and tables made from rows by hand."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import quartdepth
from benchmarks.bench import RESULTS
from benchmarks.depth import outliers, tables
from benchmarks.depth.findings import alike, findings
from benchmarks.depth.groups import FIELDS, groups
from benchmarks.depth.methods import ABLATION, CURVES, FACTORS, METHODS, TABLE1, WIDTHS, recipe
from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import trained
from benchmarks.depth.outliers import Outliers, of_network
from benchmarks.depth.scenes import SETS, TEST, VALIDATION
from benchmarks.quartdepth import APART, COUNTS, IMAGES, SCENES, SEEDS, Case, calibration, cases, fill, measure
from isa.errors import QuantizationError
from quantizer import Recipe, capture
from quantizer.operands import operands
from quantizer.plan import matches
from quantizer.polish import Polish

# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_share_the_formats_of_their_base(method: str, width: str) -> None:
    found = recipe(method, width)
    base = Recipe.load("w4a32" if method == "obs" else width)
    assert found.weight == base.weight
    assert found.overrides == base.overrides
    for one, other in ((found.activation, base.activation), (found.roles().elementwise, base.roles().elementwise)):
        assert (one.bits, one.symmetric, one.per) == (other.bits, other.symmetric, other.per)
    assert found.compiles == (method != "obs")


def test_methods_are_different_recipes() -> None:
    texts = [recipe(method, "w4a4").to_toml().partition("\n")[2] for method in METHODS]
    assert len(set(texts)) == len(METHODS)
    assert set(TABLE1) <= set(METHODS)


def test_the_ablation_is_every_subset_of_the_method_s_parts() -> None:
    assert len(ABLATION) == 2 ** len(FACTORS)
    assert ABLATION["rounding"] == ()
    assert ABLATION["printed"] == FACTORS
    assert [name for name in ABLATION if recipe(name, "w4a4").compensate] == [
        name for name, parts in ABLATION.items() if "compensation" in parts
    ]
    for name, parts in ABLATION.items():
        rounding = recipe(name, "w4a4").round
        assert rounding is not None
        assert rounding.metric == ("kfac" if "KFAC" in parts else "mse")
    with_, without = (set(ABLATION[name]) for name in CURVES.values())
    assert with_ - without == {"compensation"}
    assert without < with_


# ---------------------------------------------------------------- rows


def test_rows_come_once_and_have_every_draw() -> None:
    wanted = list(cases())
    assert len(wanted) == len(set(wanted)) == len({case.key for case in wanted})
    draws: dict[tuple[str, str, str, int], int] = {}
    for case in wanted:
        key = (case.network, case.width, case.method, case.images)
        draws[key] = draws.get(key, 0) + 1
    assert {count for key, count in draws.items() if key[2] != "float"} == {SEEDS}
    assert all(draws[network, "f32", "float", 0] == 1 for network in ("vit", "unet"))
    assert draws["unet", "w4a32", "obs", IMAGES] == SEEDS
    assert all(("vit", "w4a4", line, count) in draws for line in CURVES.values() for count in COUNTS)


def test_draws_of_calibration_scenes_do_not_meet_each_other_or_what_is_measured() -> None:
    assert max(COUNTS) <= APART
    assert APART * SEEDS < VALIDATION < TEST
    (one, depth), (other, _) = calibration(0, 2), calibration(1, 2)
    assert one[0].shape == (1, 3, 112, 112)
    assert depth[0].shape == (1, 1, 112, 112)
    assert not torch.equal(one[0], other[0])
    assert torch.equal(calibration(1, 1)[0][0], other[0])


def test_a_row_is_kept_for_its_recipe_data_and_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("vit", "w4a4", "percentile")
    digest = case.digest(24)
    assert digest == Case("vit", "w4a4", "percentile").digest(24)
    others = (Case("vit", "w4a4", "percentile", 16), Case("unet", "w4a4", "percentile"))
    changed = {case.digest(25), *(other.digest(24) for other in others)}
    monkeypatch.setitem(METHODS, "percentile", METHODS["minmax"])
    assert len({digest, case.digest(24), *changed}) == 5


@pytest.mark.slow
def test_a_row_is_measured_end_to_end_and_simulated() -> None:
    """The smallest: two calibration scenes, one measured per set."""
    import quartic

    row = measure(Case("unet", "w4a4", "minmax", 2), 1)
    assert row["exact"] is True
    images, _ = calibration(0, 2)
    batches = [(image,) for image in images]
    q = quartic.quantize(quartdepth.network("unet"), batches[0], batches, recipe("minmax", "w4a4"))
    assert list(row["metrics"]) == ["held out"]
    for name in row["metrics"]:
        image, truth = quartdepth.measured_on(name, 1)
        assert row["metrics"][name] == vars(Metrics.of(quartic.reference(q)(image)[0], truth))
    assert json.loads(json.dumps(row)) == row


def test_rows_of_table_2_are_measured_on_every_set() -> None:
    assert Case("vit", "w4a4", "ours").sets == Case("vit", "f32", "float", 0).sets == tuple(SETS)
    assert Case("vit", "w4a4", "ours", 8).sets == Case("vit", "w4a4", "minmax").sets == ("held out",)


@pytest.mark.slow
def test_weights_alone_are_measured_without_a_machine() -> None:
    row = measure(Case("unet", "w4a32", "obs", 2), 1)
    assert "exact" not in row
    assert 0 < row["metrics"]["held out"]["abs_rel"] < 0.5


@pytest.mark.slow
def test_float_rows_are_the_network_s_own() -> None:
    row = measure(Case("unet", "f32", "float", 0), 1)
    image, truth = quartdepth.measured_on("held out", 1)
    with torch.no_grad():
        assert row["metrics"]["held out"] == vars(Metrics.of(trained("unet")(image), truth))
    assert "exact" not in row


def said(case: Case, scenes: int = 1, abs_rel: float = 0.1, **more: Any) -> dict[str, Any]:
    """A row by hand: delta1 is 1 - AbsRel, the rest 0."""
    metrics = {name: {**dict.fromkeys(FIELDS, 0.0), "abs_rel": abs_rel, "delta1": 1 - abs_rel} for name in SETS}
    return {**vars(case), "digest": case.digest(scenes), "metrics": metrics, "quantize seconds": 1.0, **more}


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(case: Case, scenes: int) -> dict[str, Any]:
        asked.append(case.key)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return said(case, scenes)

    monkeypatch.setattr(quartdepth, "measure", measured)
    path, wanted = tmp_path / "rows.json", [Case("vit", "w4a4", "minmax", 8, seed) for seed in range(3)]
    with pytest.raises(KeyboardInterrupt):
        fill(path, wanted, 1, again=False)
    rows = fill(path, wanted, 1, again=False)
    assert asked == [wanted[0].key, wanted[1].key, wanted[1].key, wanted[2].key]
    assert list(rows) == [case.key for case in wanted]
    assert json.loads(path.read_text())["rows"] == rows
    fill(path, wanted[:1], 2, again=False)  # other scenes: measured again
    fill(path, wanted[:1], 2, again=True)
    assert asked[4:] == [wanted[0].key] * 2


def test_a_recipe_that_does_not_fit_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(case: Case, scenes: int) -> dict[str, Any]:
        raise QuantizationError("the recipe does not fit")

    monkeypatch.setattr(quartdepth, "measure", measured)
    case = Case("vit", "w4a4", "minmax", 8)
    assert fill(tmp_path / "rows.json", [case], 1, again=False)[case.key]["error"] == "the recipe does not fit"
    monkeypatch.setattr(quartdepth, "measure", said)
    assert "error" not in fill(tmp_path / "rows.json", [case], 1, again=False)[case.key]


# ---------------------------------------------------------------- tables


def rows(*given: tuple[str, str, str, float], images: int = IMAGES, spread: float = 0.01) -> list[dict[str, Any]]:
    """Three draws of each (network, width, method, AbsRel), ``spread`` apart around it."""
    return [
        said(Case(network, width, method, images, seed), abs_rel=abs_rel + (seed - 1) * spread, exact=True)
        for network, width, method, abs_rel in given
        for seed in range(3)
    ]


def test_draws_are_told_by_mean_and_standard_deviation() -> None:
    (group,) = groups(rows(("vit", "w4a4", "brecq", 0.2))).values()
    assert group.told("abs_rel") == "0.2000 ± 0.0100"
    assert group.told("delta1", digits=2) == "0.80 ± 0.01"
    (alone,) = groups([said(Case("vit", "f32", "float", 0))]).values()
    assert alone.told("abs_rel") == "0.1000"
    assert (group.exact, alone.exact) == ("yes", "")
    (wrong,) = groups([said(Case("vit", "w4a4", "mse"), exact=False)]).values()
    assert wrong.exact == "**no**"
    assert not groups([{**vars(Case("vit", "w4a4", "mse")), "error": "no"}])


def test_table_1_stands_beside_the_paper_s_rows() -> None:
    found = groups([*rows(("vit", "w4a4", "brecq", 0.2)), said(Case("vit", "f32", "float", 0))])
    lines = tables.table1(found, "vit", IMAGES).splitlines()
    assert lines[2] == "| float | 32 | 0.1000 | 0.9000 | 0.0000 | 0.0000 | 0.0000 | 0.00 |  |  | 0.087 | 0.938 |"
    assert lines[3].startswith("| BRECQ | W4A4 | 0.2000 ± 0.0100 | 0.8000 ± 0.0100 |")
    assert lines[3].endswith("| 1 | yes | 0.217 | 0.598 |")
    assert len(lines) == 4


def test_table_2_has_every_set_of_scenes() -> None:
    head, _, line = tables.table2(groups(rows(("unet", "w4a8", "ours", 0.2))), "unet", IMAGES).splitlines()
    assert head == "| method | W/A | " + " | ".join(SETS) + " |"
    assert line.count("0.200 ± 0.010 / 0.800") == len(SETS)


def test_effects_are_means_over_the_settings_of_the_other_parts() -> None:
    changes = {"KFAC": -0.01, "compensation": 0.03}
    errors = {name: 0.2 + sum(changes.get(part, 0) for part in parts) for name, parts in ABLATION.items()}
    found = groups(rows(*(("vit", "w4a4", name, error) for name, error in errors.items())))
    lines = tables.effects(found, "vit", IMAGES).splitlines()
    settings = 2 ** (len(FACTORS) - 1)
    assert f"* KFAC: AbsRel -0.0100 in the mean, less in {settings} of {settings} settings" in lines
    assert f"* compensation: AbsRel +0.0300 in the mean, less in 0 of {settings} settings" in lines
    assert len(tables.ablation(found, "vit", IMAGES).splitlines()) == 2 + 2 ** len(FACTORS)


def finding(text: str, start: str) -> str:
    (line,) = (line for line in text.splitlines() if start in line)
    return line


@pytest.mark.slow
def test_findings_say_what_reproduces_and_what_does_not() -> None:
    names = [name for name in TABLE1 if name not in ("obs", "mse", "printed")]
    falling = dict(zip(names, (0.9, 0.5, 0.4, 0.3, 0.2, 0.101), strict=True))
    given = [("vit", width, name, error) for width in WIDTHS for name, error in falling.items()]
    text = findings(groups([*rows(*given, spread=0.0), said(Case("vit", "f32", "float", 0))]), IMAGES)
    assert finding(text, "at W4A4 AbsRel falls").startswith("* reproduces: vit: ")
    assert finding(text, "within 2% of float").startswith("* reproduces")
    assert finding(text, "beats BRECQ in delta1 at W4A4").startswith("* reproduces")
    assert finding(text, "min/max breaks at W4A4").startswith("* **does not reproduce**")
    worse = [(net, width, name, 0.25 if name == "ours" else error) for net, width, name, error in given]
    text = findings(groups([*rows(*worse), said(Case("vit", "f32", "float", 0))]), IMAGES)
    assert finding(text, "at W4A4 AbsRel falls").endswith("ours 0.2500; ours is above brecq)")
    assert finding(text, "beats BRECQ in AbsRel at W4A4").startswith("* **does not reproduce**")
    assert finding(text, "within 2% of float").startswith("* **does not reproduce**")
    assert finding(text, "at W4A4 ours beats BRECQ on 0 of 4 other sets (none)").startswith("* **does not reproduce**")
    assert findings({}, IMAGES) == ""


def test_what_lognp_does_is_read_off_the_rows() -> None:
    without, others = CURVES["with compensation"], {"printed": 0.3, "ours": 0.19}
    given = [("vit", "w4a4", name, error) for name, error in {without: 0.2, **others}.items()]
    text = findings(groups(rows(*given)), IMAGES)
    assert finding(text, "LogNP of the whole decoder helps at W4A4").startswith("* **does not reproduce**: vit: ")
    line = finding(text, "LogNP where the error falls helps at W4A4")
    assert line.startswith("* reproduces: vit: ")
    assert line.endswith("(0.1900 ± 0.0100 with, 0.2000 ± 0.0100 without, within the spread of the draws)")


def test_methods_are_alike_where_every_metric_is() -> None:
    given = [(net, "w4a4", name, 0.2) for net in ("vit", "unet") for name in ("printed", "ours")]
    assert alike(groups(rows(*given)), IMAGES).splitlines() == [
        "* vit: at W4A4 *as printed* and *ours* are the same",
        "* unet: at W4A4 *as printed* and *ours* are the same: what its decoder reads joins skip connections that its "
        "encoder reads too, so no factor can be folded there",
    ]
    other = [(net, "w4a4", name, 0.2 if name == "ours" else 0.3) for net, _, name, _ in given]
    assert alike(groups(rows(*other)), IMAGES) == ""
    assert alike(groups(rows(*given[:1])), IMAGES) == ""


@pytest.mark.slow
def test_no_factor_can_be_folded_in_the_u_net_s_decoder() -> None:
    """What the report gives as the reason."""
    graph = capture(trained("unet"), quartdepth.measured_on("held out", 1)[0])
    read = [each for each in operands(graph) if matches(each.layers[0], Polish().modules)]
    assert read
    assert all(" reads " in each.problem for each in read)


def test_the_curve_is_a_table_and_a_picture() -> None:
    given = [("vit", "w4a4", method, error) for method, error in zip(CURVES.values(), (0.2, 0.3), strict=True)]
    found = [row for i, count in enumerate(COUNTS) for row in rows(*given, images=count, spread=0.01 * i)]
    lines = tables.curve(groups(found))
    assert [x for x, _, _ in lines["without"]] == list(COUNTS)
    assert tables.table8(lines).splitlines()[4] == "| 32 | 0.2000 ± 0.0200 | 0.3000 ± 0.0200 |"
    picture = tables.figure8(lines)
    assert picture is not None
    assert picture.count("<circle") == 2 * len(COUNTS)
    assert tables.figure8({name: line[:1] for name, line in lines.items()}) is None


def test_a_full_table_does_not_speak_of_missing_rows() -> None:
    keys = [case.key for case in cases()]
    assert tables.progress({key: {} for key in keys}, keys) == ""
    assert tables.progress({key: {"error": "no"} for key in keys}, keys).startswith(f"**0 of {len(keys)} rows")


@pytest.mark.slow
def test_results_are_three_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"encoder": Outliers(3, 1, 1.5, 2.5, 3.5, 4.5), "decoder": Outliers(3, 1, 1.6, 2.4, 3.5, 4.5)}
    monkeypatch.setattr(outliers, "of_network", lambda model, images: parts)
    (row, *_) = rows(("unet", "w4a4", "minmax", 0.2))
    found = {Case("unet", "w4a4", "minmax").key: row}
    text = quartdepth.write(tmp_path, found, 1)
    assert (tmp_path / "quartdepth.md").read_text() == text
    assert json.loads((tmp_path / "quartdepth.json").read_text())["rows"] == found
    assert "| min/max | W4A4 |" in text
    assert "| ViT + DPT | encoder | 3 | 1 | 1.50 | 2.50 | 3.50 | 4.50 |" in text
    assert f"**1 of {len(list(cases()))} rows are measured**" in text
    assert "Figures are means over 1 draws ±" in text
    assert finding(text, "vit: outliers are the decoder's").startswith("* **does not reproduce**")
    assert "(median 1.60 to 1.50, 90th percentile 2.40 to 2.50)" in text
    titles = ("What reproduces", "Table 1", "Table 2", "Fig. 8", "Ablation", "Outliers")
    assert all(a < b for a, b in pairwise(text.index(f"## {title}") for title in titles))


# ---------------------------------------------------------------- outliers


def test_outliers_by_hand() -> None:
    """Magnitudes 1 .. 20 but for one: its 95th percentile is 19 + 0.05 * (the largest - 19)."""
    model = nn.ModuleDict({"encoder": nn.Conv2d(2, 3, 1), "head": nn.Linear(2, 1)})
    model.forward = lambda x: model["head"](x.flatten(2).transpose(1, 2)) + model["encoder"](x).mean()  # type: ignore[method-assign]
    plain = torch.arange(1.0, 21.0)
    spiked = torch.where(plain == 20, 119.0, plain) * torch.where(plain % 2 == 0, 1, -1)
    found = of_network(model, [torch.stack([plain, spiked]).reshape(1, 2, 4, 5)] * 2)
    for part in ("encoder", "decoder"):
        assert found[part].channels == 2
        assert found[part].most == pytest.approx(119 / 24)
        assert found[part].median == pytest.approx((119 / 24 + 20 / 19.05) / 2)
        assert found[part].spread == pytest.approx(119 / 20)  # torch's median is the lower of the two
    sparse = of_network(model, [torch.stack([plain, torch.zeros(20)]).reshape(1, 2, 4, 5)])
    assert sparse["encoder"].sparse == 1
    assert sparse["encoder"].most == pytest.approx(20 / 19.05)


# ---------------------------------------------------------------- what is stated


@pytest.mark.slow
def test_the_stated_rows_are_of_these_checkpoints_and_had_the_simulator_s_bits() -> None:
    """A row whose recipe, data or checkpoint is another would be measured again by the command."""
    stated = json.loads((RESULTS / "quartdepth.json").read_text())["rows"]
    known = {case.key: case for case in cases()}
    for key, row in stated.items():
        assert row["digest"] == known[key].digest(SCENES)
        assert row.get("exact", True) is True
    assert all("exact" in stated[key] for key in stated if key.endswith(" 0") and " w4a4 " in key)
