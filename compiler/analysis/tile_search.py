"""Choose a kernel's schedule: enumerate a few dozen tilings and keep the cheapest that fits.

Sizes are tried from the largest that the accumulators hold, halved; loop orders keep either the weights or the
input in place; rings get one slot, two, or as many as make a whole operand stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf, prod

from compiler.analysis.cost import (
    KernelCost,
    Residency,
    Work,
    acc_pixel_bytes,
    kernel_cost,
    kernel_work,
    params_bytes,
    row_bytes,
)
from compiler.ir.kernel import CopyAnchor, KernelSpec, MatrixAnchor
from compiler.ir.place import MAX_COUNT
from compiler.ir.schedule import KernelSchedule
from compiler.ir.tiling import Tiling
from isa.errors import ScheduleError
from isa.instructions import DType
from isa.machine import Machine

Choice = tuple[KernelSchedule, KernelCost]

TRAFFIC_PRICE = 0.3
"""Cycles that a cycle of DRAM traffic is worth where it costs no time (decision 0013), since it costs energy."""
MAX_PIXEL_BYTES = (1 << 16) - 1
"""What the pixel_stride of ``mmu.input`` can say."""


def choose_schedule(
    spec: KernelSpec,
    nodes: tuple[str, ...],
    residency: Residency,
    machine: Machine,
    budget: int,
    slots: int = 2,
    stripes: tuple[int, ...] = (),
) -> Choice | None:
    """The cheapest schedule whose rings fit ``budget`` bytes of SRAM, or None when not even the smallest does.

    Rings of ``slots`` that fit in no tiling get one slot. ``stripes`` are where those of a kernel in a shared loop
    end: there, shorter stripes are the way to need less.
    """
    if isinstance(spec.anchor, CopyAnchor):
        _, h, w, c = spec.output
        whole = KernelSchedule(spec.name, nodes, h, w, c, 1, "cnhw", 1, 1, 1, 1)
        return _cheapest(iter([whole]), spec, residency, machine, budget)
    # Cutting the reduction never helps by itself, so smaller chunks are tried only when larger do not fit.
    counts = (slots,) if stripes or slots == 1 else (slots, 1)
    for count, tile_k in product(counts, _reduction_tiles(spec, machine)):
        tried = _candidates(spec, nodes, machine, count, tile_k, stripes)
        found = _cheapest(tried, spec, residency, machine, budget)
        if found is not None:
            return found
    return None


def price(cost: KernelCost) -> float:
    """Cycles, and a little for traffic: what is free in time still costs energy."""
    return cost.cycles + TRAFFIC_PRICE * cost.dma


def _cheapest(
    candidates: Iterator[KernelSchedule], spec: KernelSpec, residency: Residency, machine: Machine, budget: int
) -> Choice | None:
    best: Choice | None = None
    score = inf
    works: dict[tuple[int, ...], Work] = {}
    for schedule in candidates:
        if _pixel_bytes(spec, schedule, residency) > MAX_PIXEL_BYTES:
            continue
        tiling = Tiling(spec, schedule)
        if (work := works.get(schedule.tile)) is None:  # orders and slots of one tile share it
            work = works[schedule.tile] = kernel_work(tiling, machine)
        if work.least >= score:
            continue
        cost = kernel_cost(tiling, residency, machine, work)
        if cost.sram_bytes > budget or cost.acc_bytes > machine.acc.bytes:
            continue
        # Space has a price: what a kernel leaves free, its neighbours use to stay on chip or to load early.
        total = price(cost) + cost.cycles * 0.05 * cost.sram_bytes / machine.sram.bytes
        if total < score:
            best, score = (schedule, cost), total
    return best


def _pixel_bytes(spec: KernelSpec, schedule: KernelSchedule, residency: Residency) -> int:
    """Bytes between pixels of a matrix kernel's input on chip: all channels where it stays, else a chunk."""
    anchor = spec.anchor
    if not isinstance(anchor, MatrixAnchor) or anchor.groups > 1:
        return 0
    channels = spec.operands[anchor.act][3]
    held = channels if residency.operands[anchor.act] else min(schedule.tile_k, channels)
    return row_bytes(held, spec.dtypes[anchor.act])


