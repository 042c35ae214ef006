"""``quartic opt``: any part of the compiler on MLIR text, or on a quantized model."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def command(context: typer.Context) -> None:
    """Run passes on .mlir text, or on a quantized .pt2 (`quartic opt --help` lists them)."""
    from compiler.opt import main

    raise typer.Exit(main(context.args, {"pt2": _imported}))


def _imported(file: IO[bytes]) -> ModuleOp:
    """The qnn module of a quantized model."""
    from compiler.frontend.export import import_graph
    from isa.errors import InputError
    from quartic.models import quantized_graph

    name = getattr(file, "name", None)
    if not isinstance(name, str) or not Path(name).is_file():
        raise InputError("a .pt2 is read whole from its file: name it, without --split-input-file")
    return import_graph(quantized_graph(name))
