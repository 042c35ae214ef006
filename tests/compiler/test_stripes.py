"""Kernels that share a loop: what each makes in which stripe, and that everything is on chip when it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from xdsl.ir import SSAValue

from compiler.analysis.graph import KernelGraph
from compiler.analysis.stripes import (
    Group,
    groups_of,
    on_matrix_unit,
    share,
    shared_loops,
    stripe_rows,
    widened,
)
from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.ir.place import Stripes
from compiler.ir.schedule import KernelSchedule, Schedule
from isa.errors import ScheduleError
from isa.machine import Machine
from tests.compiler.kern_graphs import CODES, add, const, conv, dq, graph, linear, q
from tests.compiler.loop_graphs import groups, kernel_graph, modules, resized, sharing, stripes
from tests.compiler.stripe_replay import replay
from tests.thinning import examples

TINY = Machine.load("tiny")
COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
CODES4 = IntType(4, 0.4, 0)


@given(st.data(), modules())
@settings(max_examples=examples(60), **COMMON)
def test_rows_are_made_once_and_lie_in_their_slot_until_they_are_read(data: st.DataObject, module) -> None:
    found = kernel_graph(module)
    group = data.draw(groups(found))
    assume(group is not None)
    assert group is not None
    ends = data.draw(stripes(stripe_rows(found, group)))
    shared = replay(found, group, ends)
    for index in group.steps:
        made = shared.ends[index]
        output = found.steps[index].spec.output
        assert len(made) == len(ends)
        assert list(made) == sorted(made)
        assert made[-1] == (output[1] if output[1] > 1 else output[2])


def chain(*steps, start: IntType = CODES):
    """A graph's body: one step after the other on the codes of its input."""

    def body(x: SSAValue) -> SSAValue:
        value = q(x, start)
        for one in steps:
            value = one(value)
        return value

    return body


def conv3(x: SSAValue, **options) -> SSAValue:
    return q(conv(x, 4, 3, **options))


def move(x: SSAValue) -> SSAValue:
    """A kernel on the vector unit alone, which reads the rows that it makes."""
    return resized(x, "nearest", tuple(x.type.get_shape()[2:]))


def half(x: SSAValue) -> SSAValue:
    return conv3(x, strides=(2, 2))


def twice(kind: str):
    return lambda x: resized(x, kind, (2 * x.type.get_shape()[2], x.type.get_shape()[3]))


def residual(x: SSAValue) -> SSAValue:
    return q(add(dq(conv3(move(conv3(x)))), dq(x)))


def tail(body, *shape: int, first: int = 1) -> tuple[KernelGraph, Group]:
    """The kernels of a graph of one input, and those from ``first`` on."""
    found = kernel_graph(graph([shape], body))
    return found, Group(first, len(found.steps) - 1)


def test_a_producer_makes_the_halo_ahead():
    found, group = tail(chain(conv3, conv3, conv3), 1, 4, 8, 4)
    shared = replay(found, group, (2, 4, 6, 8))
    assert shared.ends == {1: (4, 6, 8, 8), 2: (3, 5, 7, 8), 3: (2, 4, 6, 8)}
    assert shared.delays == {1: 0, 2: 0, 3: 0}
    first, second = shared.held.values()
    assert first == Stripes(1, 2, 64, 16, (0, 2, 4, 4), (1, 2, 3, 3))
    assert second.first_rows == (0, 1, 3, 5)
    assert second.fills == (1, 2, 3, 4)


def test_what_is_carried_are_the_rows_that_are_read_again():
    ring = Stripes(1, 2, 64, 16, (0, 2, 2, 5), (1, 2, 2, 3))
    assert [ring.slot(0, j) for j in range(4)] == [0, 1, 1, 0]
    assert [ring.slot(1, j) for j in range(4)] == [1, 0, 0, 1]
    assert [ring.carried(j, made) for j, made in enumerate((0, 4, 6, 6))] == [(0, 0), (2, 4), (6, 6), (5, 6)]


def test_engines_are_a_stripe_apart():
    found, group = tail(chain(conv3, move, move, conv3, move), 1, 4, 8, 4)
    shared = replay(found, group, (2, 4, 6, 8))
    assert list(shared.delays.values()) == [0, 1, 1, 2, 3]
    assert [ring.slots for ring in shared.held.values()] == [2, 2, 2, 2]


