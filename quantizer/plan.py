"""Which overrides of a recipe apply to which node, and so how every operator's tensors are quantized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch.fx import GraphModule, Node

from isa.errors import QuantizationError
from quantizer.location import module_path
from quantizer.recipe import EMBEDDING, FIRST, Override, Recipe, Roles
from quantizer.spec import Kind, kind_of

APPLIED = "quartic_overrides"
"""Key of a node's ``custom`` metadata, which exported programs keep, for what of the recipe was special about it."""


@dataclass(frozen=True)
class Plan:
    """The formats of every call of a graph."""

    roles: Mapping[Node, Roles]
    applied: Mapping[Node, tuple[Override, ...]]
    """The overrides that were followed, in order; nodes without one are left out."""

    def mark(self) -> None:
        """Leave on every node what applied to it, for the report."""
        for node, overrides in self.applied.items():
            custom = node.meta.get("custom") or {}
            node.meta["custom"] = {**custom, APPLIED: [told(override) for override in overrides]}


def told(override: Override) -> str:
    """An override in words: what it names, what it changes, and why."""
    changes = "; ".join(f"{role} {change}" for role, change in override.changes.items())
    return f"{override.title}: {changes}" + (f" ({override.why})" if override.why else "")


def plan(recipe: Recipe, graph: GraphModule) -> Plan:
    """What ``recipe`` says of ``graph``. Raises QuantizationError for a pattern that matches nothing."""
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    applied: dict[Node, tuple[Override, ...]] = {}
    for override in recipe.overrides:
        nodes = _matched(override, calls)
        if override.modules and not nodes:
            raise QuantizationError(_nowhere(recipe, override, calls))
        if override.modules and override.weight and not any(kind_of(n) is Kind.WEIGHTED for n in nodes):
            raise QuantizationError(
                f"recipe {recipe.title}: override of {override.title}: changes weights, but none of the "
                f"{len(nodes)} operators that it matches has any; match the convolution or linear layer"
            )
        applied |= {node: (*applied.get(node, ()), override) for node in nodes}
    known: dict[tuple[Override, ...], Roles] = {(): recipe.roles()}
    for overrides in applied.values():
        if overrides not in known:
            known[overrides] = recipe.roles(overrides)
    return Plan({node: known[applied.get(node, ())] for node in calls}, applied)


def _matched(override: Override, calls: list[Node]) -> list[Node]:
    if override.modules:
        return [node for node in calls if matches(node, [override.modules])]
    layers = [node for node in calls if kind_of(node) is Kind.WEIGHTED]
    if override.layer == EMBEDDING:  # by name, as QuartDepth's released code chooses them
        return [node for node in layers if "embed" in module_path(node).lower()]
    ordered = calls if override.layer == FIRST else calls[::-1]
    beside = "all_input_nodes" if override.layer == FIRST else "users"
    behind: set[Node] = set()
    for node in ordered:
        if any(n in behind or kind_of(n) is Kind.WEIGHTED for n in getattr(node, beside)):
            behind.add(node)
    return [node for node in layers if node not in behind]


def matches(node: Node, patterns: Iterable[str]) -> bool:
    """Whether one of the paths of ``node`` fits one of ``patterns`` (``fnmatch``)."""
    return any(fnmatchcase(path, pattern) for pattern in patterns for path in paths(node))


def paths(node: Node) -> Iterator[str]:
    """The paths of the module that made ``node`` and of all around it, the innermost first, the root ("") last."""
    path = module_path(node)
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _nowhere(recipe: Recipe, override: Override, calls: list[Node]) -> str:
    known = sorted({path for node in calls for path in paths(node)} - {""})
    near = get_close_matches(override.modules, known, 3, 0.0)
    advice = f"near are {', '.join(map(repr, near))}" if near else "the model has no modules"
    return f"recipe {recipe.title}: override of {override.title}: matches no module of the model; {advice}"
