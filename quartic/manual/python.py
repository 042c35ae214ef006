"""Functions and classes of the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from isa.errors import QuarticError
from quartic.api import quantize
from quartic.manual.docstrings import Named, Said, attributes, members, parameters, signature
from quartic.manual.guide import guide
from quartic.manual.markdown import cell, code, prose, slug, table

PARAMETERS = ("parameter", "type", "default", "meaning")


def package(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """Public names of a package: functions first, then classes and the rest."""
    public = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    functions = {name: each for name, each in public.items() if not isinstance(each, type | str)}
    rows = ((f"[`{name}`](#{slug(name)})", cell(Said.of(each).summary)) for name, each in functions.items())
    yield table(("function", "what it does"), rows)
    for name, each in functions.items():
        yield from function(name, each)
    for name, each in public.items():
        if isinstance(each, str):
            yield f"### `{name}`\n\nThe version, as text: `{each}`.\n"
        elif name not in functions:
            yield from klass(name, each)


def classes(modules: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Classes by module, under their own names."""
    for module, names in modules.items():
        for name in names:
            yield from klass(name, getattr(import_module(module), name))


def function(name: str, value: Callable[..., Any]) -> Iterator[str]:
    """One function: call, words, parameters, example."""
    said = Said.of(value)
    yield f"### `{name}`\n"
    yield f"```py\n{signature(value, name)}\n```\n"
    yield prose(said.prose) + "\n"
    yield table(PARAMETERS, (_parameter(row) for row in parameters(value)))
    yield guide(name)
    yield example(said)


def example(said: Said) -> str:
    """A docstring's example as blocks that ``tests/test_docs.py`` runs; "" without one."""
    source, printed = said.example
    shown = f"\n```text\n{printed}```\n" if printed else ""
    return f"```python\n{source}```\n{shown}" if source else ""


def _parameter(row: Named) -> tuple[str, ...]:
    """Words of its own, or those of the same parameter of ``quartic.quantize``."""
    words = row.words or Said.of(quantize).parameters.get(row.name, "")
    return code(row.name), code(row.type), _default(row), cell(words[:1].upper() + words[1:])


def _default(row: Named) -> str:
    return code(row.default) if row.default else "required"


def klass(name: str, kind: type) -> Iterator[str]:
    """One class: words, what it is made of, and members."""
    said = Said.of(kind)
    yield f"### class `{name}`\n"
    if said.parameters:
        yield f"```py\n{signature(kind, name, result=False)}\n```\n"
    yield prose(said.prose) + "\n"
    if issubclass(kind, QuarticError):
        return
    if said.parameters:
        rows = (Named(row.name, row.type, row.default, said.parameters[row.name]) for row in parameters(kind))
        yield table(PARAMETERS, map(_parameter, rows))
    rows = attributes(kind)
    yield table(("field", *PARAMETERS[1:]), ((code(r.name), code(r.type), _default(r), cell(r.words)) for r in rows))
    yield table(("member", "gives", "meaning"), ((code(r.name), code(r.type), cell(r.words)) for r in members(kind)))
    yield guide(name)
