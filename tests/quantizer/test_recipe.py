"""Recipes: presets, files that build on each other, what wins, and every mistake by file, table and key."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isa.errors import DescriptionError, QuantizationError
from quantizer.ranges import Average, Entropy, MeanError, MinMax, Percentile
from quantizer.recipe import STAGES, Change, Format, Override, Recipe
from quantizer.recipe_file import read
from quantizer.reconstruct.options import Round

WEIGHT = Format(8, True, "channel", MinMax())
ACTIVATION = Format(8, False, "tensor", Average())
WIDTHS = {
    "w8a8": (8, 8, 8, 16),
    "w4a8": (4, 8, 8, 16),
    "w4a4": (4, 4, 8, 16),
    "w8a16": (8, 16, 16, 16),
    "w16a16": (16, 16, 32, 32),
    "f32": (32, 32, 32, 32),
    "w8a32": (8, 32, 32, 32),
    "w4a32": (4, 32, 32, 32),
}


def load(folder: Path, text: str, name: str = "mine.toml") -> Recipe:
    (folder / name).write_text(text)
    return Recipe.load(folder / name)


def test_presets_are_these() -> None:
    assert {name for name in Recipe.presets() if not Recipe.load(name).stages} == set(WIDTHS)


STAGED = {
    "qat-w8a8": ["train"],
    "qat-w4a8": ["train"],
    "qat-w8a4": ["train"],
    "w4a8-adaround": ["round"],
    "w4a4-adaround": ["round"],
    "w4a8-brecq": ["round"],
    "w4a4-brecq": ["round"],
    "w4a8-gptq": ["round"],
    "w4a8-quartdepth": ["compensate", "round"],
    "w4a4-quartdepth": ["polish", "compensate", "round"],
}


def test_presets_with_stages_are_these() -> None:
    found = {name: list(stages) for name in Recipe.presets() if (stages := Recipe.load(name).stages)}
    assert found == STAGED


@pytest.mark.parametrize("name", STAGED)
def test_a_preset_with_stages_reads_back_equal(name: str) -> None:
    assert read(Recipe.load(name).to_toml(), "again") == Recipe.load(name)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_preset_says_widths_and_at_16_bits_the_range(name: str) -> None:
    """16 bits have room for all that was seen, and as much again."""
    recipe = Recipe.load(name)
    common = dataclasses.replace(ACTIVATION, range=MinMax(1.0)) if WIDTHS[name][1] == 16 else ACTIVATION
    weight, activation, elementwise, wide = WIDTHS[name]
    roles = recipe.roles()
    assert (recipe.name, recipe.title, recipe.overrides) == (name, name, ())
    assert roles.weight == dataclasses.replace(WEIGHT, bits=weight)
    assert roles.activation == dataclasses.replace(common, bits=activation)
    assert roles.elementwise == dataclasses.replace(common, bits=elementwise)
    assert roles.wide == dataclasses.replace(common, bits=wide)


def test_what_compiles_is_quantized_on_both_sides_or_on_none() -> None:
    assert {name for name in WIDTHS if not Recipe.load(name).compiles} == {"w8a32", "w4a32"}
    assert {name for name in WIDTHS if Recipe.load(name).is_float} == {"f32"}
    assert not Recipe.load("f32").with_overrides(Override("a", weight=Change(8))).is_float


def test_a_file_says_what_differs_from_its_base(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        """
        base = "w4a8"
        description = "mine"
        [weight]
        symmetric = false
        per = "tensor"
        range = { by = "mse", power = 2.4 }
        [activation]
        range = { by = "percentile", percent = 99 }
        [[override]]
        modules = "head.*"
        why = "regression"
        weight = { bits = 8 }
        """,
    )
    assert (recipe.name, recipe.description) == ("mine", "mine")
    roles = recipe.roles()
    assert roles.weight == Format(4, False, "tensor", MeanError(power=2.4))
    assert roles.activation == Format(8, False, "tensor", Percentile(percent=99.0))
    assert roles.wide == Format(16, False, "tensor", Percentile(percent=99.0))
    assert recipe.overrides == (Override("head.*", why="regression", weight=Change(bits=8)),)


def test_a_base_may_be_a_file_beside_and_its_overrides_come_first(tmp_path: Path) -> None:
    load(tmp_path, 'base = "w4a4"\n[[override]]\nlayer = "first"\nweight = { bits = 8 }\n', "below.toml")
    recipe = load(tmp_path, 'base = "below.toml"\n[[override]]\nlayer = "last"\nweight = { bits = 16 }\n')
    assert [o.layer for o in recipe.overrides] == ["first", "last"]
    assert recipe.roles().activation.bits == 4


def test_the_last_override_wins_field_by_field() -> None:
    recipe = Recipe.load("w4a4")
    first = Override("*", weight=Change(bits=8, range=MeanError()), activation=Change(bits=8))
    last = Override("head", weight=Change(bits=16), wide=Change(range=MinMax()))
    roles = recipe.roles([first, last])
    assert roles.weight == Format(16, True, "channel", MeanError())
    assert (roles.activation.bits, roles.elementwise.bits, roles.wide.bits) == (8, 8, 16)
    assert (roles.activation.range, roles.wide.range) == (Average(), MinMax())


@pytest.mark.parametrize("name", Recipe.presets())
def test_written_presets_read_back_equal(name: str) -> None:
    recipe = Recipe.load(name)
    assert read(recipe.to_toml(), "again") == recipe


def test_every_field_reads_back_equal() -> None:
    recipe = dataclasses.replace(
        Recipe.load("w4a4"),
        name='"quoted" \x7f Ω',
        description="line\nbreak",
        weight=Format(4, False, "tensor", Entropy(bins=512, steps=7)),
        wide=Change(32, True, "tensor", Percentile(bins=256, percent=99.5)),
        overrides=(
            Override("a.*", why="because", weight=Change(per="channel", range=MeanError(power=1.5, steps=9))),
            Override(layer="last", activation=Change(16, True), elementwise=Change(range=Average(0.1, False))),
        ),
    )
    assert read(recipe.to_toml(), "again") == recipe


def test_a_changed_preset_is_said_to_be_changed(tmp_path: Path) -> None:
    assert Recipe.load("w8a8").with_overrides(Override("a", weight=Change(4))).title == "w8a8, changed"
    assert load(tmp_path, 'base = "w4a8"', "w8a8.toml").title == "w8a8, changed"
    assert load(tmp_path, 'base = "w4a8"').title == "mine"


FILES = [
    ("bass = 'w8a8'", "top level unknown key 'bass'; did you mean 'base'?"),
    ("base = 'w8a8'\n[weights]\nbits = 4", "top level unknown key 'weights'; did you mean 'weight'?"),
    ("base = 'w8a8'\n[weight]\nbit = 4", "[weight] unknown key 'bit'; did you mean 'bits'?"),
    ("base = 'w8a8'\n[weight]\nbits = 5", "[weight] bits = 5: must be one of 4, 8, 16, 32 (binary32)"),
    ("base = 'w8a8'\n[weight]\nbits = true", "[weight] bits = True: must be int, not bool"),
    ("base = 'w8a8'\n[weight]\nbits = 4.0", "[weight] bits = 4.0: must be int, not float"),
    ("base = 'w8a8'\n[weight]\nper = 'row'", "[weight] per = 'row': must be one of 'channel', 'tensor'"),
    ("base = 'w8a8'\nweight = 4", "[weight] = 4: must be a table, as { bits = 8 }"),
    (
        "base = 'w8a8'\n[weight]\nrange = 'mse'",
        '[weight] range: must be a table with an estimator, as { by = "minmax" }; known are minmax, average, ',
    ),
    (
        "base = 'w8a8'\n[activation]\nrange = { by = 'percentil' }",
        "[activation] range by = 'percentil': no such estimator; known are minmax, average, percentile, mse, entropy; "
        "did you mean 'percentile'?",
    ),
    (
        "base = 'w8a8'\n[activation]\nrange = { by = 'mse', percent = 99 }",
        "[activation] range unknown key 'percent'; did you mean 'power'?",
    ),
    (
        "base = 'w8a8'\n[activation]\nrange = { by = 'percentile', percent = 0.99 }",
        "[activation] range percent = 0.99: must be above 50 and at most 100",
    ),
    ("base = 'w8a8'\n[activation]\nrange = { by = 'mse', steps = 9.5 }", "range steps = 9.5: must be int, not float"),
    ("base = 'f32'\n[train]\nsteps = 3", "[train]: the recipe quantizes nothing; leave the stage out, or give formats"),
    ("[weight]\nbits = 8", "[weight] missing key 'symmetric'; give it, or a base that has it, as 'w8a8'"),
    ("base = 'w9a9'", "base: unknown recipe 'w9a9': known recipes are f32, "),
    ("base = 'gone.toml'", "gone.toml': No such file or directory; presets: f32, "),
    ("base = 'mine.toml'", "bases of bases: the chain of base = 'mine.toml' does not end"),
    ("base = 8", "base = 8: must be str, not int"),
    ("base = 'w8a8'\noverride = 3", "override: must be tables, each under [[override]]"),
    ("base = 'w8a8'\n[[override]]\nmodule = 'a'", "[[override]] 1 unknown key 'module'; did you mean 'modules'?"),
    ("base = 'w8a8'\n[[override]]\nweight = { bits = 4 }", "an override names either modules, by a pattern, or "),
    ("base = 'w8a8'\n[[override]]\nmodules = 'a'", "override]] 1 modules 'a': changes nothing; say how, as weight = {"),
    (
        "base = 'w8a8'\n[[override]]\nlayer = 'second'\nweight = { bits = 4 }",
        "[[override]] 1 layer = 'second': must be one of 'first', 'last', 'embedding'",
    ),
    (
        "base = 'w8a8'\n[weight]\nrange = { by = 'minmax', headroom = 0.5 }",
        "weight: headroom is for values that calibration did not see, and weights are constant: leave it out",
    ),
    (
        "base = 'w8a8'\n[weight]\nrange = { by = 'entropy' }",
        "weight: the range by 'entropy' needs more values than a channel has: say per = 'tensor', or take another",
    ),
    (
        "base = 'w8a8'\n[weight]\nrange = { by = 'average' }",
        "weight: the range by 'average' is of batches, and weights are constant: say 'minmax'",
    ),
    (
        "base = 'w8a8'\n[elementwise]\nper = 'channel'",
        "elementwise: per = 'channel' is for weights, and for what layers with weights read, which take the",
    ),
    (
        "base = 'w8a8'\n[[override]]\nmodules = 'a'\nwide = { per = 'channel' }",
        "override of modules 'a': wide: per = 'channel' is for weights",
    ),
    ("base = ", "not TOML: "),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_mistake_in_a_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DescriptionError) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'mine.toml'}: ")
    assert message in str(error.value)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    known = ", ".join(Recipe.presets())
    with pytest.raises(QuantizationError, match=f"unknown recipe 'w3a5': known recipes are {known}"):
        Recipe.load("w3a5")


def test_a_file_that_is_missing_lists_the_presets() -> None:
    with pytest.raises(DescriptionError, match=r"recipe 'gone.toml': No such file or directory; presets: f32, "):
        Recipe.load("gone.toml")


def test_what_is_no_recipe_is_named() -> None:
    with pytest.raises(QuantizationError, match=r"a recipe is a preset's name, the path of a TOML file or .* not int"):
        Recipe.load(8)


@dataclass(frozen=True)
class Stage:
    """One of every type of field."""

    on: bool = True
    count: int = 3
    share: float = 0.5
    how: str = "so"
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count > 9:
            raise DescriptionError(f"count = {self.count}: must be at most 9")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe's [round] is a ``Stage``."""
    monkeypatch.setitem(STAGES, "round", Stage)


