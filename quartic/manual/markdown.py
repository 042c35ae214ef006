"""Words and tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from isa import errors
from isa.errors import QuarticError


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Rows under ``head``; "" without any."""
    columns, cells = list(head), list(rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) if cells else ""


def kinds() -> list[type[QuarticError]]:
    """All errors, a base in front of what derives from it."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, QuarticError)]


def prose(text: str) -> str:
    """Words of a docstring: a bare asterisk would start emphasis, and names of errors lead to theirs."""
    pieces = re.split(r"(`[^`]*`)", text.replace("``", "`"))
    return "".join(piece if i % 2 else _plain(piece) for i, piece in enumerate(pieces))


def _plain(text: str) -> str:
    known = "|".join(kind.__name__ for kind in kinds())
    return re.sub(rf"\b({known})\b", r"[\1]", text.replace("*", r"\*").replace("<", "&lt;"))


def cell(text: str) -> str:
    """Words of a docstring in a table."""
    return prose(text).replace("|", r"\|")


def code(text: str) -> str:
    """Code in a table."""
    return f"`{text}`".replace("|", r"\|")


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
