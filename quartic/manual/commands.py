"""The command line, of the application itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from typer.main import get_command

from quartic.cli import app
from quartic.manual.markdown import cell, code, slug, table


@cache
def commands() -> dict[str, Any]:
    """Subcommands by name, sorted."""
    group: Any = get_command(app)
    return dict(sorted(group.commands.items()))


def command_line() -> Iterator[str]:
    """A line for each subcommand, then each with its options."""
    found = commands().items()
    rows = ((f"[`{usage(name, each)}`](#{slug(f'quartic {name}')})", _summary(each)) for name, each in found)
    yield table(("command", "what it does"), rows)
    for name, each in found:
        yield f"### `quartic {name}`\n\n{cell(' '.join(each.help.split()))}\n"
        yield table(("option", "default", "meaning"), map(_option, each.params))


def _summary(command: Any) -> str:
    return cell(" ".join(command.help.split("\n\n")[0].split()))


def usage(name: str, command: Any) -> str:
    """As ``quartic compile MODEL --output OUTPUT [--machine MACHINE] ...``."""
    return " ".join(["quartic", name, *(_shown(each) for each in command.params)])


def _shown(parameter: Any) -> str:
    text = _name(parameter)
    return f"{text if parameter.required else f'[{text}]'}{'...' if parameter.multiple else ''}"


def _name(parameter: Any) -> str:
    """An argument in capitals, a flag, or an option with its value in capitals."""
    if parameter.param_type_name == "argument":
        return parameter.name.upper()
    names = "/".join((parameter.opts[0], *parameter.secondary_opts))
    return names if _is_flag(parameter) else f"{names} {parameter.name.upper()}"


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _option(parameter: Any) -> tuple[str, str, str]:
    names = [_name(parameter)] if parameter.param_type_name == "argument" else [_name(parameter), *parameter.opts[1:]]
    return ", ".join(map(code, names)), _default(parameter), cell(parameter.help or "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if not _is_flag(parameter):
        return "none" if parameter.default is None else code(str(parameter.default))
    if not parameter.secondary_opts:
        return "off"
    return code(parameter.opts[0] if parameter.default else parameter.secondary_opts[0])