def test_a_kernel_is_a_stripe_behind_passes_over_rows():
    def body(x: SSAValue) -> SSAValue:
        value = qnn.MatmulOp(q(x), q(const(1, 6, 5))).output
        value = q(qnn.SoftmaxOp(value, 2).output)
        return q(linear(q(linear(value, 6)), 6))

    found, group = tail(body, 1, 7, 6, first=2)
    assert [bool(found.steps[i].spec.stages) for i in group.steps] == [True, False, False]
    assert all(on_matrix_unit(found.steps[i]) for i in group.steps)
    shared = replay(found, group, (2, 4, 6, 7))
    assert list(shared.delays.values()) == [0, 1, 1]


def test_a_skip_connection_is_held_until_the_last_reader_is_done():
    found, group = tail(chain(move, residual), 1, 4, 8, 4)
    shared = replay(found, group, tuple(range(1, 9)))
    skip = found.placed[found.steps[1].op.output].storage.index
    assert shared.delays[group.last] == 3
    assert shared.held[skip].slots == 4


def test_a_stride_asks_for_twice_the_rows():
    found, group = tail(chain(conv3, half), 1, 4, 8, 4)
    assert replay(found, group, (1, 2, 3, 4)).ends[1] == (2, 4, 6, 8)


@pytest.mark.parametrize(
    ("kind", "ends"), [("nearest", (1, 1, 2, 2, 3, 3, 4, 4)), ("bilinear", (2, 2, 2, 3, 3, 4, 4, 4))]
)
def test_a_resize_leaves_stripes_without_new_rows(kind, ends):
    found, group = tail(chain(conv3, twice(kind)), 1, 4, 4, 4)
    shared = replay(found, group, tuple(range(1, 9)))
    assert shared.ends[1] == ends
    assert next(iter(shared.held.values())).fills[-1] == len(set(ends))


def test_a_slot_is_not_filled_for_the_next_image_while_the_last_one_is_read():
    found, group = tail(chain(conv3, move), 2, 4, 4, 4)
    shared = replay(found, group, (4,))
    assert next(iter(shared.held.values())).slots == 2


def test_one_stripe_of_one_image_takes_one_slot():
    found, group = tail(chain(conv3, move), 1, 4, 4, 4)
    assert next(iter(replay(found, group, (4,)).held.values())).slots == 1


def test_tokens_are_cut_along_columns():
    def body(x: SSAValue) -> SSAValue:
        value = q(x)
        for _ in range(3):
            value = q(linear(value, 6))
        return value

    found, group = tail(body, 2, 7, 6)
    shared = replay(found, group, (3, 5, 7))
    assert shared.ends == dict.fromkeys((1, 2, 3), (3, 5, 7))
    assert {ring.axis for ring in shared.held.values()} == {2}
    assert {ring.slot_bytes for ring in shared.held.values()} == {64}


