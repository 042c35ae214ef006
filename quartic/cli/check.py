"""``quartic check``: is this file or model in order, before anything is compiled or run?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quartic.cli.console import Json, progress, show

if TYPE_CHECKING:
    from compiler.coverage import Coverage, Operator, Share


def command(
    target: Annotated[str, typer.Argument(help="A .qbin, or a quantized .pt2.")],
    machine: Annotated[str, typer.Option(help="Machine that a model is checked against.")] = "edge28",
    as_json: Json = False,
) -> None:
    """Check a binary, word by word, or a model, operator by operator, and report what is wrong all at once."""
    result = _binary(Path(target)) if target.endswith(".qbin") else _model(Path(target), machine)
    show({"target": target, "ok": True, **result}, as_json)
    if not result.get("ok", True):
        raise typer.Exit(1)


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
    from compiler.coverage import coverage
    from quartic.models import load_program

    with progress(f"loading {path.name}"):
        program = load_program(path)
    with progress("looking at every operator"):
        found = coverage(program)
    shares = _coverage(found)
    if found.refused:
        return {"ok": False, **shares, "refused": {str(i): _finding(each) for i, each in enumerate(found.refused, 1)}}
    with progress(f"checking against {machine}"):
        exe = quartic.compile(program, machine)
    return {**shares, "machine": exe.machine, "instructions": exe.instructions}


def _coverage(found: Coverage) -> dict[str, object]:
    """Shares of operators and multiply-accumulates that are supported, in all and by width."""
    return {
        "supported": _share(found.supported, found.total),
        "widths": {width: _share(share, found.total) for width, share in found.by_width.items()},
    }


def _share(part: Share, whole: Share) -> dict[str, object]:
    return {
        "operators": part.ops,
        "operators_percent": 100.0 * part.ops / max(whole.ops, 1),
        "macs": part.macs,
        "macs_percent": 100.0 * part.macs / max(whole.macs, 1),
    }


def _finding(each: Operator) -> dict[str, object]:
    return {
        "operator": each.target,
        "node": each.node,
        "module": each.module,
        "source": each.source,
        "macs": each.macs,
        "rule": each.rule,
        "do": each.advice,
    }
