"""Kernels that share a loop: neighbours run stripe by stripe in turn, and what lies between them is never whole.

The last kernel's stripes are chosen; every other kernel makes, in each stripe, the rows that the kernels after it read
then and that are not there yet, or the same share of its rows if only kernels behind the loop read them. Rows that are
read again in the next stripe (halo) are carried over on chip, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from compiler.analysis.cost import aligned
from compiler.analysis.graph import KernelGraph, Placed, Step, Storage
from compiler.ir.kernel import CopyAnchor, MatrixAnchor, Shape4
from compiler.ir.place import Stripes
from compiler.ir.schedule import KernelSchedule, Schedule
from compiler.ir.tiling import Box, Range, Tile, Tiling
from isa.errors import ScheduleError

ELEMENT_ROLES = frozenset({"act", "stream", "row", "pooled"})
"""Roles in which a stripe of the result reads a stripe of the operand."""


@dataclass(frozen=True)
class Group:
    """Kernels ``first`` .. ``last`` of the program, which share a loop."""

    first: int
    last: int

    @property
    def steps(self) -> range:
        """Their numbers."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class Shared:
    """A group with its stripes: where those of each kernel end, and the rings of what lies between kernels."""

    group: Group
    ends: Mapping[int, tuple[int, ...]]
    delays: Mapping[int, int]
    """How many stripes each kernel is behind: the engines that kernels need differ, and work on different stripes."""
    held: Mapping[int, Stripes]
    """By index of the storage."""

    @property
    def ring_bytes(self) -> int:
        """SRAM that the rings take."""
        return sum(ring.slots * ring.slot_bytes for ring in self.held.values())


def groups_of(rows: Sequence[KernelSchedule]) -> tuple[Group, ...]:
    """The shared loops of the kernels of a program, in its order."""
    found: list[Group] = []
    first = 0
    for index, row in enumerate(rows):
        if not row.shares:
            if index > first:
                found.append(Group(first, index))
            first = index + 1
    return tuple(found)


def stripe_rows(graph: KernelGraph, group: Group) -> int:
    """Rows of the result of a group's last kernel (columns if it has one row)."""
    shape = graph.steps[group.last].spec.output
    return shape[_axis(shape)]


def widened(first: int, last: int, groups: Sequence[Group]) -> tuple[int, int]:
    """The kernels during which something is alive: one that shares a loop runs as long as the loop."""
    for group in groups:
        if group.first <= first <= group.last:
            first = group.first
        if group.first <= last <= group.last:
            last = group.last
    return first, last


def share(graph: KernelGraph, group: Group, ends: Sequence[int]) -> Shared | None:
    """The group with stripes of its last kernel that end at ``ends``; None where its kernels cannot share a loop."""
    steps = [graph.steps[i] for i in group.steps]
    if not all(map(_sharable, steps)) or len({step.spec.output[0] for step in steps}) > 1:
        return None
    uses = _uses(graph, steps)
    if uses is None or not all(_takes_part(graph, step, uses) for step in steps):
        return None
    found: dict[int, tuple[int, ...]] = {group.last: tuple(ends)}
    needs: dict[int, list[tuple[Range | None, ...]]] = {}
    for step in reversed(steps):
        index = _storage(graph, step).index
        if step.index != group.last:
            rows = step.spec.output[_axis(step.spec.output)]
            found[step.index] = _ends(needs[index], rows, len(ends)) if index in needs else _in_step(ends, rows)
        for operand, storage in graph.sources[step.index].items():
            if storage in uses:
                seen = _rows_of(graph.read(step, operand))
                if seen is None:  # of what another kernel has written before the loop
                    return None
                need = _needs(graph, step, operand, found[step.index])
                needs.setdefault(storage, []).append(tuple(seen.within(rows, uses[storage]) for rows in need))
    delays = _delays(graph, steps)
    held: dict[int, Stripes] = {}
    for index in sorted(s for s in uses if _inside(graph.storages[s], group)):
        readers = [delays[step.index] for step in steps if index in graph.sources[step.index].values()]
        writers = [step for step in steps if _storage(graph, step).index == index]
        slots = max(readers) - min(delays[step.index] for step in writers) + 1
        held[index] = _ring(graph, writers[0], slots, needs[index], [found[step.index] for step in writers])
    return Shared(group, found, delays, held)


def _delays(graph: KernelGraph, steps: Sequence[Step]) -> dict[int, int]:
    """How many stripes each kernel is behind, so that engines work side by side.

    It is one more than that of a kernel that it reads if one of them is on the matrix unit and the other is not, or if
    that one ends in passes over rows, which take the vector unit as long as the product takes the other.
    """
    delays: dict[int, int] = {}
    made: dict[int, list[Step]] = {}
    for step in steps:
        behind = [
            delays[other.index] + (bool(other.spec.stages) or on_matrix_unit(other) != on_matrix_unit(step))
            for storage in graph.sources[step.index].values()
            for other in made.get(storage, ())
        ]
        delays[step.index] = max(behind, default=0)
        made.setdefault(_storage(graph, step).index, []).append(step)
    return delays