def check_schedule(
    spec: KernelSpec, schedule: KernelSchedule, residency: Residency, machine: Machine, budget: int
) -> KernelCost:
    """Cost of a given schedule; raises ScheduleError when it is not legal for the kernel and machine."""
    where = f"kernel {schedule.kernel!r}"
    cost = kernel_cost(Tiling(spec, schedule), residency, machine)
    if cost.acc_bytes > machine.acc.bytes:
        raise ScheduleError(
            f"{where}: tile of {schedule.tile_h} x {schedule.tile_w} x {schedule.tile_c} with "
            f"{schedule.output_slots} slots needs {cost.acc_bytes} bytes of accumulators, {machine.name} has "
            f"{machine.acc.bytes}: make the tile smaller"
        )
    if cost.sram_bytes > budget:
        raise ScheduleError(
            f"{where}: its rings need {cost.sram_bytes} bytes of SRAM and {budget} are left beside the tensors that "
            f"stay: use smaller tiles, fewer slots, or keep = false on tensors that live across it"
        )
    anchor = spec.anchor
    if spec.stages and schedule.tile_c < spec.output[3]:
        raise ScheduleError(
            f"{where}: it reduces rows of channels, so tile_c must be all {spec.output[3]}, got {schedule.tile_c}"
        )
    if isinstance(anchor, CopyAnchor):
        _check_copy(spec, schedule)
    _check_pairs(spec, schedule)
    if isinstance(anchor, MatrixAnchor) and anchor.groups > 1 and not anchor.depthwise:
        per_group = spec_group_outputs(spec)
        whole = schedule.tile_k >= spec.operands[anchor.act][3] // anchor.groups
        if not whole and per_group % min(schedule.tile_c, per_group):
            raise ScheduleError(
                f"{where}: tile_c = {schedule.tile_c} spans groups of {per_group} outputs, so tile_k must cover "
                "a whole group"
            )
        if not whole and schedule.tile_c > per_group:
            raise ScheduleError(f"{where}: tile_c = {schedule.tile_c} spans groups, so tile_k must cover a whole group")
    return cost


def _check_pairs(spec: KernelSpec, schedule: KernelSchedule) -> None:
    """Cuts must not part two 4-bit codes of one byte."""
    anchor = spec.anchor
    inputs = spec.operands[anchor.act][3] // anchor.groups if isinstance(anchor, MatrixAnchor) else 0
    for name, cut, whole, paired in (
        ("tile_c", schedule.tile_c, spec.output[3], _paired_channels(spec)),
        ("tile_k", schedule.tile_k, inputs, _paired_reduction(spec)),
    ):
        if paired and cut % 2 and cut < whole:
            raise ScheduleError(
                f"kernel {schedule.kernel!r}: {name} = {cut} parts 4-bit codes that share a byte; make it even, "
                f"or all {whole}"
            )


def _check_copy(spec: KernelSpec, schedule: KernelSchedule) -> None:
    tile, whole = (schedule.tile_h, schedule.tile_w, schedule.tile_c), spec.output[1:]
    if any(t < size for t, size in zip(tile, whole, strict=True)):
        raise ScheduleError(
            f"kernel {schedule.kernel!r}: it moves elements across the whole tensor, so its tile must be "
            f"{' x '.join(map(str, whole))} (rows, columns, channels), got {' x '.join(map(str, tile))}"
        )


def spec_group_outputs(spec: KernelSpec) -> int:
    """Output channels per group of a matrix kernel."""
    anchor = spec.anchor
    assert isinstance(anchor, MatrixAnchor)
    return (spec.inner or spec.output)[3] // anchor.groups


