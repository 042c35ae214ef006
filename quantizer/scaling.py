"""The stages that scale channels of a float graph before it is quantized: [smooth], [fold] and [polish].

Of an operand that several stages claim the last one decides: each would undo what those before it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import log10
from typing import Any

import torch
from torch.fx import GraphModule, Node

from isa.errors import QuantizationError
from quantizer.channels import Channels, Factors, observe
from quantizer.curves import BITS
from quantizer.factors import apply, can_shift, channels_of_weight
from quantizer.fold import Fold
from quantizer.operands import Operand, is_layer, operands
from quantizer.plan import matches, paths, plan
from quantizer.polish import ERROR
from quantizer.progress import Meter, Watch
from quantizer.recipe import CHANNEL, Recipe, Roles
from quantizer.trial import PIECES, Way, noises

SCALED = "quartic_scaled"
"""Key of a node's ``custom`` metadata for what was done to a layer's operand: a list of words by stage."""
LAST = "quartic_scaled_by"
"""Key of a node's ``custom`` metadata for the stage that scaled its operand."""
SCALING = ("smooth", "fold", "polish")
PER_CHANNEL = ("fold", "polish")
"""Stages behind which a scale per channel is one for all."""


def scaling_of(recipe: Recipe) -> dict[str, Any]:
    """The stages of ``recipe`` that scale channels, in their order."""
    stages = {name: stage for name, stage in recipe.stages.items() if name in SCALING}
    if "fold" not in stages and any(recipe.roles(o).activation.per == CHANNEL for o in [(), *zip(recipe.overrides)]):
        stages["fold"] = None  # of those layers alone that ask for it
    return {name: stages[name] for name in SCALING if name in stages}


def scale(
    graph: GraphModule,
    pieces: Iterable[tuple[torch.Tensor, ...]],
    recipe: Recipe,
    count: int | None = None,
    progress: Watch | None = None,
) -> GraphModule:
    """``graph``, a float graph in operators of the machine, with channels scaled as ``recipe`` says; in place.

    ``pieces`` are calibration inputs, ``count`` of them where that is known, one tensor per input of the graph. Raises
    QuantizationError for patterns that match no layer.
    """
    stages, roles = scaling_of(recipe), plan(recipe, graph).roles
    for name, stage in stages.items():
        _check(graph, recipe, name, stage)
    found = operands(graph)
    axes = {each.value: each.axis for each in found if not each.problem}
    percents = [stages["polish"].percent] if "polish" in stages else []
    first: list[tuple[torch.Tensor, ...]] = []
    seen = observe(graph, _keeping(pieces, first, Meter("observing channels", count, progress)), axes, percents)
    outcomes = {operand: _outcomes(graph, operand, stages, roles, seen) for operand in found}
    if "polish" in stages and stages["polish"].where == ERROR:
        _judge(graph, outcomes, first, roles, progress)
    foldable = {node: roles[node].weight.per == CHANNEL for node in graph.graph.nodes if is_layer(node)}
    for operand in found:
        _scale(graph, operand, outcomes[operand], roles, foldable)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def is_polished(layer: Node) -> bool:
    """Whether the channels of what ``layer`` reads are divided by the factors of LogNP."""
    return (layer.meta.get("custom") or {}).get(LAST) == "polish"


def why_not_per_channel(node: Node) -> str:
    """Why what ``node`` reads has not one scale per channel; "" where these are folded into its weights."""
    custom = node.meta.get("custom") or {}
    if custom.get(LAST) in PER_CHANNEL:
        return ""
    if not is_layer(node):
        return "scales per channel do not factor out of a sum of products of two activations (arXiv 1806.08342)"
    told = custom.get(SCALED) or ["scales are found on calibration batches, which quantize has, and prepare has not"]
    return told[0].removeprefix("fold: not here: ")


def _check(graph: GraphModule, recipe: Recipe, name: str, stage: Any) -> None:
    layers = [node for node in graph.graph.nodes if is_layer(node)]
    if stage is None or any(matches(layer, stage.modules) for layer in layers):
        return
    known = sorted({path for layer in layers for path in paths(layer)} - {""})
    near = {path: None for pattern in stage.modules for path in get_close_matches(pattern, known, 3, 0.0)}
    raise QuantizationError(
        f"recipe {recipe.title}: [{name}] modules = {list(stage.modules)}: match no layer of the model; near are "
        f"{', '.join(map(repr, list(near)[:3]))}; for all layers say modules = ['*']"
    )


