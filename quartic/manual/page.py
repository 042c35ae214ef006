"""The page: its sections, in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import quantizer
import quartic
from quartic.manual import recipes
from quartic.manual.commands import command_line
from quartic.manual.docstrings import Said, one_line
from quartic.manual.guide import guide
from quartic.manual.markdown import cell, code, kinds, prose, slug, table
from quartic.manual.operators import operators
from quartic.manual.python import classes, example, package

INTRODUCTION = """
# The API

<!-- Generated from the code by `make golden`; edit the docstrings there, not this file. -->

All that is public, as the code itself says it. [The guide](guide/01-first-model.md) tells it in order.

* [Recipe keys from A to Z](#recipe-keys-from-a-to-z)
* [`quartic`](#quartic-the-verbs): the verbs, and [what they give](#what-the-verbs-give)
* [Recipe files](#recipe-files): {tables}
* [Presets](#presets)
* [`quantizer`](#quantizer-the-parts): the parts of `quartic.quantize`
* [Operators](#operators) of PyTorch that compile
* [Command line](#command-line)
* [Errors](#errors)
"""

RESULTS = {
    "runtime.session": ("Run",),
    "runtime.profile": ("Profile", "Row"),
    "quantizer.train.module": ("Trainable",),
    "quantizer.progress": ("Progress",),
    "quantizer.train.loop": ("Step",),
    "quantizer.sensitivity": ("Sensitivity", "LayerSensitivity"),
    "quartic.assigned": ("Assignment", "Round", "Cost", "Point"),
    "quantizer.report": ("Weight",),
    "quantizer.size": ("Size",),
}
"""Classes of what the verbs give, or tell ``progress``, that neither package exports."""


@cache
def manual() -> str:
    """The text of ``docs/api.md``."""
    return "\n".join(part.strip("\n") + "\n" for part in _parts() if part.strip())


def _parts() -> Iterator[str]:
    yield INTRODUCTION.format(tables=recipes.contents())
    yield "## Recipe keys from A to Z"
    yield recipes.index()
    yield "## `quartic`: the verbs"
    yield prose(Said.of(quartic).prose)
    yield example(Said.of(quartic))
    yield from package(quartic, quartic.__all__)
    yield "## What the verbs give"
    yield from classes(RESULTS)
    yield "## Recipe files"
    yield from recipes.files()
    yield "## Presets"
    yield recipes.presets()
    yield guide("presets")
    yield "## `quantizer`: the parts"
    yield prose(Said.of(quantizer).prose)
    yield example(Said.of(quantizer))
    yield from package(quantizer, quantizer.__all__)
    yield "## Operators"
    yield from operators()
    yield "## Command line"
    yield guide("command line")
    yield from command_line()
    yield "## Errors"
    yield from _errors()
    yield "".join(f"[{name}]: #{slug(heading)}\n" for name, heading in _references())


def _errors() -> Iterator[str]:
    first, *rest = kinds()
    yield prose(Said.of(first).prose)
    rows = ((code(kind.__name__), _bases(kind), cell(one_line(Said.of(kind).prose))) for kind in rest)
    yield table(("error", "is a", "raised for, and what it says"), rows)


def _bases(kind: type) -> str:
    return ", ".join(code(base.__name__) for base in kind.__bases__)


def _references() -> Iterator[tuple[str, str]]:
    """Words in brackets, which lead to headings."""
    yield from recipes.references()
    yield from ((kind.__name__, "Errors") for kind in kinds())
