"""The DRAM that the engines share, as time sees it."""

from __future__ import annotations

from bisect import bisect_right


class Server:
    """The DRAM server: a request takes the first free cycles from its arrival on, in several pieces if need be."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def serve(self, time: int, need: int) -> int:
        """Take ``need`` free cycles at or after ``time``; the cycle after the last one taken."""
        if need == 0:
            return time
        starts, ends = self._starts, self._ends
        # Most requests come after all others, or while the last stretch of service runs.
        if not ends or time > ends[-1]:
            starts.append(time)
            ends.append(time + need)
            return ends[-1]
        if time >= starts[-1]:
            ends[-1] += need
            return ends[-1]
        low = bisect_right(starts, time)
        if low and ends[low - 1] >= time:
            time = ends[low - 1]
            low -= 1
            first, high = starts[low], low + 1
        else:
            first, high = time, low
        while high < len(starts) and time + need > starts[high]:
            need -= starts[high] - time
            time = ends[high]
            high += 1
        time += need
        last = time
        if high < len(starts) and starts[high] == time:
            last = ends[high]
            high += 1
        starts[low:high] = [first]
        ends[low:high] = [last]
        return time