@pytest.mark.parametrize(("codes", "row"), [(CODES4, 4 * 2), (IntType(16, 0.01, 0), 4 * 8), (None, 4 * 16)])
def test_slots_hold_rows_of_any_width(codes, row):
    def floats(x: SSAValue) -> SSAValue:
        return qnn.Conv2dOp(x, const(4, 4, 3, 3), const(4), const(4), padding=(1, 1, 1, 1)).output

    body = chain(*[lambda x: q(conv(x, 4, 3), codes)] * 2, start=codes) if codes else lambda x: floats(floats(x))
    found, group = tail(body, 1, 4, 16, 4)
    (ring,) = replay(found, group, (8, 16)).held.values()
    assert ring.first_rows == (0, 7)
    assert ring.slot_bytes == -(-9 * row // 64) * 64


def dense(x: SSAValue) -> SSAValue:
    """The writers of the first join make rows in different stripes: a third kernel reads the first one's."""
    a = conv3(q(x))
    join = qnn.ConcatOp([a, conv3(a)], 1).output
    other = q(conv(a, 4, 5))
    h, w = 4 * x.type.get_shape()[2], x.type.get_shape()[3]
    return conv3(qnn.ConcatOp([resized(join, "bilinear", (h, w)), resized(other, "nearest", (h, w))], 1).output)


def lagging(x: SSAValue) -> SSAValue:
    """The second writer of a join is behind the first, and the rows between them are not read."""
    a = conv3(q(x))
    low = conv3(a, pad=(0, 1, 0, 1), strides=(3, 1))
    join = qnn.ConcatOp([a, resized(low, "nearest", tuple(x.type.get_shape()[2:]))], 1).output
    return q(conv(join, 4, strides=(3, 1)))


@pytest.mark.parametrize(("body", "rows"), [(dense, 32), (lagging, 3)])
def test_writers_of_a_join_may_be_at_different_rows(body, rows):
    found, group = tail(body, 1, 4, 8 if body is dense else 9, 4)
    shared = replay(found, group, tuple(range(1, rows + 1)))
    joined = [found.placed[step.op.output].storage.index for step in found.steps]
    join = next(index for index in joined if joined.count(index) == 2)
    first, second = (shared.ends[i] for i, index in enumerate(joined) if index == join)
    assert first != second
    assert all(b <= a for a, b in zip(first, second, strict=True))


# -- what cannot share ---------------------------------------------------------------------------


def attention(x: SSAValue) -> SSAValue:
    a = q(linear(q(x), 6))
    return q(qnn.MatmulOp(a, a, transpose_b=True).output)


def pooled_away(x: SSAValue) -> SSAValue:
    a = conv3(q(x))
    return q(qnn.MulOp(dq(a), qnn.SigmoidOp(qnn.AdaptiveAvgPool2dOp(a, (1, 1)).output).output).output)


def stacked(x: SSAValue) -> SSAValue:
    a = conv3(q(x))
    return conv3(qnn.ConcatOp([a, conv3(a)], 2).output)


def apart(x: SSAValue) -> list[SSAValue]:
    return [conv3(q(x)), q(x, IntType(8, 0.1, 3))]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (attention, (1, 7, 6)),  # a factor is read as a whole
        (pooled_away, (1, 4, 8, 4)),  # an image has one value per channel
        (stacked, (1, 4, 8, 4)),  # rows of a join along rows are not those of its parts
        (apart, (1, 4, 8, 4)),  # one has nothing to do with the others
    ],
)
def test_kernels_that_need_more_than_rows_do_not_share(body, shape):
    found, group = tail(body, *shape, first=0)
    assert share(found, group, (stripe_rows(found, group),)) is None
    rows = sharing(found, TINY, {}).kernels
    size = stripe_rows(found, group)
    forced = tuple(replace(row, shares=i < group.last, stripes=(size,)) for i, row in enumerate(rows))
    with pytest.raises(ScheduleError) as error:
        shared_loops(found, Schedule("tiny", forced))
    assert str(error.value) == (
        f"kernels {rows[0].kernel!r} to {rows[-1].kernel!r} cannot share a loop: each must make what a later one "
        "reads, or read what an earlier one makes, row by row; set shares = false"
    )


def forced() -> tuple[KernelGraph, tuple[KernelSchedule, ...]]:
    """Three convolutions, the last two in a loop."""
    found, _ = tail(chain(conv3, conv3), 1, 4, 8, 4)
    return found, sharing(found, TINY, {Group(1, 2): (4, 8)}).kernels


END = "so the last needs stripes that end at its 8 rows,"


def test_a_schedule_names_its_loops():
    found, rows = forced()
    assert groups_of(rows) == (Group(1, 2),)
    (loop,) = shared_loops(found, Schedule("tiny", rows))
    assert loop == share(found, Group(1, 2), (4, 8))
    assert loop.ring_bytes == sum(ring.slots * ring.slot_bytes for ring in loop.held.values())


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (2, {"stripes": (4, 7)}, f"kernels 'n1' to 'n3' share a loop, {END} got [4, 7]"),
        (2, {"stripes": ()}, f"kernels 'n1' to 'n3' share a loop, {END} got []"),
        (1, {"stripes": (4, 8)}, "kernel 'n1': its stripes must end at [5, 8], which the kernels behind it read"),
        (2, {"shares": True}, "kernel 'n3': no kernel is behind it to share a loop with; set shares = false"),
        (1, {"shares": False}, "kernel 'n1': it has stripes but shares no loop; leave stripes out"),
    ],
)
def test_stripes_that_do_not_fit_are_refused(index, changes, message):
    found, rows = forced()
    edited = [replace(row, **changes) if i == index else row for i, row in enumerate(rows)]
    with pytest.raises(ScheduleError) as error:
        shared_loops(found, Schedule("tiny", tuple(edited)))
    assert str(error.value) == message


def test_what_is_kept_lies_whole_beside_the_loop():
    found, rows = forced()
    kept = tuple(replace(row, keep=i == 1) for i, row in enumerate(rows))
    (loop,) = shared_loops(found, Schedule("tiny", kept))
    assert loop.held == {}
    assert loop.ring_bytes == 0
    assert loop.ends == {1: (5, 8), 2: (4, 8)}


def test_what_a_loop_touches_lives_as_long_as_the_loop():
    loops = (Group(2, 4), Group(6, 7))
    assert widened(3, 3, loops) == (2, 4)
    assert widened(0, 2, loops) == (0, 4)
    assert widened(4, 6, loops) == (2, 7)
    assert widened(5, 5, loops) == (5, 5)
