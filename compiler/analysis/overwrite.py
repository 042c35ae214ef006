"""Results that may take the place of an operand: a residual sum is written where the residual lay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from compiler.analysis.graph import KernelGraph, Step
from compiler.analysis.stripes import Group
from compiler.ir.kernel import CopyAnchor

ELEMENTWISE = frozenset({"stream", "row"})
"""Roles in which a tile reads no more of an operand than the elements, or the whole rows, that it writes."""


def overwrites(graph: KernelGraph, groups: Sequence[Group] = ()) -> dict[int, int]:
    """Index of a result's storage -> that of the operand whose bytes it may have, if both stay in SRAM.

    The kernel is the only one that writes the result and the last that reads the operand, both lie alike, and every
    element of the operand is read by the tile that overwrites it, before it does. ``groups`` share loops: there, no
    other kernel of the loop may read the operand.
    """
    writers = Counter(graph.placed[step.op.output].storage.index for step in graph.steps)
    found: dict[int, int] = {}
    for step in graph.steps:
        result = graph.placed[step.op.output].storage
        if result.region is not None or writers[result.index] > 1 or (old := _dying(graph, step)) is None:
            continue
        if not read_beside(graph, step, old, groups):
            found[result.index] = old
    return found


def read_beside(graph: KernelGraph, step: Step, storage: int, groups: Sequence[Group]) -> bool:
    """Whether another kernel of the step's loop touches ``storage``."""
    steps = (graph.steps[i] for g in groups if step.index in g.steps for i in g.steps if i != step.index)
    values = (v for other in steps for v in (*other.values, other.op.output) if v is not None)
    return any(graph.placed[v].storage.index == storage for v in values)


def _dying(graph: KernelGraph, step: Step) -> int | None:
    """The storage of the first operand of ``step`` that its result may overwrite."""
    spec = step.spec
    if spec.movement is not None or spec.pool is not None or isinstance(spec.anchor, CopyAnchor):
        return None
    roles: dict[int, set[str]] = {}
    for role, operand in spec.reads:
        roles.setdefault(operand, set()).add(role)
    places = [None if value is None else graph.placed[value] for value in step.values]
    out = graph.placed[step.op.output]
    for operand, found in roles.items():
        place = places[operand]
        if place is None or not found <= ELEMENTWISE or spec.dtypes[operand] is not spec.stored.output:
            continue
        old = place.storage
        alone = sum(p is not None and p.storage is old for p in places) == 1
        dies = old.region is None and old.first < step.index == old.last and old is not out.storage
        alike = (place.offset, place.strides, place.shape) == (out.offset, out.strides, out.shape)
        if alone and dies and alike and old.bytes == out.storage.bytes and spec.operands[operand] == spec.output:
            return old.index
    return None
