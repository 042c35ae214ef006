"""``quartic check``: is this file or model in order, before anything is compiled or run?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quartic.cli.console import Json, progress, show

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from compiler.coverage import Coverage, Operator, Share

ALL = "all"


def command(
    target: Annotated[str, typer.Argument(help="A .qbin, or a .pt2: quantized, or float with --recipe.")],
    machine: Annotated[
        str | None, typer.Option(help="Machine that a model is checked against.  [default: edge28]")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="For a float model: the recipe to ask about, a preset or a TOML file (again for more; 'all' for every "
            "preset that compiles).  [default: w8a8]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a binary, word by word, or a model, operator by operator, and report what is wrong all at once.

    Of a model it says which share of operators and multiply-accumulates is supported at which width, and lists each
    refused operator with its module, line, rule and advice. Exits 1 where something is refused.
    """
    from isa.errors import InputError

    if target.endswith(".qbin"):
        if machine is not None or recipe:
            raise InputError(f"{target}: a binary holds its machine and its widths; leave out --machine and --recipe")
        show({"target": target, "ok": True, **_binary(Path(target))}, as_json)
        return
    result = {"target": target, **_model(Path(target), machine or "edge28", recipe or [])}
    print(json.dumps(result, indent=2) if as_json else "\n".join(_text(result)))
    if not result["ok"]:
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


def _model(path: Path, machine: str, recipes: list[str]) -> dict[str, Any]:
    from isa.errors import InputError
    from isa.machine import Machine
    from quantizer.flow import is_float
    from quartic.models import load_program

    Machine.load(machine)  # a mistyped name is said at once
    names = _recipes(recipes)
    with progress(f"loading {path.name}"):
        program = load_program(path)
    if not is_float(program):
        if recipes:
            raise InputError(f"{path}: is quantized already, so --recipe asks nothing of it; leave the option out")
        found = [_checked(program, machine)]
    else:
        graph, inputs = _captured(path, program)
        found = [{"recipe": name, **_checked(_quantized(graph, inputs, name), machine)} for name in names]
    return {"ok": all(each["ok"] for each in found), "machine": machine, "checks": found}


def _recipes(asked: list[str]) -> list[str]:
    from quantizer.recipe import Recipe

    if ALL in asked:
        known = {name: Recipe.load(name) for name in Recipe.presets()}
        return [name for name, recipe in known.items() if recipe.compiles and not recipe.stages]  # these change values
    for name in asked:
        Recipe.load(name)  # a mistyped name is said at once
    return list(dict.fromkeys(asked)) or ["w8a8"]


def _captured(path: Path, program: ExportedProgram) -> tuple[GraphModule, tuple[torch.Tensor, ...]]:
    """The float model for every recipe, and its example inputs."""
    from isa.errors import InputError
    from quantizer import capture

    inputs = program.example_inputs
    if inputs is None or inputs[1] or not inputs[0]:
        raise InputError(
            f"{path}: a float model is checked at the shapes of its example inputs, and it holds no positional ones; "
            "export it with torch.export.export(model, inputs)"
        )
    with progress(f"capturing {path.name}"):
        return capture(program.module(check_guards=False), inputs[0]), inputs[0]


def _quantized(graph: GraphModule, inputs: tuple[torch.Tensor, ...], recipe: str) -> GraphModule:
    """The model as ``quartic quantize`` would make it; its ranges mean nothing, and no support depends on them."""
    import quartic

    with progress(f"quantizing to {recipe}"):
        return quartic.quantize(graph, inputs, [inputs], recipe=recipe)


def _checked(graph: ExportedProgram | GraphModule, machine: str) -> dict[str, Any]:
    """Shares, refusals and, where nothing is refused, what the machine's own limits say."""
    import quartic
    from compiler.coverage import coverage
    from isa.errors import ScheduleError, UnsupportedError

    with progress("looking at every operator"):
        found = coverage(graph)
    result = {**_coverage(found), "refused": [_finding(each) for each in found.refused]}
    if found.refused:
        return {"ok": False, **result}
    try:
        with progress(f"checking against {machine}"):
            return {"ok": True, **result, "instructions": quartic.compile(graph, machine).instructions}
    except (UnsupportedError, ScheduleError) as error:
        return {"ok": False, **result, "limit": str(error)}


def _coverage(found: Coverage) -> dict[str, Any]:
    """Shares of operators and multiply-accumulates that are supported, in all and by width, most work first."""
    ranked = sorted(found.by_width.items(), key=lambda item: (-item[1].macs, -item[1].ops, item[0]))
    return {
        "total": {"operators": found.total.ops, "macs": found.total.macs},
        "supported": _share(found.supported, found.total),
        "widths": {width: _share(share, found.total) for width, share in ranked},
    }


def _share(part: Share, whole: Share) -> dict[str, Any]:
    return {
        "operators": part.ops,
        "operators_percent": 100.0 * part.ops / max(whole.ops, 1),
        "macs": part.macs,
        "macs_percent": 100.0 * part.macs / max(whole.macs, 1),
    }


def _finding(each: Operator) -> dict[str, Any]:
    return {
        "operator": each.target,
        "node": each.node,
        "module": each.module,
        "source": each.source,
        "macs": each.macs,
        "rule": each.rule,
        "advice": each.advice,
    }


def _text(result: Mapping[str, Any]) -> Iterator[str]:
    for i, each in enumerate(result["checks"]):
        if i:
            yield ""
        asked = f" at {each['recipe']}" if "recipe" in each else ""
        yield f"{result['target']}{asked}: {_verdict(each, result['machine'])}"
        yield from _table(each)
        yield from _refusals(each["refused"])
        if "limit" in each:
            yield f"{result['machine']} refuses it: {each['limit']}"


def _verdict(each: Mapping[str, Any], machine: str) -> str:
    if each["ok"]:
        return f"every operator is supported; {each['instructions']:,} instructions on {machine}"
    count = len(each["refused"])
    return f"{count} operator{'s' * (count > 1)} refused" if count else f"does not fit {machine}"


def _table(each: Mapping[str, Any]) -> Iterator[str]:
    """Operators and multiply-accumulates by width, the total and the whole last."""
    whole = each["total"]
    yield f"  {'width':<10} {'operators':>10} {'%':>6} {'MMAC':>12} {'%':>6}"
    for name, row in (*each["widths"].items(), ("supported", each["supported"])):
        yield (
            f"  {name:<10} {row['operators']:>10,} {row['operators_percent']:>6.1f} "
            f"{row['macs'] / 1e6:>12,.2f} {row['macs_percent']:>6.1f}"
        )
    yield f"  {'of':<10} {whole['operators']:>10,} {'':>6} {whole['macs'] / 1e6:>12,.2f}"


def _refusals(refused: list[dict[str, Any]]) -> Iterator[str]:
    """Every refused operator with its module and line, below the rule that it breaks and what to do."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in refused:
        groups.setdefault((each["operator"], each["rule"], each["advice"]), []).append(each)
    for i, ((operator, rule, advice), places) in enumerate(groups.items(), 1):
        yield f"{i}. {operator}: {rule}"
        yield f"   do: {advice}"
        for each in places:
            work = f", {each['macs'] / 1e6:,.2f} MMAC" if each["macs"] else ""
            where = filter(None, (f"node {each['node']}", f"module {each['module'] or '(root)'}", each["source"]))
            yield f"   - {', '.join(where)}{work}"
