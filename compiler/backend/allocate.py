"""Interval packing: addresses for buffers whose lifetimes are known, in SRAM, accumulators or the DRAM arena.

Packing intervals is NP-hard; placing greedily in a good order is within a few percent on real networks
(Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020). Several orders are
tried, then buffers that did not fit move to the front of the order, until the lower bound (the most bytes
alive at one time) is met or the tries are spent. No randomness: same requests, same addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from isa.errors import ScheduleError

REORDERINGS = 64
"""How often a buffer that did not fit is moved to the front before giving up."""


@dataclass(frozen=True)
class Interval:
    """A buffer of ``size`` bytes alive during [start, end) of any integer clock; ``fixed`` pins its address."""

    key: Hashable
    start: int
    end: int
    size: int
    align: int = 1
    fixed: int | None = None

    def overlaps(self, other: Interval) -> bool:
        """Whether both are alive at some time."""
        return self.start < other.end and other.start < self.end


class AllocationError(ScheduleError):
    """Buffers do not fit; ``live`` are those alive at the peak, ``peak_bytes`` their sum."""

    def __init__(self, message: str, live: tuple[Interval, ...], peak_bytes: int) -> None:
        super().__init__(message)
        self.live = live
        self.peak_bytes = peak_bytes


@dataclass(frozen=True)
class Allocation(Mapping[Hashable, int]):
    """Address per key, and the bytes used from address 0 to the highest end."""

    addresses: Mapping[Hashable, int]
    used_bytes: int

    def __getitem__(self, key: Hashable) -> int:
        return self.addresses[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)


def allocate(requests: Iterable[Interval], capacity: int | None = None, align: int = 1) -> Allocation:
    """Addresses in [0, capacity) so that no two buffers share a byte at the same time.

    ``align`` is the least alignment of every buffer; with ``capacity`` None only the peak is minimised.
    Raises AllocationError, naming the buffers alive at the peak, when no tried order fits, and ScheduleError
    for a malformed request.
    """
    intervals = tuple(requests)
    _check(intervals, capacity, align)
    live, bound = peak(intervals)
    if capacity is not None and bound > capacity:
        raise _does_not_fit(live, bound, capacity, bound)
    addresses = _search(intervals, bound if capacity is None else capacity, align)
    used = max((a + r.size for a, r in zip(addresses, intervals, strict=True)), default=0)
    if capacity is not None and used > capacity:
        raise _does_not_fit(live, bound, capacity, used)
    return Allocation({r.key: a for r, a in zip(intervals, addresses, strict=True)}, used)


def peak(intervals: Sequence[Interval]) -> tuple[tuple[Interval, ...], int]:
    """The buffers alive at the fullest time, and the sum of their sizes: a lower bound of any allocation."""
    events = sorted(
        (time, kind, i) for i, r in enumerate(intervals) for time, kind in ((r.start, 1), (r.end, 0))
    )
    alive: dict[int, None] = {}
    now, most, at_peak = 0, 0, tuple[int, ...]()
    for _, starts, i in events:
        if starts:
            alive[i] = None
            now += intervals[i].size
        elif i in alive:
            del alive[i]
            now -= intervals[i].size
        if now > most:
            most, at_peak = now, tuple(alive)
    return tuple(intervals[i] for i in at_peak), most


def _check(intervals: Sequence[Interval], capacity: int | None, align: int) -> None:
    seen: set[Hashable] = set()
    for request in intervals:
        if request.key in seen:
            raise ScheduleError(f"buffer {request.key}: requested twice; give every buffer its own key")
        seen.add(request.key)
        if request.start >= request.end or request.size < 0:
            raise ScheduleError(
                f"buffer {request.key}: lifetime [{request.start}, {request.end}) and size {request.size} "
                "must not be empty; drop a buffer that nothing uses"
            )
        step = max(request.align, align)
        if request.fixed is not None and (request.fixed < 0 or request.fixed % step):
            raise ScheduleError(
                f"buffer {request.key}: fixed address {request.fixed} is not a multiple of {step}"
            )
        if request.fixed is not None and capacity is not None and request.fixed + request.size > capacity:
            raise ScheduleError(
                f"buffer {request.key}: fixed [{request.fixed}, {request.fixed + request.size}) ends after "
                f"{capacity} bytes"
            )
    pinned = [(r.fixed, r) for r in intervals if r.fixed is not None and r.size]
    for i, (low, a) in enumerate(pinned):
        for other, b in pinned[i + 1 :]:
            if low < other + b.size and other < low + a.size and a.overlaps(b):
                raise ScheduleError(f"buffers {a.key} and {b.key}: fixed addresses overlap while both live")


_KEYS: tuple[Callable[[Interval], tuple[int, ...]], ...] = (
    lambda r: (-r.size, r.start, r.end),
    lambda r: (-r.size * (r.end - r.start), r.start, r.end),
    lambda r: (r.start - r.end, -r.size, r.start),
    lambda r: (r.start, -r.size, r.end),
)


def _orders(intervals: Sequence[Interval]) -> Iterator[list[int]]:
    for key in _KEYS:
        yield sorted(range(len(intervals)), key=lambda i: (intervals[i].fixed is None, key(intervals[i])))


def _neighbours(intervals: Sequence[Interval]) -> list[list[int]]:
    """For each buffer those that are alive at the same time."""
    result: list[list[int]] = [[] for _ in intervals]
    active: list[int] = []
    for i in sorted(range(len(intervals)), key=lambda i: intervals[i].start):
        active = [j for j in active if intervals[j].end > intervals[i].start]
        for j in active:
            result[i].append(j)
            result[j].append(i)
        active.append(i)
    return result


def _place(
    order: Sequence[int], intervals: Sequence[Interval], neighbours: Sequence[Sequence[int]], align: int
) -> list[int]:
    """Best fit in the given order: the smallest gap that holds the buffer, else on top of its neighbours."""
    addresses = [-1] * len(intervals)
    for i in order:
        request = intervals[i]
        if request.fixed is not None:
            addresses[i] = request.fixed
            continue
        near = sorted((addresses[j], intervals[j].size) for j in neighbours[i] if addresses[j] >= 0)
        addresses[i] = _best_gap(request.size, max(request.align, align), near)
    return addresses


def _best_gap(size: int, step: int, near: Sequence[tuple[int, int]]) -> int:
    best, best_room, top = -1, 0, 0
    for low, length in near:
        address = -(-top // step) * step
        room = low - address
        if room >= size and (best < 0 or room < best_room):
            best, best_room = address, room
        top = max(top, low + length)
    return best if best >= 0 else -(-top // step) * step


def _search(intervals: Sequence[Interval], goal: int, align: int) -> list[int]:
    """Addresses whose highest end is at most ``goal``, or the lowest that was found."""
    neighbours = _neighbours(intervals)
    best, best_used = list[int](), -1
    for order in _orders(intervals):
        for attempt in range(REORDERINGS):
            addresses = _place(order, intervals, neighbours, align)
            ends = [address + r.size for address, r in zip(addresses, intervals, strict=True)]
            used = max(ends, default=0)
            if best_used < 0 or used < best_used:
                best, best_used = addresses, used
            if best_used <= goal:
                return best
            # The buffer that makes the peak had the worst choice: let it, or one that is alive with it,
            # choose first of them all.
            worst = ends.index(used)
            group = [i for i in (worst, *neighbours[worst]) if intervals[i].fixed is None]
            rank = {i: position for position, i in enumerate(order)}
            first = min((rank[i] for i in group), default=0)
            mover = worst if rank[worst] > first else group[attempt % len(group)]
            order.remove(mover)
            order.insert(first, mover)
    return best


def _does_not_fit(
    live: Sequence[Interval], bound: int, capacity: int, needed: int
) -> AllocationError:
    largest = sorted(live, key=lambda r: -r.size)
    names = ", ".join(f"{r.key} ({r.size} B)" for r in largest[:8]) + (", ..." if len(largest) > 8 else "")
    return AllocationError(
        f"{needed} bytes are needed and {capacity} there are; alive at the peak ({bound} B): {names}; "
        "use smaller tiles or fewer buffers",
        tuple(largest),
        bound,
    )
