"""The ``quartic`` command. One module per subcommand; each imports its heavy parts only when it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import typer

from isa.errors import QuarticError
from quartic.cli import (
    asm,
    assign,
    bench,
    check,
    compile,
    dis,
    doctor,
    machines,
    opt,
    quantize,
    recipes,
    report,
    run,
    sensitivity,
    sqnr,
)

app = typer.Typer(
    name="quartic",
    help="Compile quantized PyTorch models for the Quartic NPU and simulate them to the bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _module in (
    *(check, quantize, sqnr, sensitivity, assign, compile, run, report, bench, dis, asm, machines, recipes, doctor),
):
    app.command(_module.__name__.rpartition(".")[2])(_module.command)
app.command("opt", context_settings=opt.CONTEXT)(opt.command)


def _version(wanted: bool) -> None:
    if wanted:
        from quartic import __version__

        print(f"quartic {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def quiet() -> None:
    """Silence packages that log about their own optional parts on import, which is no message of ours."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits 0, or 2 with one message on standard error for anything that a user can cause."""
    quiet()
    try:
        app(arguments, prog_name="quartic")
    except QuarticError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        return
    print(f"quartic: error: {message}", file=sys.stderr)
    raise SystemExit(2)