@pytest.mark.usefixtures("stage")
def test_a_stage_is_off_until_its_table_is_there() -> None:
    assert Recipe.load("w4a8").stages == {}
    assert read("base = 'w4a8'\n[round]", "f").stages == {"round": Stage()}


@pytest.mark.usefixtures("stage")
def test_a_stage_inherits_key_by_key_and_is_turned_off_by_false(tmp_path: Path) -> None:
    load(tmp_path, "base = 'w4a8'\n[round]\ncount = 5\nshare = 1\nmodules = ['a', 'b']", "below.toml")
    above = load(tmp_path, "base = 'below.toml'\n[round]\nhow = 'thus'")
    assert above.stages == {"round": Stage(True, 5, 1.0, "thus", ("a", "b"))}
    assert load(tmp_path, "base = 'below.toml'").stages == {"round": Stage(True, 5, 1.0, "so", ("a", "b"))}
    assert load(tmp_path, "base = 'below.toml'\nround = false").stages == {}
    assert read(above.to_toml(), "again") == above


STAGE_ERRORS = [
    (
        "[round]\ncounts = 3",
        "f: [round] unknown key 'counts'; did you mean 'count'? Known are on, count, share, how, modules",
    ),
    ("[round]\ncount = 3.5", "f: [round] count = 3.5: must be int, not float"),
    ("[round]\nmodules = 'a'", "f: [round] modules = 'a': must be a list of strings, not str"),
    ("[round]\nmodules = [1]", "f: [round] modules = [1]: must be a list of strings, not list"),
    ("[round]\ncount = 10", "f: [round] count = 10: must be at most 9"),
    ("round = true", "f: [round] = True: must be a table, or false to turn the stage off"),
]


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize(("text", "message"), STAGE_ERRORS)
def test_a_mistake_in_a_stage_is_named(text: str, message: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape(message)):
        read(f"base = 'w4a8'\n{text}", "f")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_a_field_and_reads_back_equal(name: str) -> None:
    recipe = dataclasses.replace(Recipe.load("w4a8"), **{name: STAGES[name]()})
    assert read(recipe.to_toml(), "again") == recipe


