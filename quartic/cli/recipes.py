"""``quartic recipes``: how a model can be quantized."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from quartic.cli.console import Json, table


def command(
    name: Annotated[str | None, typer.Argument(help="A preset, or a TOML file, to print in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the presets, or print one as TOML, whole (a start for your own)."""
    from quantizer.recipe import ROLES, Recipe

    def row(recipe: Recipe) -> dict[str, object]:
        roles = recipe.roles()
        bits = {role: getattr(roles, role).bits for role in ROLES}
        return {"name": recipe.name, **bits, "compiles": recipe.compiles, "description": recipe.description}

    if name is not None:
        recipe = Recipe.load(name)
        print(json.dumps({**row(recipe), "toml": recipe.to_toml()}, indent=2) if as_json else recipe.to_toml().rstrip())
        return
    rows = [row(Recipe.load(each)) for each in Recipe.presets()]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        table("Recipes, in bits (32 is binary32)", list(rows[0]), [list(row.values()) for row in rows])