def _halvings(size: int, least: int = 1) -> Iterator[int]:
    """ceil(size / 1), ceil(size / 2), ceil(size / 4), ... down to ``least``."""
    pieces, previous = 1, 0
    while True:
        step = max(-(-size // pieces), least)
        if step != previous:
            yield step
        if step <= least:
            return
        previous, pieces = step, pieces * 2


def _candidates(
    spec: KernelSpec,
    nodes: tuple[str, ...],
    machine: Machine,
    slots: int,
    tile_k: int,
    stripes: tuple[int, ...],
) -> Iterator[KernelSchedule]:
    """Schedules to try; in a shared loop, tiles are no larger than stripes and go from row to row first."""
    widest = max((b - a for a, b in zip((0, *stripes), stripes, strict=False)), default=0)
    n, h, w, c = spec.output
    if stripes:
        h, w = (widest, w) if h > 1 else (h, widest)
    whole = params_bytes(spec, (spec.inner or spec.output)[3]) <= machine.sram.bytes // 32
    for tile_c in dict.fromkeys(_channel_tiles(spec, machine)):
        loops = list(_loops(spec, slots, tile_c, tile_k))
        if stripes:
            loops = [("nhwc", factors) for order, factors in loops if order == "nhwc" or (n == 1 and tile_c >= c)]
        for tile_h, tile_w in _pixel_sizes(spec, machine, slots, tile_c, h, w):
            sizes = tile_h, tile_w, tile_c, tile_k
            for order, factors in loops:
                yield KernelSchedule(
                    spec.name, nodes, *sizes, order, slots, factors, slots, slots, whole, stripes=stripes
                )
        if spec.product is None or slots == 1:
            continue
        # Rows of scores may be so long that a tile of few fills the accumulators: many in turn may be better.
        for tile_h, tile_w in _pixel_sizes(spec, machine, 1, tile_c, h, w):
            sizes = tile_h, tile_w, tile_c, tile_k
            yield KernelSchedule(spec.name, nodes, *sizes, "nhwc", slots, 1, slots, 1, whole, stripes=stripes)


def _loops(spec: KernelSpec, slots: int, tile_c: int, tile_k: int) -> Iterator[tuple[str, int]]:
    """Loop orders to try, each with the slots of the rings of factors."""
    n, _, _, c = spec.output
    blocks = -(-c // tile_c)
    yield "cnhw", slots
    if blocks > 1 or n > 1:
        yield "nhwc", slots
        yield "nhwc", max(slots, blocks * _chunks(spec, tile_k))
    if n > 1 and blocks == 1 and _one_factor_per_image(spec, tile_k):
        yield "nhwc", 1
    if n > 1 and any(shape[0] == 1 for shape in spec.operands):
        yield "chwn", slots  # what all images share is read once


def _paired_channels(spec: KernelSpec) -> bool:
    """Whether cuts along channels fall into tensors of 4-bit codes, two of which share a byte."""
    anchor = spec.anchor
    cut = {spec.program.output, spec.stored.output}
    cut |= {s.dtype for program in spec.programs for s in program.streams if s.operand is not None}
    if isinstance(anchor, MatrixAnchor):
        cut |= {spec.dtypes[anchor.act]} if anchor.depthwise else set()
        cut |= {spec.dtypes[anchor.weight]} if anchor.dynamic_weight else set()
    if spec.product is not None:
        cut.add(spec.dtypes[spec.product.weight])
    return DType.I4 in cut


def _paired_reduction(spec: KernelSpec) -> bool:
    """Whether cuts along the reduction fall into 4-bit activations."""
    anchor = spec.anchor
    if not isinstance(anchor, MatrixAnchor) or anchor.depthwise:
        return False
    return DType.I4 in (spec.dtypes[anchor.act], spec.dtypes[anchor.weight] if anchor.dynamic_weight else None)


def _channel_tiles(spec: KernelSpec, machine: Machine) -> Iterator[int]:
    """Sizes of the pieces of the output's channels; even ones, or all, where two 4-bit codes share a byte."""
    c, paired = spec.output[3], _paired_channels(spec)
    yield from (size for size in _any_channel_tiles(spec, machine) if not paired or size % 2 == 0 or size >= c)
    if paired and not spec.stages and (spec.anchor is None or not _grouped(spec)):
        yield from (size + 1 for size in _halvings(c) if size % 2 and size < c)


def _grouped(spec: KernelSpec) -> bool:
    return isinstance(spec.anchor, MatrixAnchor) and spec.anchor.groups > 1 and not spec.anchor.depthwise


def _any_channel_tiles(spec: KernelSpec, machine: Machine) -> Iterator[int]:
    anchor, c = spec.anchor, spec.output[3]
    if spec.stages:
        yield c
        return
    lanes = machine.mmu.shape(anchor.mode).n if isinstance(anchor, MatrixAnchor) else machine.vcu.lanes
    if isinstance(anchor, MatrixAnchor) and anchor.groups > 1 and not anchor.depthwise:
        yield from _group_tiles(spec_group_outputs(spec), anchor.groups, lanes)
        return
    for size in _halvings(c):
        rounded = min(-(-size // lanes) * lanes, c)
        if rounded <= MAX_COUNT:
            yield rounded
        if rounded <= lanes:
            break
    if c > 8:
        yield 8


def _group_tiles(per_group: int, groups: int, lanes: int) -> Iterator[int]:
    """Whole groups together, or a divisor of one group."""
    for count in _halvings(groups):
        if groups % count == 0:
            yield count * per_group
    yield from (d for d in _halvings(per_group, min(lanes, per_group)) if per_group % d == 0)
    yield max(d for d in range(1, 9) if per_group % d == 0)


def _reduction_tiles(spec: KernelSpec, machine: Machine) -> Iterator[int]:
    anchor = spec.anchor
    if not isinstance(anchor, MatrixAnchor) or anchor.depthwise:
        yield 1
        return
    per_group = spec.operands[anchor.act][3] // anchor.groups
    if spec.product is not None:
        yield per_group
        return
    lanes = machine.mmu.shape(anchor.mode).k
    step = lanes + lanes % 2 if _paired_reduction(spec) else lanes
    sizes = [s if s == per_group else -(-s // step) * step for s in _halvings(per_group)]
    yield from dict.fromkeys(size for size in sizes if size <= MAX_COUNT)


def _pixel_sizes(
    spec: KernelSpec, machine: Machine, slots: int, tile_c: int, h: int, w: int
) -> Iterator[tuple[int, int]]:
    """Rows and columns of the tiles to try, largest first; ``slots`` of them fit their room, or the least is tried."""
    room, pixel = _pixel_room(spec, machine, slots, tile_c)
    tried: set[tuple[int, int]] = set()
    for tile_w in _halvings(w):
        for tile_h in _halvings(h):
            rows, columns = _produced(spec, tile_h, tile_w)
            if rows * columns * pixel > room or max(rows, columns) > MAX_COUNT or (tile_h, tile_w) in tried:
                continue
            tried.add((tile_h, tile_w))
            yield tile_h, tile_w
            if len(tried) >= 6:
                return
        if tried and tile_w == w:
            return
    if not tried:
        yield 1, 1


def _pixel_room(spec: KernelSpec, machine: Machine, slots: int, tile_c: int) -> tuple[int, int]:
    """Bytes for a tile's pixels, and bytes of one: of accumulators, or of rings in half of the SRAM."""
    anchor, channels = spec.anchor, spec.row_channels or tile_c
    if not isinstance(anchor, MatrixAnchor):
        made = spec.inner or spec.output
        tensors = [(spec.operands[i], spec.dtypes[i]) for _, i in spec.reads]
        tensors.append((spec.output, spec.stored.output))
        if spec.inner is not None:
            tensors.append((spec.inner, spec.program.output))
        held = sum(prod(shape[1:3]) * row_bytes(min(channels, shape[3]), dtype) for shape, dtype in tensors)
        return machine.sram.bytes // (2 * slots), -(-held // prod(made[1:3]))
    pixel = acc_pixel_bytes(channels, machine, anchor.mode)
    if spec.product is not None and spec.inner is not None:
        scores = acc_pixel_bytes(spec.inner[3], machine, anchor.mode)
        pixel = acc_pixel_bytes(tile_c, machine, spec.product.mode) + scores
    return machine.acc.bytes // slots, pixel


def _one_factor_per_image(spec: KernelSpec, tile_k: int) -> bool:
    """Whether a product reads an activation as its weight, all of it at once: two of them may be more than the SRAM."""
    anchor = spec.anchor
    return isinstance(anchor, MatrixAnchor) and anchor.dynamic_weight and _chunks(spec, tile_k) == 1


def _chunks(spec: KernelSpec, tile_k: int) -> int:
    anchor = spec.anchor
    if not isinstance(anchor, MatrixAnchor) or anchor.depthwise:
        return 1
    return -(-(spec.operands[anchor.act][3] // anchor.groups) // tile_k)


def _produced(spec: KernelSpec, tile_h: int, tile_w: int) -> tuple[int, int]:
    if spec.pool is None:
        return tile_h, tile_w
    window, inner = spec.pool.window, spec.inner
    assert inner is not None
    if spec.product is not None:
        return tile_h, tile_w
    rows = min((tile_h - 1) * window.stride[0] + window.extent(0), inner[1])
    return rows, min((tile_w - 1) * window.stride[1] + window.extent(1), inner[2])
