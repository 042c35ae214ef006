"""Recipes as TOML files: a base and what differs, with errors that name file, table, key and the nearest valid key.

    base = "w4a8"                    # a preset, or another file
    description = "W4A8, the depth head at 8 bits"

    [activation]
    range = { by = "percentile", percent = 99.9 }

    [[override]]
    modules = "head"                 # or: layer = "first"
    why = "regression at 4 bits bands the depth"
    weight = { bits = 8 }

    [round]                          # a stage: on, with what the base or else the default says of the rest
    iterations = 20000

``compensate = false`` in place of a table turns off a stage of the base.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

from isa.description import listing, parse_toml
from isa.errors import DescriptionError, QuantizationError
from quantizer.ranges import ESTIMATORS, Estimator
from quantizer.recipe import ROLES, STAGES, Change, Format, Override, Recipe

PRESETS = Path(__file__).parent / "recipes"
DEEPEST = 16
"""Bases of bases: more is a cycle."""
KEYS = ("base", "name", "description", *ROLES, "override", *STAGES)
TEXT = ("modules", "layer", "why")
TYPES: dict[str, type] = {"bits": int, "symmetric": bool, "per": str}
Table = Mapping[str, Any]


def presets() -> tuple[str, ...]:
    """Names of the presets, sorted."""
    return listing(PRESETS)


def load(name_or_path: str | Path, depth: int = 0) -> Recipe:
    """A preset by name, or a recipe from a TOML file. Raises QuantizationError or DescriptionError."""
    if not isinstance(name_or_path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        kind = type(name_or_path).__name__  # pyright: ignore[reportUnreachable]
        raise QuantizationError(f"a recipe is a preset's name, the path of a TOML file or a Recipe, not {kind}")
    path = Path(name_or_path)
    if path.suffix != ".toml" and len(path.parts) == 1:
        if (name := str(name_or_path)) not in presets():
            raise QuantizationError(f"unknown recipe {name!r}: known recipes are {', '.join(presets())}")
        path = PRESETS / f"{name}.toml"
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text, or not a path"
        raise DescriptionError(f"recipe {str(name_or_path)!r}: {reason}; presets: {', '.join(presets())}") from None
    return read(text, str(path) if path.parent != PRESETS else path.name, path, depth)


def read(text: str, source: str, path: Path | None = None, depth: int = 0) -> Recipe:
    """The recipe in TOML ``text``. ``path`` is where it stood: a base that is a path is relative to its folder."""
    table = parse_toml(text, source)
    _check_keys(table, KEYS, f"{source}: top level")
    name, description, base = (_value(table, key, str, f"{source}:", "") for key in ("name", "description", "base"))
    name = name or (path.stem if path else "recipe")
    changes = {role: _change(table.get(role, {}), f"{source}: [{role}]") for role in ROLES}
    overrides = _overrides(table.get("override", []), source)
    with _naming(f"{source}:"):
        if not base:
            weight, activation = (_whole(changes[role], role) for role in ("weight", "activation"))
            rest = changes["elementwise"], changes["wide"], overrides, description
            return Recipe(name, weight, activation, *rest, **_stages(table, source))
        below = _base(base, path, depth)
        return Recipe(
            name,
            below.weight.changed(changes["weight"]),
            below.activation.changed(changes["activation"]),
            _joined(below.elementwise, changes["elementwise"]),
            _joined(below.wide, changes["wide"]),
            (*below.overrides, *overrides),
            description,
            **_stages(table, source, below),
        )


def _base(base: str, path: Path | None, depth: int) -> Recipe:
    if depth >= DEEPEST:
        raise DescriptionError(f"{DEEPEST} bases of bases: the chain of base = {base!r} does not end")
    beside = Path(base)
    if beside.suffix == ".toml" and path is not None:
        beside = path.parent / beside
    try:
        return load(beside, depth + 1)
    except QuantizationError as error:
        raise DescriptionError(f"base: {error}") from None


def _joined(first: Change, second: Change) -> Change:
    said = {row.name: value for row in fields(Change) if (value := getattr(second, row.name)) is not None}
    return dataclasses.replace(first, **said)


def _whole(change: Change, role: str) -> Format:
    """A change that says everything. Raises DescriptionError."""
    said = {row.name: getattr(change, row.name) for row in fields(Change)}
    if missing := [name for name, value in said.items() if value is None]:
        raise DescriptionError(f"[{role}] missing key {missing[0]!r}; give it, or a base that has it, as 'w8a8'")
    return Format(**said)


def _overrides(tables: object, source: str) -> tuple[Override, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise DescriptionError(f"{source}: override: must be tables, each under [[override]]")
    return tuple(_override(table, f"{source}: [[override]] {i}") for i, table in enumerate(tables, 1))


def _override(table: Table, where: str) -> Override:
    _check_keys(table, (*TEXT, *ROLES), where)
    texts = {key: _value(table, key, str, where, "") for key in TEXT}
    changes: dict[str, Any] = {role: _change(table[role], f"{where} {role}") for role in ROLES if role in table}
    with _naming(where):
        return Override(**texts, **changes)


def _change(table: Any, where: str) -> Change:
    if not isinstance(table, dict):
        raise DescriptionError(f"{where} = {table!r}: must be a table, as {{ bits = 8 }}")
    _check_keys(table, [row.name for row in fields(Change)], where)
    said = {key: _value(table, key, kind, where, None) for key, kind in TYPES.items()}
    estimator = _range(table["range"], f"{where} range") if "range" in table else None
    with _naming(where):
        return Change(**said, range=estimator)


def _range(table: Any, where: str) -> Estimator:
    names = ", ".join(ESTIMATORS)
    if not isinstance(table, dict) or "by" not in table:
        raise DescriptionError(f'{where}: must be a table with an estimator, as {{ by = "minmax" }}; known are {names}')
    by = _value(table, "by", str, where, "")
    if by not in ESTIMATORS:
        near = get_close_matches(by, ESTIMATORS, 1, 0.0)
        raise DescriptionError(f"{where} by = {by!r}: no such estimator; known are {names}; did you mean {near[0]!r}?")
    defaults = _parameters(ESTIMATORS[by]())
    _check_keys(table, ("by", *defaults), where)
    given = {key: _value(table, key, type(default), where, default) for key, default in defaults.items()}
    with _naming(where):
        return ESTIMATORS[by](**given)


def _stages(table: Table, source: str, below: Recipe | None = None) -> dict[str, Any]:
    """Every stage by name: as the base has it where the file says nothing, None where off."""
    found = {}
    for name, kind in STAGES.items():
        base, said, where = getattr(below, name, None), table.get(name), f"{source}: [{name}]"
        if said is None or said is False:
            found[name] = base if said is None else None
            continue
        if not isinstance(said, dict):
            raise DescriptionError(f"{where} = {said!r}: must be a table, or false to turn the stage off")
        known = get_type_hints(kind)
        _check_keys(said, known, where, listed=True)
        given = {key: _value(said, key, get_origin(known[key]) or known[key], where, None) for key in said}
        with _naming(where):
            found[name] = dataclasses.replace(base or kind(), **given)
    return found


def _parameters(estimator: Estimator) -> dict[str, Any]:
    return dataclasses.asdict(cast(Any, estimator))


def _value(table: Table, key: str, kind: type, where: str, default: Any) -> Any:
    if key not in table:
        return default
    value = table[key]
    if isinstance(value, Decimal) or (kind is float and type(value) is int):
        value = float(value)
    if kind is tuple and isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = tuple(value)
    if type(value) is not kind:  # bool is not accepted as int
        wanted = "a list of strings" if kind is tuple else kind.__name__
        raise DescriptionError(f"{where} {key} = {value!r}: must be {wanted}, not {type(value).__name__}")
    return value


def _check_keys(table: Table, known: Iterable[str], where: str, listed: bool = False) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            near = get_close_matches(key, names, 1, 0.0)
            all_of_them = f" Known are {', '.join(names)}" if listed else ""
            raise DescriptionError(f"{where} unknown key {key!r}; did you mean {near[0]!r}?{all_of_them}")


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Errors of values, which do not know where they stand, say where."""
    try:
        yield
    except DescriptionError as error:
        raise DescriptionError(f"{where} {error}" if not str(error).startswith(where) else str(error)) from None


