"""From TOML text to frozen dataclasses, with errors that name file, table, key, rule and nearest valid key.

The dataclass is the schema: its fields are the only keys, their types the only types.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from isa.errors import DescriptionError

LARGEST = 1 << 40
"""No quantity of a real machine is larger, and sums of products of two stay far from 64 bits' end."""


def within(minimum: int, maximum: int = LARGEST) -> Any:
    """A dataclass field whose integer must lie in ``minimum`` .. ``maximum`` (others in 1 .. LARGEST)."""
    return field(metadata={"range": (minimum, maximum)})


@dataclass(frozen=True)
class Checked:
    """Base of description tables: every integer is in 1 .. LARGEST, or in its field's range."""

    def __post_init__(self) -> None:
        for row in fields(self):
            value = getattr(self, row.name)
            low, high = row.metadata.get("range", (1, LARGEST))
            if isinstance(value, int) and value < low:
                raise DescriptionError(f"{row.name} = {value}: must be at least {low}")
            if isinstance(value, int) and value > high:
                raise DescriptionError(f"{row.name} = {value}: must be at most {high}")


T = TypeVar("T", bound=Checked)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """TOML text as nested dicts; a syntax error names ``source``."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:  # syntax, but also too many digits or levels
        raise DescriptionError(f"{source}: not TOML: {error}") from None


def read(cls: type[T], table: Mapping[str, Any], source: str, path: str = "") -> T:
    """Build dataclass ``cls`` from a TOML table; ``source`` and ``path`` only serve the messages.

    Raises DescriptionError on unknown and missing keys, wrong types and values that ``cls`` rejects.
    """
    hints = get_type_hints(cls)
    where = f"{source}: [{path}]" if path else f"{source}: top level"
    check_keys(table, hints, where)
    values: dict[str, Any] = {}
    for key, kind in hints.items():
        values[key] = _value(kind, key, table[key], source, where, path)
    try:
        return cls(**values)
    except DescriptionError as error:
        raise DescriptionError(f"{where} {error}") from None


def check_keys(table: Mapping[str, Any], expected: Iterable[str], where: str) -> None:
    """Every expected key is there, and no other; the error suggests the nearest valid key."""
    names = list(expected)
    missing = [key for key in names if key not in table]
    for key in table:
        if key in names:
            continue
        near = get_close_matches(key, missing or names, 1, 0.0)
        raise DescriptionError(f"{where} unknown key {key!r}; did you mean {near[0]!r}?")
    if missing:
        raise DescriptionError(f"{where} missing key {missing[0]!r}; required: {', '.join(names)}")


def _value(kind: type, key: str, value: Any, source: str, where: str, path: str) -> Any:
    if issubclass(kind, Checked):
        if not isinstance(value, dict):
            raise DescriptionError(f"{where} {key} = {value!r}: must be a table")
        inner = f"{path}.{key}" if path else key
        return read(kind, cast(dict[str, Any], value), source, inner)
    if kind is Decimal and type(value) is int:
        return Decimal(value)
    if type(value) is not kind:  # bool is not accepted as int, nor int as float
        shown, found = (value, "float") if type(value) is Decimal else (repr(value), type(value).__name__)
        wanted = "a number" if kind is Decimal else kind.__name__
        raise DescriptionError(f"{where} {key} = {shown}: must be {wanted}, not {found}")
    return value


def write(value: Checked, path: str = "") -> str:
    """Canonical TOML of a description: fields in class order, scalars before tables, no comments."""
    scalars: list[str] = []
    tables: list[str] = []
    for row in fields(value):
        item = getattr(value, row.name)
        if isinstance(item, Checked):
            tables.append(write(item, f"{path}.{row.name}" if path else row.name))
        else:
            scalars.append(f"{row.name} = {_scalar(item)}\n")
    head = f"\n[{path}]\n" if path else ""
    return head + "".join(scalars) + "".join(tables)


def _scalar(value: int | Decimal | str) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, str):
        # JSON strings are TOML basic strings, except that TOML also forbids a bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def find(name_or_path: str | Path, folder: Path, what: str) -> tuple[str, str]:
    """Text and display name of a shipped description (by name) or of a file (by path)."""
    if not isinstance(name_or_path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        kind = type(name_or_path).__name__  # pyright: ignore[reportUnreachable]
        raise DescriptionError(f"a {what} is a name or the path of a .toml file, not {kind}")
    path = Path(name_or_path)
    shipped = folder / f"{name_or_path}.toml"
    if path.suffix != ".toml" and len(path.parts) == 1 and shipped.is_file():
        return shipped.read_text("utf-8"), shipped.name
    try:
        return path.read_text("utf-8"), str(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text, or not a path"
        names = listing(folder)
        near = get_close_matches(str(name_or_path), names, 1, 0.0)[0]
        raise DescriptionError(
            f"{what} {str(name_or_path)!r}: {reason}; shipped: {', '.join(names)}; "
            f"nearest: {near!r}; or give the path of a .toml file"
        ) from None


def listing(folder: Path) -> tuple[str, ...]:
    """Names of the descriptions in ``folder``, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))
