"""Tile maths: every output once, and the operand boxes of windows, groups and broadcasts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.ir.channel import Ring
from compiler.ir.kernel import KernelSpec, MatrixAnchor, PoolAnchor, Stream, VectorProgram, Window
from compiler.ir.place import Place, buffer_strides, packed_strides, planar_strides, transfers
from compiler.ir.schedule import KernelSchedule, Schedule
from compiler.ir.tiling import Box, Range, Tiling
from isa.errors import ScheduleError
from isa.instructions import DType, Reduce, Region

PROGRAM = VectorProgram((Stream(None, DType.I32),), (), DType.F32)


def conv(window=None, groups=1, shape=(1, 8, 8, 4), out=(1, 8, 8, 6)):
    anchor = MatrixAnchor(0, 1, window or Window((3, 3), pad=(1, 1)), groups, 0)
    return KernelSpec("k", (shape, (out[3], 3, 3, shape[3] // groups)), (DType.I8, DType.I8), out, anchor, PROGRAM)


def schedule(**changes):
    values = {"kernel": "k", "nodes": ("n",), "tile_h": 3, "tile_w": 8, "tile_c": 4, "tile_k": 4} | changes
    return KernelSchedule(**values)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.permutations("cnhw"))
def test_every_output_element_is_in_exactly_one_tile(h, w, c, order):
    tiling = Tiling(conv(), schedule(tile_h=h, tile_w=w, tile_c=c, order="".join(order)))
    seen = np.zeros((1, 8, 8, 6), int)
    for tile in tiling.tiles():
        n, y, x, z = tile.out
        seen[n.start : n.stop, y.start : y.stop, x.start : x.stop, z.start : z.stop] += tile.last_k
    assert (seen == 1).all()


def test_a_convolution_tile_reads_its_halo():
    tiling = Tiling(conv(), schedule())
    tile = next(t for t in tiling.tiles() if t.out.h == Range(3, 6))
    assert tiling.box("act", 0, tile) == Box(Range(0, 1), Range(2, 7), Range(0, 8), Range(0, 4))


def test_a_grouped_tile_reads_only_its_groups():
    tiling = Tiling(conv(groups=2), schedule(tile_c=3, tile_k=2))
    boxes = {t.out.c: tiling.box("act", 0, t).c for t in tiling.tiles()}
    assert boxes == {Range(0, 3): Range(0, 2), Range(3, 6): Range(2, 4)}


def test_a_trailing_pool_widens_the_anchor_box():
    pool = PoolAnchor(0, Window((3, 3), (2, 2), pad=(1, 1)), Reduce.MAX, 0, 0.0)
    spec = KernelSpec(
        "k", ((1, 8, 8, 4),), (DType.I8,), (1, 4, 4, 6), conv().anchor, PROGRAM, pool, (1, 8, 8, 6), PROGRAM
    )
    tiling = Tiling(spec, schedule(tile_h=2, tile_w=4, tile_c=6))
    assert [tiling.anchor_box(t.out).h for t in tiling.tiles()] == [Range(0, 4), Range(3, 8)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=4, max_size=4), st.booleans())
def test_transfers_move_every_byte_of_the_box_once(spans, planar):
    shape = (2, 7, 7, 7)
    box = Box(*(Range(min(s, d - 1), min(s + n, d)) for (s, n), d in zip(spans, shape, strict=True)))
    strides = (planar_strides if planar else packed_strides)(shape, 4)
    place = Place(Region.ARENA, 64, strides, 4)
    inner = buffer_strides(place, box)
    moved = {}
    for t in transfers(place, box, inner):
        for i in range(t.counts[0]):
            for j in range(t.counts[1]):
                for b in range(t.run):
                    source = t.dram + i * t.dram_strides[0] + j * t.dram_strides[1] + b
                    moved[t.sram + i * t.sram_strides[0] + j * t.sram_strides[1] + b] = source
    expected = {
        sum((i - r.start) * s for i, r, s in zip(index, box, inner, strict=True)) + b: 64
        + sum(i * s for i, s in zip(index, strides, strict=True))
        + b
        for index in np.ndindex(*shape)
        if all(r.start <= i < r.stop for i, r in zip(index, box, strict=True))
        for b in range(4)
    }
    assert moved == expected


def test_a_ring_remembers_what_its_slots_hold():
    ring = Ring(2)
    assert [ring.push("a"), ring.push("b"), ring.find("a"), ring.push("c"), ring.find("a")] == [
        0,
        1,
        0,
        0,
        None,
    ]


def test_a_schedule_reads_back_equal():
    value = Schedule("edge28", (schedule(keep=True, order="hwnc"), schedule(kernel='odd "name"')))
    assert Schedule.from_toml(value.to_toml()) == value
    assert "shares" not in value.to_toml()
    loop = Schedule("tiny", (schedule(shares=True, stripes=(0, 3, 3, 8)), schedule(kernel="l", stripes=(0, 2, 4, 8))))
    assert Schedule.from_toml(loop.to_toml()) == loop


def test_stripes_cut_every_row_into_one_tile():
    tiling = Tiling(conv(shape=(2, 8, 8, 4), out=(2, 8, 8, 6)), schedule(order="nhwc", stripes=(2, 2, 7, 8)))
    assert [tuple(rows) for rows in tiling.stripes] == [(0, 2), (2, 2), (2, 7), (7, 8)]
    assert [tuple(rows) for rows in tiling.ranges["h"]] == [(0, 2), (2, 5), (5, 7), (7, 8)]
    turns = tiling.turns()
    assert [(turn.image, turn.stripe) for turn in turns if turn] == [(n, j) for n in range(2) for j in range(4)]
    assert [tiling.tiles_of(turn) for turn in turns if turn] == [2, 0, 4, 2] * 2
    assert sum(tiling.tiles_of(turn) for turn in turns if turn) == len({tile.out for tile in tiling.tiles()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("machine = 1", "needs a string `machine`"),
        ('machine = "tiny"\nextra = 1\nkernel = []', "unknown key 'extra'"),
        ('machine = "tiny"\n[[kernel]]\nkernel = "a"\ntile_q = 1', "unknown key 'tile_q'"),
        ('machine = "tiny"\n[[kernel]]\nkernel = "a"\nnodes = []', "key 'tile_h' is missing"),
        ("machine = ", "not TOML"),
    ],
)
def test_a_malformed_schedule_names_what_is_wrong(text, message):
    with pytest.raises(ScheduleError, match=message):
        Schedule.from_toml(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_h": 0}, "tile_h = 0"),
        ({"order": "cnh"}, "must name each of the loops"),
        ({"stripes": (3, 2, 8)}, r"kernel 'k': stripes = \(3, 2, 8\) must be integers that do not fall"),
        ({"stripes": (3, 8.0)}, r"kernel 'k': stripes = \(3, 8\.0\) must be integers that do not fall"),
        ({"shares": True}, "kernel 'k': it shares a loop with the next kernel, so it needs stripes"),
    ],
)
def test_an_illegal_kernel_schedule_is_refused(changes, message):
    with pytest.raises(ScheduleError, match=message):
        schedule(**changes)
