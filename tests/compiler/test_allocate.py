"""Interval packing never overlaps in time and space, and is close to the lower bound."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.backend.allocate import AllocationError, Interval, allocate, peak
from isa.errors import ScheduleError


@st.composite
def requests(draw: st.DrawFn) -> list[Interval]:
    count = draw(st.integers(0, 20))
    result: list[Interval] = []
    for key in range(count):
        start = draw(st.integers(0, 20))
        result.append(
            Interval(
                key,
                start,
                start + draw(st.integers(1, 10)),
                draw(st.integers(0, 100)),
                draw(st.sampled_from((1, 4, 64))),
            )
        )
    return result


@given(requests(), st.sampled_from((1, 16)))
def test_no_two_live_buffers_share_a_byte(intervals: list[Interval], align: int):
    got = allocate(intervals, align=align)
    for a, b in itertools.combinations(intervals, 2):
        apart = got[a.key] + a.size <= got[b.key] or got[b.key] + b.size <= got[a.key]
        assert apart or not a.size or not b.size or not a.overlaps(b)
    assert all(got[r.key] % max(align, r.align) == 0 for r in intervals)
    assert got.used_bytes == max((got[r.key] + r.size for r in intervals), default=0)


@given(requests())
def test_same_requests_same_addresses_and_never_below_the_bound(intervals: list[Interval]):
    first = allocate(intervals)
    assert dict(first) == dict(allocate(intervals))
    assert first.used_bytes >= peak(intervals)[1]


def test_a_chain_of_layers_reaches_the_lower_bound():
    sizes = [64, 256, 192, 512, 128, 384, 96, 640, 32, 200]
    chain = [Interval(i, i, i + 2, size) for i, size in enumerate(sizes)]
    assert allocate(chain).used_bytes == peak(chain)[1] == 96 + 640


def test_residual_blocks_stay_near_the_bound():
    blocks = [
        r
        for b in range(60)
        for r in (
            Interval((b, "in"), 3 * b, 3 * b + 4, 100 + b % 7),
            Interval((b, "mid"), 3 * b + 1, 3 * b + 3, 400 - 3 * (b % 11)),
            Interval((b, "low"), 3 * b + 2, 3 * b + 4, 50),
        )
    ]
    assert allocate(blocks).used_bytes <= 1.15 * peak(blocks)[1]


def test_a_fixed_buffer_stays_and_others_move_around_it():
    got = allocate([Interval("pinned", 0, 4, 16, fixed=8), Interval("free", 0, 4, 16)], capacity=64)
    assert got["pinned"] == 8
    assert got["free"] == 24


def test_too_small_a_memory_names_what_is_alive():
    buffers = [Interval("small", 0, 2, 32), Interval("big", 1, 3, 64), Interval("gone", 0, 1, 8)]
    with pytest.raises(AllocationError, match=r"96 bytes.* and 80.*big \(64 B\), small \(32 B\)") as error:
        allocate(buffers, capacity=80)
    assert [r.key for r in error.value.live] == ["big", "small"]
    assert error.value.peak_bytes == 96


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ([Interval("a", 0, 1, 4), Interval("a", 0, 1, 4)], "buffer a: requested twice"),
        ([Interval("a", 1, 1, 4)], r"lifetime \[1, 1\)"),
        ([Interval("a", 0, 1, 4, align=4, fixed=2)], "fixed address 2 is not a multiple of 4"),
        ([Interval("a", 0, 1, 4, fixed=62)], r"fixed \[62, 66\) ends after 64 bytes"),
        ([Interval("a", 0, 1, 4, fixed=0), Interval("b", 0, 1, 4, fixed=2)], "a and b: fixed addresses"),
    ],
)
def test_malformed_requests_are_refused(intervals: list[Interval], message: str):
    with pytest.raises(ScheduleError, match=message):
        allocate(intervals, capacity=64)