def write(recipe: Recipe) -> str:
    """The whole recipe as TOML, without a base."""
    lines = [f"name = {_text(recipe.name)}"]
    if recipe.description:
        lines.append(f"description = {_text(recipe.description)}")
    for role in ROLES:
        if said := list(_said(getattr(recipe, role))):
            lines += ["", f"[{role}]", *said]
    for override in recipe.overrides:
        texts = [f"{key} = {_text(getattr(override, key))}" for key in TEXT if getattr(override, key)]
        changes = [f"{role} = {{ {', '.join(_said(change))} }}" for role, change in override.changes.items()]
        lines += ["", "[[override]]", *texts, *changes]
    for name, stage in recipe.stages.items():
        lines += ["", f"[{name}]", *_said(stage)]
    return "\n".join(lines) + "\n"


def _said(change: Any) -> Iterator[str]:
    """A dataclass as lines of TOML, without what is None."""
    for row in fields(change):
        value = getattr(change, row.name)
        if value is not None:
            yield f"{row.name} = {_scalar(value)}"


def _scalar(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _text(value)
        case int():
            return repr(value)
        case float():
            return repr(float(value))  # numpy's own says its type
        case tuple():
            return f"[{', '.join(map(_scalar, cast(tuple[Any, ...], value)))}]"
        case _:
            given = ", ".join(f"{key} = {_scalar(v)}" for key, v in {"by": value.by, **_parameters(value)}.items())
            return f"{{ {given} }}"


def _text(value: str) -> str:
    """JSON strings are TOML basic strings, except that TOML also forbids a bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
