"""The generated page of the API: current, whole, every entry with words of its own, every link with an end."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import quantizer
import quartic
from quantizer.ranges import ESTIMATORS
from quantizer.recipe import STAGES, Change, Format, Override, Recipe
from quantizer.rules import Within
from quartic.manual.commands import commands
from quartic.manual.docstrings import Said, attributes, members, parameters, signature
from quartic.manual.markdown import kinds, slug
from quartic.manual.page import RESULTS, manual
from quartic.manual.recipes import keys

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
PACKAGES = (quartic, quantizer)


@cache
def sections() -> dict[str, str]:
    """Text below each heading of the page."""
    parts = re.split(r"^#+ (.*)\n", manual(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def public() -> Iterator[tuple[str, object]]:
    """Names that packages export, and what the verbs give."""
    for package in PACKAGES:
        yield from ((f"{package.__name__}.{name}", getattr(package, name)) for name in package.__all__)
    for module, names in RESULTS.items():
        yield from ((name, getattr(import_module(module), name)) for name in names)


def classes() -> list[type]:
    return [value for _, value in public() if isinstance(value, type)]


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == manual(), "docs/api.md is not current; run `make golden`"


@pytest.mark.slow
def test_the_module_writes_the_page_where_it_is_told(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "quartic.manual", tmp_path / "api.md"], cwd=ROOT, check=True)
    assert (tmp_path / "api.md").read_text() == manual()


def test_every_public_name_has_a_section_with_words() -> None:
    for name, value in public():
        text = sections()[f"{'class ' * isinstance(value, type)}`{name}`"]
        assert re.search(r"^\w|^`", text, re.M), name


def test_every_field_and_member_of_public_classes_has_words_of_its_own() -> None:
    said = [(kind, row) for kind in classes() for row in (*attributes(kind), *members(kind))]
    assert [f"{kind.__name__}.{row.name}" for kind, row in said if not row.words] == []
    for kind in (*STAGES.values(), *ESTIMATORS.values()):
        assert [f"{kind.__name__}.{key.name}" for key in keys(kind) if not key.words] == []


def test_every_parameter_of_a_method_is_named_in_its_words() -> None:
    missing = [
        f"{kind.__name__}.{row.name}: {name}"
        for kind in classes()
        for row in members(kind)
        for name in re.findall(r"(\w+)[,=)]", row.name.partition("(")[2])
        if not name.isdigit() and name not in ("None", "False", "True") and f"``{name}``" not in row.words
    ]
    assert missing == []


def test_no_cell_is_empty_and_tables_have_as_many_cells_as_columns() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", manual(), re.M):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, table
        assert all(cell.strip() for row in rows for cell in row), table


def test_every_key_of_a_recipe_is_in_the_index_and_in_its_table() -> None:
    index = sections()["Recipe keys from A to Z"]
    for kind in (Format, Override, *STAGES.values(), *ESTIMATORS.values()):
        assert [row.name for row in fields(kind) if f"| `{row.name}` |" not in index] == []
    for stage, kind in STAGES.items():
        rows = re.findall(r"^\| `(\w+)`", sections()[f"Table `[{stage}]`"], re.M)
        assert rows == [row.name for row in fields(kind)]


def test_presets_commands_and_errors_are_there() -> None:
    assert re.findall(r"^\| `([\w-]+)`", sections()["Presets"], re.M) == list(Recipe.presets())
    for name, command in commands().items():
        rows = re.findall(r"^\| `([\w-]+)", sections()[f"`quartic {name}`"], re.M)
        wanted = [row.name.upper() if row.param_type_name == "argument" else row.opts[0] for row in command.params]
        assert rows == wanted
    listed = re.findall(r"^\| `(\w+)`", sections()["Errors"], re.M)
    assert ["QuarticError", *listed] == [kind.__name__ for kind in kinds()]


def test_errors_that_docstrings_name_are_errors() -> None:
    known = {kind.__name__ for kind in (*kinds(), ValueError, *ESTIMATORS.values())}
    assert set(re.findall(r"\b[A-Z]\w*Error\b", manual())) - known == set()


def headings(text: str) -> list[str]:
    """Anchors of a document; a heading that occurs again gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        anchor = slug(heading)
        found.append(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def test_links_lead_to_headings() -> None:
    text = manual()
    own = set(re.findall(r"\]\(#([^)]+)\)", text)) | set(re.findall(r"^\[.*\]: #(.*)$", text, re.M))
    assert own - set(headings(text)) == set()
    for name, anchor in set(re.findall(r"\]\(([\w/.-]+\.md)#([^)]+)\)", text)):
        assert anchor in headings((ROOT / "docs" / name).read_text()), f"{name}#{anchor}"


def test_a_docstring_comes_apart() -> None:
    said = Said("A sum of ``a``\nand b.\n\n* ``a``: the first,\n  in m.\n* ``b``: other.\n\nRaises.\n\n>>> print(1)\n1")
    assert said.summary == "A sum of ``a`` and b."
    assert said.prose == "A sum of ``a``\nand b.\n\nRaises."
    assert said.parameters == {"a": "the first, in m.", "b": "other."}
    assert said.example == ("print(1)\n", "1\n")


def test_calls_types_and_defaults_are_as_the_source_has_them() -> None:
    assert signature(Recipe.load, "load") == "load(name_or_path) -> Recipe"
    (row,) = parameters(Recipe.load)
    assert (row.type, row.default) == ("str | Path", "")
    assert [(row.name, row.type, row.default) for row in attributes(Change)][:2] == [
        ("bits", "int | None", "None"),
        ("symmetric", "bool | None", "None"),
    ]


def test_what_a_key_allows_is_the_rule_that_checks_it() -> None:
    alpha = next(key for key in keys(STAGES["smooth"]) if key.name == "alpha")
    assert (alpha.type, alpha.allowed, alpha.default) == ("number", str(Within(0, 1)), "`0.5`")
