"""``quartic check``: is this file or model in order, before anything is compiled or run?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, show


def command(
    target: Annotated[str, typer.Argument(help="A .qbin, or a quantized .pt2.")],
    machine: Annotated[str, typer.Option(help="Machine that a model is checked against.")] = "edge28",
    as_json: Json = False,
) -> None:
    """Check a binary, word by word, or a model, operator by operator, and report what is wrong all at once."""
    result = _binary(Path(target)) if target.endswith(".qbin") else _model(Path(target), machine)
    show({"target": target, "ok": True, **result}, as_json)


def _binary(path: Path) -> dict[str, object]:
    from isa.program import decode
    from quartic.executable import Executable

    program = Executable.load(path).binary
    return {
        "machine": program.machine.name,
        "instructions": len(decode(program.code)),
        "inputs": [f"{info.name} {info.dtype.name.lower()} {list(info.shape)}" for info in program.inputs],
        "outputs": [f"{info.name} {info.dtype.name.lower()} {list(info.shape)}" for info in program.outputs],
        "provenance": dict(program.provenance),
    }


def _model(path: Path, machine: str) -> dict[str, object]:
    import quartic
    from quartic.models import load_program

    with progress(f"loading {path.name}"):
        program = load_program(path)
    with progress(f"checking against {machine}"):
        exe = quartic.compile(program, machine)
    return {"machine": exe.machine, "instructions": exe.instructions}
