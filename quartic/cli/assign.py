"""``quartic assign``: widths per layer within a budget of simulated latency or energy, or of noise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from quartic.cli.console import Json, progress, show
from quartic.files import read_text, writable, write_text


def command(
    model: Annotated[str, typer.Argument(help="model.pt2, file.py:function or package.module:function, in float.")],
    calibration: Annotated[
        Path, typer.Option(help="Inputs to calibrate and to measure on: .npy [count, ...], or .npz of one per input.")
    ],
    machine: Annotated[str, typer.Option(help="A machine's name (`quartic machines`), or a TOML file.")] = "edge28",
    latency: Annotated[str | None, typer.Option(help="The longest run, as 10ms: lose least within it.")] = None,
    energy: Annotated[str | None, typer.Option(help="The energy of a run, as 2mJ: lose least within it.")] = None,
    sqnr: Annotated[str | None, typer.Option(help="The output's SQNR, as 30dB: be cheapest at it.")] = None,
    minimise: Annotated[str | None, typer.Option(help="With --sqnr: latency (the default) or energy.")] = None,
    recipe: Annotated[str, typer.Option(help="Where all but the widths comes from: a preset or a TOML file.")] = "w8a8",
    by: Annotated[str, typer.Option(help="How losses are measured: sqnr, or fisher, but not with --sqnr.")] = "sqnr",
    sensitivity: Annotated[
        Path | None, typer.Option(help="Losses that `quartic sensitivity --json` wrote, instead of measuring them.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples to measure on; all of them calibrate.")] = 8,
    save: Annotated[Path | None, typer.Option(help="Write the recipe as TOML.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the front of assignments as an .html page.")] = None,
    points: Annotated[int, typer.Option(min=2, help="Budgets of the front.")] = 12,
    simulate: Annotated[int, typer.Option(min=0, help="Points of the front that are simulated.")] = 4,
    as_json: Json = False,
) -> None:
    """Give every layer a width: the least loss within a budget, simulated, as a recipe.

    Give one of --latency, --energy and --sqnr. The cost model predicts, the simulator confirms; both are printed.
    Losses are measured with the recipe's stages, but for those that learn ([round], [train]).
    """
    from isa.errors import InputError
    from isa.machine import Machine
    from quantizer.recipe import Recipe
    from quantizer.sensitivity import Sensitivity
    from quartic.assignment import Assigner, budget_of
    from quartic.cli.sensitivity import load, measured
    from quartic.quantities import quantity

    if minimise is not None and sqnr is None:
        raise InputError("--minimise is of --sqnr, at which latency or energy is least; leave it out, or give --sqnr")
    writable(save, plot, reads=(model, calibration, machine, recipe, sensitivity))
    decibels = None if sqnr is None else quantity(sqnr, "dB", "--sqnr", "30dB")
    budget = budget_of(
        None if latency is None else quantity(latency, "s", "--latency", "10ms"),
        None if energy is None else quantity(energy, "J", "--energy", "2mJ"),
        decibels,
        minimise or "latency",
    )
    target, start = Machine.load(machine), Recipe.load(recipe)
    text = None if sensitivity is None else read_text(sensitivity, "what `quartic sensitivity --json` wrote")
    found = None if text is None else Sensitivity.from_json(text, str(sensitivity))
    network, batches = load(model, calibration)
    losses = measured(network, batches, start, by, samples) if found is None else found
    with progress("assigning") as tell:
        assigner = Assigner(network, batches[0], batches, target, start, losses, samples, tell)
        made = assigner.assign(budget, decibels)
        front = assigner.front(points, simulate, budget.unit) if plot is not None else ()
    if save is not None:
        write_text(save, made.recipe.to_toml())
    if plot is not None:
        from quartic import plots

        plots.save(plots.front_figure(front, budget.unit, f"{model} on {target.name}"), plot)
    figures = {"model": model, **made.to_json()}
    show(figures if as_json else _summary(figures), as_json)


def _summary(figures: dict[str, Any]) -> dict[str, Any]:
    """Without the rounds, and how many layers have which width."""
    counts = Counter(figures["widths"].values())
    rest = {key: value for key, value in figures.items() if key not in ("rounds", "widths")}
    return {**rest, "rounds": len(figures["rounds"]), "layers": dict(counts), "widths": figures["widths"]}
