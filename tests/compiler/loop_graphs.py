"""Random graphs whose kernels can share loops, and schedules in which they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.memory import residency
from compiler.analysis.stripes import Group, share, stripe_rows, with_stripes
from compiler.analysis.tile_search import choose_schedule
from compiler.backend.emit import emit
from compiler.dialects import qnn, qnn_base
from compiler.dialects.qnn_base import shape_of
from compiler.ir.schedule import KernelSchedule, Schedule
from compiler.ir.signature import input_names, main_function, output_names
from compiler.passes.delay_kernels import delay_kernels
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.plan_memory import plan_module
from compiler.passes.tile_kernels import tile_kernels
from isa.container import Binary
from isa.machine import Machine
from tests.compiler.kern_graphs import CODES, RNG, add, conv, dq, graph, q

KINDS = ("conv", "conv", "depthwise", "pool", "resize", "act", "add", "concat")


def lowered(module: ModuleOp) -> ModuleOp:
    """A qnn module at the kern level, in the order in which its kernels run."""
    fuse_kernels(module)
    materialize_copies(module)
    delay_kernels(module)
    return module


def resized(x: SSAValue, kind: str, size: tuple[int, int]) -> SSAValue:
    """To ``size``, positions as for half-pixel centers (bilinear) or asymmetric (nearest)."""
    h, w = shape_of(x)[2:]
    if kind == "nearest":
        return qnn.Resize2dOp(x, kind, (h, w), size, (0, 0), size).output
    num, den = (2 * h, 2 * w), (2 * size[0], 2 * size[1])
    return q(qnn.Resize2dOp(x, kind, num, den, (h - size[0], w - size[1]), size).output)


@st.composite
def modules(draw: st.DrawFn, most: int = 8, batch: int | None = None) -> ModuleOp:
    """Up to ``most`` steps on maps of a few rows, of which the last value is the result; the others lead to it."""
    n = draw(st.sampled_from([1, 1, 2])) if batch is None else batch
    h, w, c = draw(st.integers(3, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 4))

    def body(x: SSAValue) -> SSAValue:
        RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state
        values = [q(x)]
        for _ in range(draw(st.integers(3, most))):
            values.append(draw(step(values)))
        return q(qnn.SigmoidOp(dq(values[-1])).output, CODES)

    module = graph([(n, c, h, w)], body)
    for op in reversed(list(module.walk())):
        if isinstance(op, qnn_base.QnnOp) and not any(result.uses.get_length() for result in op.results):
            op.detach()
            op.erase()
    return module


@st.composite
def step(draw: st.DrawFn, values: list[SSAValue]) -> SSAValue:
    """One more value, most often of the last one."""
    x = draw(st.sampled_from([values[-1]] * len(values) + values))
    _, c, h, w = shape_of(x)
    kind = draw(st.sampled_from(KINDS))
    peers = [v for v in values if shape_of(v) == shape_of(x)]
    level = [v for v in values if shape_of(v)[2:] == (h, w)]
    if kind in ("conv", "depthwise"):
        kernel, dilation, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
        reach = (kernel - 1) * dilation
        up = draw(st.integers(0, reach))
        down = max(draw(st.integers(0, reach)), reach + 1 - h - up)
        pad = (up, reach // 2 + 1, down, reach // 2 + 1)
        out, groups = (c, c) if kind == "depthwise" else (draw(st.integers(1, 5)), 1)
        options = {"pad": pad, "strides": (stride, 1), "dilation": (dilation, dilation), "groups": groups}
        return q(conv(x, out, kernel, **options))
    if kind == "pool" and min(h, w) > 1:
        stride = draw(st.integers(1, 2))
        return qnn.MaxPool2dOp(x, (2, 2), (stride, 1), (1, 1, 0, 1)).output
    if kind == "resize":
        size = draw(st.integers(max(2, h // 2), min(2 * h + 1, 20))), draw(st.integers(1, w + 1))
        return resized(x, draw(st.sampled_from(["nearest", "bilinear"])), size)
    if kind == "add" and len(peers) > 1:
        return q(add(dq(x), dq(draw(st.sampled_from([v for v in peers if v is not x])))))
    if kind == "concat" and len(level) > 1:
        return qnn.ConcatOp([x, draw(st.sampled_from([v for v in level if v is not x]))], 1).output
    return q(qnn.SigmoidOp(dq(x)).output, CODES)


@st.composite
def groups(draw: st.DrawFn, found: KernelGraph) -> Group | None:
    """Kernels that can share a loop, as many as there are or some; None where there are none."""
    spans = ((a, b) for b in range(len(found.steps)) for a in range(b))
    sharable = [Group(a, b) for a, b in spans if share(found, Group(a, b), whole(found, Group(a, b)))]
    if not sharable:
        return None
    longest = max(sharable, key=lambda group: (group.last - group.first, group.first))
    return longest if draw(st.booleans()) else draw(st.sampled_from(sharable))


def whole(found: KernelGraph, group: Group) -> tuple[int, ...]:
    """One stripe of all rows."""
    return (stripe_rows(found, group),)


@st.composite
def stripes(draw: st.DrawFn, rows: int) -> tuple[int, ...]:
    """Ends of stripes, some of them empty."""
    size = draw(st.integers(1, rows))
    even = (*range(size, rows, size), rows)
    uneven = (*sorted(draw(st.lists(st.integers(0, rows), max_size=rows))), rows)
    return draw(st.sampled_from([even, uneven]))


def sharing(
    found: KernelGraph,
    machine: Machine,
    loops: Mapping[Group, Sequence[int]],
    keep: frozenset[int] = frozenset(),
    slots: int = 2,
) -> Schedule:
    """A schedule in which each of ``loops`` is shared, with stripes of its last kernel that end so."""
    shared = {group: share(found, group, ends) for group, ends in loops.items()}
    held = keep.union(*(loop.held for loop in shared.values() if loop))
    rows: list[KernelSchedule] = []
    for step in found.steps:
        loop = next((loop for group, loop in shared.items() if loop and step.index in group.steps), None)
        ends = loop.ends[step.index] if loop else ()
        stays = residency(found, step, held)
        choice = choose_schedule(step.spec, step.nodes, stays, machine, machine.sram.bytes // 8, slots, ends)
        assert choice is not None
        row = with_stripes(choice[0], loop, step.index) if loop else choice[0]
        rows.append(replace(row, keep=found.placed[step.op.output].storage.index in keep))
    return Schedule(machine.name, tuple(rows))


def binary(module: ModuleOp, machine: Machine, schedule: Schedule) -> Binary:
    """The binary of a module at the kern level under a schedule; the module becomes a tiled one."""
    tile_kernels(module, machine, schedule)
    layout, plan = plan_module(module, machine)
    main = main_function(module)
    return emit(module, layout, plan, machine, (input_names(main), output_names(main)), {})


def kernel_graph(module: ModuleOp) -> KernelGraph:
    """The kernels of a qnn module, which is rewritten."""
    return build_graph(lowered(module))