def on_matrix_unit(step: Step) -> bool:
    """Whether a kernel multiplies; others need the vector unit alone."""
    return isinstance(step.spec.anchor, MatrixAnchor)


def _takes_part(graph: KernelGraph, step: Step, uses: Mapping[int, _Rows]) -> bool:
    """Whether a kernel makes or reads what lies between kernels of the loop."""
    return _storage(graph, step).index in uses or any(storage in uses for storage in graph.sources[step.index].values())


def _storage(graph: KernelGraph, step: Step) -> Storage:
    return graph.placed[step.op.output].storage


def _sharable(step: Step) -> bool:
    spec = step.spec
    return spec.movement is None and not isinstance(spec.anchor, CopyAnchor) and max(spec.output[1:3]) > 1


def _axis(shape: Shape4) -> int:
    return 1 if shape[1] > 1 else 2


def _inside(storage: Storage, group: Group) -> bool:
    return storage.region is None and group.first <= storage.first and storage.last <= group.last


class _Rows(NamedTuple):
    """A storage as rows: along which axis of (n, h, w, c), how many in an image, and the bytes of one."""

    axis: int
    number: int
    bytes: int

    def fits(self, other: _Rows) -> bool:
        """Whether rows of one are whole rows of the other, or the other way round."""
        least, most = sorted((self.bytes, other.bytes))
        return least > 0 and most % least == 0 and self.number * self.bytes == other.number * other.bytes

    def within(self, rows: Range | None, other: _Rows) -> Range | None:
        """The rows of ``other`` in which these ``rows`` lie."""
        if rows is None:
            return None
        return Range(rows.start * self.bytes // other.bytes, -(-rows.stop * self.bytes // other.bytes))


def _uses(graph: KernelGraph, steps: Sequence[Step]) -> dict[int, _Rows] | None:
    """Storages that one kernel writes and a later one reads, with their rows; None where one is not read row by row."""
    rows: dict[int, _Rows | None] = {}
    used: dict[int, _Rows] = {}
    for step in steps:
        for operand, index in graph.sources[step.index].items():
            if index not in rows:
                continue
            made, seen = rows[index], _rows_of(graph.read(step, operand))
            roles = {role for role, other in step.spec.reads if other == operand}
            if not roles <= ELEMENT_ROLES or made is None or seen is None or not made.fits(seen):
                return None
            if seen.axis != _axis(step.spec.output):
                return None
            used[index] = made
        found = _rows_of(graph.written(step))
        index = _storage(graph, step).index
        if rows.setdefault(index, found) != found:
            rows[index] = None
    return used


def _rows_of(placed: Placed) -> _Rows | None:
    """The rows of a storage that a value is a part of each of; None of another.

    What leaves the graph is written as it lies; nobody reads it row by row.
    """
    shape, axis = placed.shape, _axis(placed.shape)
    if placed.storage.region is not None:
        return _Rows(axis, shape[axis], 0)
    stride = placed.strides[axis]
    extent = sum((n - 1) * s for n, s in zip(shape[axis + 1 :], placed.strides[axis + 1 :], strict=True))
    within = placed.offset + extent < stride and (shape[0] == 1 or placed.strides[0] == shape[axis] * stride)
    whole = shape[0] * shape[axis] * stride == placed.storage.bytes
    return _Rows(axis, shape[axis], stride) if whole and within else None


def _needs(graph: KernelGraph, step: Step, operand: int, ends: tuple[int, ...]) -> tuple[Range | None, ...]:
    """The rows of an operand that each stripe of a kernel reads; None for a stripe without rows."""
    key = step.index, operand, ends
    if key not in graph.rows_needed:  # groups with the same last kernels ask for the same
        graph.rows_needed[key] = tuple(_rows_needed(step, operand, ends))
    return graph.rows_needed[key]


def _rows_needed(step: Step, operand: int, ends: tuple[int, ...]) -> Iterator[Range | None]:
    spec = step.spec
    axis = _axis(spec.output)
    tiling = Tiling(spec, KernelSchedule(spec.name, (), *spec.output[1:], 1))
    roles = [role for role, other in spec.reads if other == operand]
    whole = Box(Range(0, 1), *(Range(0, size) for size in spec.output[1:]))
    for start, stop in zip((0, *ends), ends, strict=False):
        if start == stop:
            yield None
            continue
        out = whole._replace(h=Range(start, stop)) if axis == 1 else whole._replace(w=Range(start, stop))
        found = [tiling.box(role, operand, Tile(out, Range(0, 0), True, True))[axis] for role in roles]
        yield Range(min(r.start for r in found), max(r.stop for r in found))


def _ends(needs: Sequence[tuple[Range | None, ...]], rows: int, stripes: int) -> tuple[int, ...]:
    """Where the stripes of a kernel end whose rows are needed so; the last stripe makes what is left."""
    tops = [max((need.stop for r in needs if (need := r[j]) is not None), default=0) for j in range(stripes)]
    return (*list(accumulate(tops, max))[:-1], rows)


def _in_step(ends: Sequence[int], rows: int) -> tuple[int, ...]:
    """Where the stripes of a kernel end that makes of its ``rows`` the same share as the last kernel."""
    return tuple(-(-rows * end // ends[-1]) for end in ends)


def _ring(
    graph: KernelGraph,
    writer: Step,
    slots: int,
    needs: Sequence[tuple[Range | None, ...]],
    ends: Sequence[tuple[int, ...]],
) -> Stripes:
    """The ring of a storage: each slot holds the rows of a stripe from the first that is still read.

    ``ends`` are those of its writers. Readers between them ask the first for more than the others.
    """
    axis, images = _axis(writer.spec.output), writer.spec.output[0]
    made, least = list(map(max, zip(*ends, strict=True))), list(map(min, zip(*ends, strict=True)))
    first, lowest = list[int](), made[-1]
    for j in reversed(range(len(made))):
        lowest = min([lowest, *(need.start for r in needs if (need := r[j]) is not None)])
        first.append(min(lowest, least[j - 1] if j else 0))
    first.reverse()
    for j in range(1, len(made)):
        first[j] = first[j - 1] if made[j] == made[j - 1] else first[j]
    fills = tuple(accumulate(int(stop > start) for start, stop in zip((0, *made), made, strict=False)))
    stride = graph.written(writer).strides[axis]
    most = max(stop - start for start, stop in zip(first, made, strict=True))
    return Stripes(axis, min(max(2, slots), images * fills[-1]), aligned(most * stride), stride, tuple(first), fills)


def kept_by(graph: KernelGraph, schedule: Schedule) -> frozenset[int]:
    """Storages whose every writer says ``keep``."""
    rows = schedule.by_name()
    keep: dict[int, bool] = {}
    for step in graph.steps:
        storage = graph.placed[step.op.output].storage
        if storage.region is None:
            keep[storage.index] = keep.get(storage.index, True) and rows[step.spec.name].keep
    return frozenset(index for index, kept in keep.items() if kept)


def shared_loops(graph: KernelGraph, schedule: Schedule) -> tuple[Shared, ...]:
    """The shared loops of a schedule; ScheduleError where one cannot be, or its stripes do not fit together.

    What a kernel keeps lies in SRAM as a whole, also in a loop.
    """
    found: list[Shared] = []
    by_name, kept = schedule.by_name(), kept_by(graph, schedule)
    program = [by_name[step.spec.name] for step in graph.steps]
    _check_ends(program)
    for group in groups_of(program):
        rows = [program[i] for i in group.steps]
        last, names = rows[-1], f"kernels {rows[0].kernel!r} to {rows[-1].kernel!r}"
        size = stripe_rows(graph, group)
        if not last.stripes or last.stripes[-1] != size:
            raise ScheduleError(
                f"{names} share a loop, so the last needs stripes that end at its {size} rows, "
                f"got {list(last.stripes)}"
            )
        shared = share(graph, group, last.stripes)
        if shared is None:
            raise ScheduleError(
                f"{names} cannot share a loop: each must make what a later one reads, or read what an earlier one "
                "makes, row by row; set shares = false"
            )
        for index, row in zip(group.steps, rows, strict=True):
            if row.stripes != shared.ends[index]:
                raise ScheduleError(
                    f"kernel {row.kernel!r}: its stripes must end at {list(shared.ends[index])}, "
                    "which the kernels behind it read"
                )
        held = {s: ring for s, ring in shared.held.items() if s not in kept}
        found.append(replace(shared, held=held))
    return tuple(found)


def _check_ends(program: Sequence[KernelSchedule]) -> None:
    """ScheduleError where a kernel shares a loop with none, or has stripes without one."""
    if program and program[-1].shares:
        name = program[-1].kernel
        raise ScheduleError(f"kernel {name!r}: no kernel is behind it to share a loop with; set shares = false")
    for before, row in zip((None, *program), program, strict=False):
        if row.stripes and not row.shares and not (before and before.shares):
            raise ScheduleError(f"kernel {row.kernel!r}: it has stripes but shares no loop; leave stripes out")


def with_stripes(row: KernelSchedule, shared: Shared, index: int) -> KernelSchedule:
    """The schedule of kernel ``index`` as a member of the group."""
    return replace(row, shares=index < shared.group.last, stripes=shared.ends[index], keep=False)