def _keeping(
    pieces: Iterable[tuple[torch.Tensor, ...]], first: list[tuple[torch.Tensor, ...]], meter: Meter
) -> Iterator[tuple[torch.Tensor, ...]]:
    """``pieces``, of which ``first`` gets as many as a trial takes."""
    for piece in pieces:
        if len(first) < PIECES:
            first.append(piece)
        yield piece
        meter.done("inputs")


def _outcomes(
    graph: GraphModule,
    operand: Operand,
    stages: Mapping[str, Any],
    roles: Mapping[Node, Roles],
    seen: Mapping[Node, Channels],
) -> dict[str, Factors | str]:
    """What each stage that claims an operand makes of it, or why nothing; the last stage, which decides, first."""
    claims = [name for name, stage in stages.items() if _claims(name, stage, operand, roles)]
    if operand.problem:
        return dict.fromkeys(reversed(claims), operand.problem)
    given = seen[operand.value], _largest(graph, operand), can_shift(operand)
    return {name: (stages[name] or Fold()).factors(*given) for name in reversed(claims)}


def _judge(
    graph: GraphModule,
    outcomes: Mapping[Operand, dict[str, Factors | str]],
    pieces: Sequence[tuple[torch.Tensor, ...]],
    roles: Mapping[Node, Roles],
    progress: Watch | None,
) -> None:
    """Leave polishing where it makes the layers' outputs better than what the stages before it make of the operand."""
    ways: dict[Operand, tuple[Way, Way]] = {}
    for operand, found in outcomes.items():
        if isinstance(polished := found.get("polish"), Factors):
            others = (each for name, each in found.items() if name != "polish" and isinstance(each, Factors))
            ones = Factors(torch.ones(operand.channels, dtype=torch.float64))
            ways[operand] = Way(polished, True), Way(next(others, ones))
    for operand, (polished, plain) in noises(graph, pieces, ways, roles, progress).items():
        if polished >= plain:
            told = f"its product has an SQNR of {_decibels(polished)}, and of {_decibels(plain)} without"
            outcomes[operand]["polish"] = told


def _decibels(noise: float) -> str:
    """Of the signal over ``noise``, which is a share of it."""
    return f"{-10 * log10(noise):.2f} dB" if noise > 0 else "infinity"


def _scale(
    graph: GraphModule,
    operand: Operand,
    outcomes: Mapping[str, Factors | str],
    roles: Mapping[Node, Roles],
    foldable: dict[Node, bool],
) -> None:
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            tell(operand.layers, f"{name}: not here: {outcome}")
            continue
        places = ", ".join(dict.fromkeys(apply(graph, operand, outcome, foldable)))
        what = "scale and shift" if outcome.shift is not None else "scale"
        if name == "polish":
            coded = any(roles[layer].activation.bits == BITS for layer in operand.layers)
            what = f"{'LogNP codes' if coded else 'uniform codes'}, {what}"
        tell(operand.layers, f"{name}: {what} {places}")
        for layer in operand.layers:
            layer.meta["custom"][LAST] = name
        return


def _claims(name: str, stage: Any, operand: Operand, roles: Mapping[Node, Roles]) -> bool:
    """Whether a stage is for an operand: all of its layers, which share what they read."""
    formats = [roles[layer].activation for layer in operand.layers]
    if any(each.is_float for each in formats):
        return False
    if name == "fold" and all(each.per == CHANNEL for each in formats):
        return True
    return stage is not None and all(matches(layer, stage.modules) for layer in operand.layers)


def _largest(graph: GraphModule, operand: Operand) -> torch.Tensor:
    """Largest magnitudes of the weights that multiply a channel, [C]."""
    parts = [channels_of_weight(graph, layer).abs().amax((1, 3)).flatten() for layer in operand.layers]
    return torch.stack(parts).amax(0)


def tell(layers: Iterable[Node], words: str) -> None:
    """Leave on ``layers`` what was done to what they read, for the report."""
    for layer in layers:
        custom = layer.meta.get("custom") or {}
        layer.meta["custom"] = {**custom, SCALED: [*custom.get(SCALED, ()), words]}
