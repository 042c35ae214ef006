"""What is reconstructed at once: layers, or the blocks that a network repeats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.fx import Node

from quantizer.reconstruct.layer import Layer
from quantizer.reconstruct.options import BLOCK
from quantizer.reconstruct.walk import Walk


@dataclass(frozen=True)
class Unit:
    """Layers, and the places in the walk from the first of them to behind the last node whose result is compared."""

    name: str
    layers: tuple[Layer, ...]
    first: int
    end: int

    @property
    def layer(self) -> Layer | None:
        """Its only layer; None for a block."""
        return self.layers[0] if len(self.layers) == 1 else None


def units(walk: Walk, layers: Sequence[Layer], scope: str) -> list[Unit]:
    """All layers in units, in the order of the walk.

    A block is the smallest module that holds several layers and whose class occurs more than once among such; one
    inside another is part of it. A layer outside of any block is a unit. Units that overlap in the graph are one.
    """
    blocks = _blocks(layers) if scope == BLOCK else {}
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[blocks.get(layer, layer.attribute)].append(layer)
    found: list[Unit] = []
    for path, members in groups.items():
        places = [walk.place[layer.node] for layer in members]
        inside = [walk.place[node] for node in walk.nodes if blocks and path in dict(_modules(node))]
        name = path if path in blocks.values() else members[0].name
        found.append(Unit(name, tuple(members), min(places), max(places + inside) + 1))
    joined: list[Unit] = []
    for unit in sorted(found, key=lambda each: each.first):
        if joined and unit.first < joined[-1].end:
            before = joined.pop()
            unit = Unit(before.name, before.layers + unit.layers, before.first, max(before.end, unit.end))
        joined.append(unit)
    return joined


def results(walk: Walk, unit: Unit) -> list[Node]:
    """The nodes of a unit that depend on its weights and that others read."""
    depends = {layer.node for layer in unit.layers}
    for node in walk.nodes[unit.first : unit.end]:
        if depends.intersection(node.all_input_nodes):
            depends.add(node)
    return [node for node in walk.nodes[unit.first : unit.end] if node in depends and walk.last[node] >= unit.end]


def _blocks(layers: Sequence[Layer]) -> dict[Layer, str]:
    """The block of every layer that is in one, by its path."""
    held: dict[str, list[Layer]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for layer in layers:
        for path, kind in _modules(layer.node):
            held[path].append(layer)
            kinds[path] = kind
    often = Counter(kinds[path] for path, members in held.items() if len(members) > 1)
    fits = {path for path, members in held.items() if len(members) > 1 and often[kinds[path]] > 1}
    smallest = {
        layer: paths[-1] for layer in layers if (paths := [path for path, _ in _modules(layer.node) if path in fits])
    }
    chosen = set(smallest.values())
    return {
        layer: next(path for path, _ in _modules(layer.node) if path in chosen) for layer in layers if layer in smallest
    }


def _modules(node: Node) -> Iterator[tuple[str, str]]:
    """Paths and classes of the modules around a node, the outermost first."""
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        yield path.removeprefix("L['self'].").removeprefix("L['self']"), str(kind)
