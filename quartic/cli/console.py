"""What every command shares: a result as a table or as JSON, and progress for what takes its time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
RecipeName = Annotated[str, typer.Option(help="A preset (`quartic recipes` lists them), or a TOML file.")]


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error that ``what`` is going on, with the time it takes, where a person is watching.

    Gives a function that says what is going on now.
    """
    if not sys.stderr.isatty():
        yield lambda _what: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda now: bar.update(task, description=now)


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print ``result`` as JSON, or one ``name  value`` per line; nested mappings are indented."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for line in _lines(result, ""):
        print(line)


def _lines(result: Mapping[str, Any], indent: str) -> Iterator[str]:
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list | tuple):
            yield f"{indent}{name:<{width}}  {', '.join(map(text, value))}"
        else:
            yield f"{indent}{name:<{width}}  {text(value)}"


def text(value: object) -> str:
    """A number as people read it: thousands separated, five significant digits for fractions."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return str(value)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print ``rows`` under ``head``, numbers to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(head):
        number = all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(text(value)) for value in row))
    console = Console(emoji=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)
    console.print(grid)