OPTIONS = [
    (dict(method="up"), "method = 'up': must be one of 'nearest', 'adaround', 'gptq'"),
    (dict(scope="model"), "scope = 'model': must be one of 'layer', 'block'"),
    (dict(metric="mae"), "metric = 'mae': must be one of 'mse', 'fisher', 'kfac'"),
    (dict(target="input"), "target = 'input': must be one of 'output', 'weight'"),
    (dict(iterations=0), "iterations = 0: must be at least 1"),
    (dict(batch=0), "batch = 0: must be at least 1"),
    (dict(drop=1.5), "drop = 1.5: must be in 0 .. 1"),
    (dict(damping=-1.0), "damping = -1.0: must be at least 0"),
    (dict(rate=0.0), "rate = 0.0: must be above 0"),
    (dict(rate=float("nan")), "rate = nan: must be a finite number"),
    (dict(regulariser=float("inf")), "regulariser = inf: must be a finite number"),
    (dict(beta_last=1.0), "beta_last = 1.0: must be above 1"),
    (dict(beta_first=1.5), "beta_first = 1.5, beta_last = 2.0: must not rise"),
    (dict(scope="block", method="gptq"), "method = 'gptq' is of layers: say scope = 'layer', or 'adaround'"),
    (dict(method="gptq", metric="kfac"), "metric = 'kfac' is of 'adaround': say metric = 'mse', or that method"),
    (dict(method="nearest", metric="fisher"), "metric = 'fisher' is of 'adaround': say metric = 'mse', or that method"),
    (dict(scope="block", metric="kfac"), "metric = 'kfac' is of layers: say scope = 'layer', or another metric"),
    (dict(scope="block", target="weight"), "target = 'weight' is of layers: say scope = 'layer', or another target"),
]


@pytest.mark.parametrize("stage", ["polish", "compensate", "round", "train"])
def test_every_number_of_a_stage_is_finite(stage: str) -> None:
    for row in dataclasses.fields(STAGES[stage]):
        if isinstance(row.default, float):
            with pytest.raises(DescriptionError, match=rf"f: \[{stage}\] {row.name} = nan: must be a finite number"):
                read(f"base = 'w4a8'\n[{stage}]\n{row.name} = nan", "f")


@pytest.mark.parametrize(("given", "message"), OPTIONS)
def test_what_cannot_be_rounded_so_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape(message)):
        Round(**given)
