"""Recipe files: an index of keys, every table with its keys, range estimators and presets."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_origin, get_type_hints

from quantizer import recipe_file
from quantizer.ranges import ESTIMATORS
from quantizer.recipe import ROLES, STAGES, Change, Format, Override, Recipe
from quantizer.rules import rules
from quartic.manual.docstrings import Said, attributes
from quartic.manual.guide import guide
from quartic.manual.markdown import cell, code, prose, table

ROLE_TABLES = "Tables " + ", ".join(f"`[{role}]`" for role in ROLES)
OVERRIDE = "Tables `[[override]]`"
RANGE = "Ranges"
TYPES: dict[Any, tuple[str, str]] = {
    bool: ("boolean", "`true`, `false`"),
    int: ("integer", "any"),
    float: ("number", "finite"),
    str: ("text", "any"),
    tuple: ("list of texts", "any"),
    Change: ("table", "keys of [weight]"),
}
"""Of TOML, and what it allows where no rule says more."""


@dataclass(frozen=True)
class Key:
    """A key as a recipe file writes it, in words."""

    name: str
    type: str
    allowed: str
    default: str
    words: str


def heading(stage: str) -> str:
    """Of a stage's table."""
    return f"Table `[{stage}]`"


def keys(kind: type) -> list[Key]:
    """Those of a table, in the order of the dataclass that is its schema."""
    hints, ruled = get_type_hints(kind), rules(kind)
    words = {row.name: row.words for row in attributes(kind)}
    found: list[Key] = []
    for row in fields(kind):
        if row.name == "range":
            said = "table", f"[range] by {', '.join(map(_toml, ESTIMATORS))}"
        else:
            said = TYPES[_plain(hints[row.name])]
        allowed = str(ruled[row.name]).replace("'", '"') if row.name in ruled else said[1]
        default = "" if row.default is MISSING else "-" if row.default in (None, "") else f"`{_toml(row.default)}`"
        found.append(Key(row.name, said[0], allowed, default, words.get(row.name, "")))
    return found


def _plain(hint: Any) -> Any:
    """The type of a value that is there."""
    given = [each for each in getattr(hint, "__args__", ()) if each is not type(None)]
    return get_origin(hint) or hint if get_origin(hint) is tuple else given[0] if given else hint


def _toml(value: object) -> str:
    return json.dumps(value)


def index() -> str:
    """Every key and table, from A to Z, with the tables that have it."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for key in ("base", "name", "description"):
        places[key].append("[top level]")
    for key in keys(Format):
        places[key.name].append("[weight] and the other roles")
    for role in ROLES:
        places[role].append(f"a table: [{role}]; inline in [[override]]")
    for key in keys(Override):
        if key.name not in ROLES:
            places[key.name].append("[[override]]")
    places["override"].append("tables: [[override]]")
    for stage, kind in STAGES.items():
        places[stage].append(f"a table: [{stage}]")
        for key in keys(kind):
            places[key.name].append(f"[{stage}]")
    places["by"].append("[range]")
    for kind in ESTIMATORS.values():
        for key in keys(kind):
            places[key.name].append("[range]")
    rows = ((f"`{key}`", ", ".join(dict.fromkeys(where))) for key, where in sorted(places.items()))
    return table(("key", "where"), rows)


def contents() -> str:
    """The tables of a recipe, each leading to its keys."""
    return ", ".join(["[[override]]" if name == "override" else f"[{name}]" for name, _ in references()][1:])


def references() -> Iterator[tuple[str, str]]:
    """Words in brackets and the headings that they lead to."""
    yield "top level", "Recipe files"
    yield from ((role, ROLE_TABLES) for role in ROLES)
    yield "override", OVERRIDE
    yield from ((stage, heading(stage)) for stage in STAGES)
    yield "range", RANGE


def files() -> Iterator[str]:
    """The section of recipe files."""
    intro, *shown, outro = re.split(r"\n\n", Said.of(recipe_file).text)
    sample = "\n\n".join("\n".join(line[4:] for line in part.splitlines()) for part in shown)
    yield f"{prose(intro)}\n\n```toml\n{sample}\n```\n\n{prose(outro)}\n"
    yield table(("key", "is", "meaning"), _top_level())
    yield f"### {ROLE_TABLES}\n\n{prose(Said.of(Format).summary)} What a file leaves out is as its base has it.\n"
    base = Recipe.load("w8a8").roles()
    rows = ((code(k.name), k.type, k.allowed, _of_roles(base, k.name), cell(k.words)) for k in keys(Format))
    yield table(("key", "type", "allowed", "in `w8a8`", "meaning"), rows)
    yield from _section(OVERRIDE, "override", Override)
    for stage, kind in STAGES.items():
        yield from _section(heading(stage), stage, kind)
    yield f"### {RANGE}\n\nAn estimator and its parameters, as `range = {{ by = \"percentile\", percent = 99.9 }}`.\n"
    yield guide("range")
    for name, kind in ESTIMATORS.items():
        yield f"#### `{name}`\n\n{prose(Said.of(kind).prose)} {_home(kind)}\n"
        yield _options(kind)


def _top_level() -> Iterator[tuple[str, ...]]:
    words = {row.name: row.words for row in attributes(Recipe)}
    yield "`base`", "text", "A preset, or another file, beside this one: what is not said is as there."
    for key in ("name", "description"):
        yield code(key), "text", cell(words[key])
    for role in ROLES:
        yield f"[{role}]", "table", cell(words[role])
    yield "[[override]]", "any number of tables", cell(words["overrides"])
    for stage in STAGES:
        yield f"[{stage}]", "table, or `false`", cell(words[stage])


def _of_roles(roles: Any, name: str) -> str:
    """The values of a key in all roles; one where they are equal."""
    values = {role: getattr(getattr(roles, role), name) for role in ROLES}
    said = {role: f"`{_toml(getattr(value, 'by', value))}`" for role, value in values.items()}
    if len(set(said.values())) == 1:
        return said["weight"]
    return ", ".join(f"{role} {value}" for role, value in said.items())


def _section(title: str, name: str, kind: type) -> Iterator[str]:
    yield f"### {title}\n\n{prose(Said.of(kind).prose)} {_home(kind)}\n"
    yield _options(kind)
    yield guide(name)


def _home(kind: type) -> str:
    return f"In Python: `{kind.__module__}.{kind.__name__}`."


def _options(kind: type) -> str:
    rows = ((code(k.name), k.type, k.allowed, k.default, cell(k.words)) for k in keys(kind))
    return table(("key", "type", "allowed", "default", "meaning"), rows)


def presets() -> str:
    """A table of the presets: widths by role, and stages."""
    rows = (_preset(Recipe.load(name)) for name in Recipe.presets())
    return table(("preset", *(f"[{role}]" for role in ROLES), "stages", "compiles", "description"), rows)


def _preset(recipe: Recipe) -> tuple[str, ...]:
    bits = (str(getattr(recipe.roles(), role).bits) for role in ROLES)
    stages = ", ".join(f"[{stage}]" for stage in recipe.stages) or "none"
    return code(recipe.name), *bits, stages, "yes" if recipe.compiles else "no", cell(recipe.description)
