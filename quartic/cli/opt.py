"""``quartic opt``: any part of the compiler on MLIR text."""

from __future__ import annotations

import typer

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def command(context: typer.Context) -> None:
    """Run passes on .mlir text (`quartic opt --help` lists them)."""
    from compiler.opt import main

    raise typer.Exit(main(context.args))
