"""What code says of itself: words of fields, parameters and members, and examples, as the page of the API shows them.

A parameter's words are a line ``* ``name``: ...`` of the docstring, a field's the string below it in its class.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from doctest import DocTestParser, Example
from functools import cache, cached_property
from typing import Any

BULLET = re.compile(r"^\* ``(\w+)``: (.+?)(?=\n\* ``|\n\n|\Z)", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^>>> .*", re.MULTILINE | re.DOTALL)
RULED = re.compile(r"Annotated\[(.+?), .*\]")


@dataclass(frozen=True)
class Named:
    """A field, parameter or member: its name, type as the source has it, default in Python's words, and own words."""

    name: str
    type: str
    default: str
    words: str


@dataclass(frozen=True)
class Said:
    """A docstring, taken apart."""

    text: str

    @classmethod
    def of(cls, thing: object) -> Said:
        """That of a function, class or module; not an inherited one."""
        return cls(inspect.cleandoc(getattr(thing, "__doc__", None) or ""))

    @property
    def prose(self) -> str:
        """Paragraphs, without parameters and examples."""
        text = BULLET.sub("", PROMPT.sub("", self.text))
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    @property
    def summary(self) -> str:
        """The first paragraph, in one line."""
        return one_line(self.prose.split("\n\n")[0])

    @property
    def parameters(self) -> dict[str, str]:
        """Words of parameters by name."""
        return {name: one_line(words) for name, words in BULLET.findall(PROMPT.sub("", self.text))}

    @property
    def example(self) -> tuple[str, str]:
        """Code without prompts, and what it prints."""
        parts = [part for part in DocTestParser().parse(self.text) if isinstance(part, Example)]
        return "".join(part.source for part in parts), "".join(part.want for part in parts)


def one_line(text: str) -> str:
    """Words without line breaks."""
    return " ".join(text.split())


def parameters(function: Callable[..., Any]) -> list[Named]:
    """Those of a function or method, without ``self`` and ``cls``; words where the docstring has any."""
    words = Said.of(function).parameters
    rows = inspect.signature(function).parameters.values()
    return [
        Named(row.name, _type(row.annotation), default(row.default), words.get(row.name, ""))
        for row in rows
        if row.name not in ("self", "cls")
    ]


def signature(function: Callable[..., Any], name: str, result: bool = True) -> str:
    """The call in Python's words, types of parameters left out."""
    found = inspect.signature(function)
    rows = [row.replace(annotation=row.empty) for row in found.parameters.values() if row.name not in ("self", "cls")]
    call = str(found.replace(parameters=rows, return_annotation=found.empty)).replace("'", '"')
    return f"{name}{call}" + (f" -> {_type(found.return_annotation)}" if result else "")


def default(value: object) -> str:
    """A default in Python's words; "" where there is none."""
    if value is inspect.Parameter.empty:
        return ""
    return repr(value).replace("'", '"')


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return found[1] if (found := RULED.fullmatch(text)) else text


@cache
def attributes(kind: type) -> tuple[Named, ...]:
    """The fields of a dataclass, those it inherits with it; none of another class."""
    if not is_dataclass(kind):
        return ()
    words = {name: said for cls in reversed(kind.__mro__[:-1]) for name, said in _strings(cls)}
    return tuple(Named(row.name, _type(row.type), _default_of(row), words.get(row.name, "")) for row in fields(kind))


def _default_of(row: Any) -> str:
    if row.default_factory is not MISSING:
        return default(row.default_factory())
    return "" if row.default is MISSING else default(row.default)


def _strings(kind: type) -> Iterator[tuple[str, str]]:
    """Annotated names of a class's body, with the string below each."""
    body = _source(kind.__module__)[kind.__name__]
    for field, below in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            yield field.target.id, one_line(inspect.cleandoc(below.value.value))


@cache
def _source(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, parsed once for all of them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def members(kind: type) -> list[Named]:
    """Public properties and methods of a class, in its order; those that it inherits from its own package with it."""
    own = [cls for cls in reversed(kind.__mro__) if cls.__module__.split(".")[0] == kind.__module__.split(".")[0]]
    found = {name: value for cls in own for name, value in vars(cls).items() if not name.startswith("_")}
    return [row for name, value in found.items() if (row := _member(name, value)) is not None]


def _member(name: str, value: object) -> Named | None:
    if isinstance(value, property | cached_property):
        function = value.fget if isinstance(value, property) else value.func
        return Named(name, _type(inspect.signature(_some(function)).return_annotation), "", _words(function))
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if not inspect.isfunction(function):
        return None
    call = signature(function, name, result=False)
    return Named(call, _type(inspect.signature(function).return_annotation), "", _words(function))


def _some(function: Callable[..., Any] | None) -> Callable[..., Any]:
    assert function is not None, "properties are read"
    return function


def _words(function: object) -> str:
    """All that a member says, its parameters behind the rest, in one line."""
    said = Said.of(function)
    parts = [f"``{name}``: {words}" for name, words in said.parameters.items()]
    return one_line(" ".join([said.prose, *parts]))
