"""Estimated cycles, traffic and SRAM of one kernel under one schedule.

The closed forms are the ISA's own (``isa.cycles``); what is estimated is only how the engines overlap: a kernel takes
as long as its busiest engine, plus filling the pipeline with the first tile and draining the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, gcd, prod

from compiler.ir.kernel import KernelSpec, MatrixAnchor, PoolAnchor, ResizeAnchor, Shape4, VectorProgram
from compiler.ir.place import ELEMENT_BYTES, packed_strides, stored
from compiler.ir.tiling import Tiling
from isa.cycles import RESIZE_TAPS, depthwise_cycles, dma_cycles, mmu_cycles, vcu_cycles, vcu_passes
from isa.instructions import STORED_BITS, DType, Mode, RowReduce
from isa.machine import Machine

TILE_OVERHEAD_CYCLES = 32
"""Setup, dispatch and synchronization of one tile: about eight instructions, seen from the busiest engine."""
ACC_ROLES = ("acc", "product")
"""Rings in the accumulators."""
ON_CHIP_ROLES = (*ACC_ROLES, "inner", "rows")
"""Rings through which no DRAM traffic passes."""
FACTOR_ROLES = ("rhs", "second", "weight")
"""Rings of ``weight_slots`` slots."""
FIRST_ROLES = ("act", "rhs", "stream", "row", "weight")


@dataclass(frozen=True)
class Residency:
    """Which operands, and whether the result, lie in SRAM for as long as they live."""

    operands: tuple[bool, ...]
    output: bool
    gaps: tuple[Shape4 | None, ...] = ()
    """Byte strides of operands, and last of the result, that lie in DRAM and are not packed; else None, or nothing."""

    def strides(self, index: int) -> Shape4 | None:
        """Those of an operand, or with -1 of the result."""
        return self.gaps[index] if self.gaps else None


@dataclass(frozen=True)
class KernelCost:
    """Estimates of one kernel: cycles by engine, DRAM bytes, and the SRAM bytes of its channels."""

    cycles: int
    mmu: int
    vcu: int
    dma: int
    dram_bytes: int
    sram_bytes: int
    acc_bytes: int


@dataclass(frozen=True)
class ChannelSize:
    """A ring that a kernel needs: role, operand (or -1), slots and bytes of one slot."""

    role: str
    operand: int
    slots: int
    slot_bytes: int

    @property
    def bytes(self) -> int:
        """SRAM bytes of the ring."""
        return self.slots * self.slot_bytes


def aligned(size: int, align: int = 64) -> int:
    """``size`` rounded up to ``align``."""
    return -(-size // align) * align


def params_bytes(spec: KernelSpec, channels: int) -> int:
    """Bytes of the parameter vectors of a kernel's programs over ``channels`` channels."""
    return 4 * sum(len(program.params) for program in spec.programs) * channels


def weight_block_bytes(tiling: Tiling, channels: int) -> int:
    """Bytes of the weights of ``channels`` output channels over one reduction chunk."""
    anchor = tiling.spec.anchor
    assert isinstance(anchor, MatrixAnchor)
    dtype, taps = tiling.spec.dtypes[anchor.weight], anchor.window.taps
    zeros = 2 * channels + 1 if anchor.weight_zeros else 0
    if anchor.depthwise:
        return taps * row_bytes(channels, dtype) + zeros
    return channels * row_bytes(taps * min(tiling.schedule.tile_k, tiling.group_inputs), dtype) + zeros


def row_bytes(elements: int, dtype: DType) -> int:
    """Bytes of a row of elements; one of 4-bit codes ends in a whole byte."""
    return -(-elements * STORED_BITS[dtype] // 8)


def box_bytes(sizes: Sequence[int], dtype: DType) -> int:
    """Bytes of a box of elements (..., channels)."""
    return prod(sizes[:-1]) * row_bytes(sizes[-1], dtype)


def burst_bytes(
    shape: Shape4, sizes: tuple[int, int, int], element: int, burst: int, strides: Shape4 | None = None
) -> int:
    """DRAM bytes, whole bursts, of moving a box of ``sizes`` (h, w, c); ``strides`` (bytes) if it is not packed."""
    steps = (strides or packed_strides(shape, element))[1:]
    run, grain, runs = element, burst, prod(sizes)
    order = sorted(range(3), key=lambda a: (steps[a], -a))
    while order and (sizes[order[0]] == 1 or steps[order[0]] == run):
        axis = order.pop(0)
        run, runs = run * sizes[axis], runs // sizes[axis]
        if sizes[axis] < shape[1 + axis]:
            grain = gcd(grain, sizes[axis] * steps[axis])
            break
    grain = gcd(grain, *(steps[axis] for axis in order if shape[1 + axis] > 1))
    # A run starts at any multiple of the grain alike, so on average it touches this many bytes of whole bursts.
    return runs * (aligned(run, grain) + burst - grain)


def stored_bursts(
    shape: Shape4, sizes: tuple[int, int, int], dtype: DType, burst: int, strides: Shape4 | None = None
) -> int:
    """:func:`burst_bytes` of a box of codes or numbers, with shape and sizes in these."""
    (_, h, w, c), element = stored((1, *sizes), dtype)
    return burst_bytes(stored(shape, dtype)[0], (h, w, c), element, burst, strides)


def acc_pixel_bytes(channels: int, machine: Machine, mode: Mode | None = None) -> int:
    """Bytes between pixels in the accumulators: whole rows of output lanes of ``mode`` (None: the first built)."""
    if mode is None:
        mode = machine.mmu.modes[0]
    return aligned(channels, machine.mmu.shape(mode).n) * ELEMENT_BYTES[mode.accumulator]


def channels(tiling: Tiling, residency: Residency, machine: Machine) -> tuple[ChannelSize, ...]:
    """The rings of a kernel, accumulators included (role "acc"); operands that lie in SRAM need none."""
    spec, s = tiling.spec, tiling.schedule
    anchor = spec.anchor
    out = tile_sizes(tiling)
    inner = anchor_sizes(tiling)
    sizes: list[ChannelSize] = []
    slots = {"act": s.input_slots, "rhs": s.weight_slots, "second": s.weight_slots}
    for role, operand in spec.reads:
        if residency.operands[operand]:
            continue
        bytes_ = box_bytes([r.size for r in tiling.max_box(role, operand)], spec.dtypes[operand])
        sizes.append(ChannelSize(role, operand, slots.get(role, s.stream_slots), aligned(bytes_)))
    if isinstance(anchor, MatrixAnchor):
        if not anchor.dynamic_weight:
            block = weight_block_bytes(tiling, inner[2])
            sizes.append(ChannelSize("weight", anchor.weight, s.weight_slots, aligned(block)))
        acc = inner[0] * inner[1] * acc_pixel_bytes(inner[2], machine, anchor.mode)
        sizes.append(ChannelSize("acc", -1, s.output_slots, acc))
    if spec.product is not None:
        acc = out[0] * out[1] * acc_pixel_bytes(out[2], machine, spec.product.mode)
        sizes.append(ChannelSize("product", -1, s.output_slots, acc))
    if spec.row_results:
        # Only the vector unit uses them, in order: one slot is enough.
        sizes.append(ChannelSize("rows", -1, 1, aligned(4 * spec.row_results * inner[0] * inner[1])))
    wide = tiling.conv_shape[3] if s.whole_params else inner[2]
    if params := params_bytes(spec, wide):
        sizes.append(ChannelSize("params", -1, 1 if s.whole_params else s.weight_slots, aligned(params)))
    if spec.pool is not None:
        sizes.append(ChannelSize("inner", -1, s.stream_slots, aligned(box_bytes(inner, spec.program.output))))
    if not residency.output:
        bytes_ = tiling.images * box_bytes(out, spec.stored.output)
        sizes.append(ChannelSize("output", -1, s.output_slots, aligned(bytes_)))
    return tuple(sizes)


def tile_sizes(tiling: Tiling) -> tuple[int, int, int]:
    """Rows, columns and channels of an output tile."""
    s, (_, h, w, c) = tiling.schedule, tiling.spec.output
    return min(s.tile_h, h), min(s.tile_w, w), min(s.tile_c, c)


def anchor_sizes(tiling: Tiling) -> tuple[int, int, int]:
    """Rows, columns and channels that the anchor produces per tile."""
    h, w, c = tile_sizes(tiling)
    pool = tiling.spec.pool
    if pool is None:
        return h, w, c
    if isinstance(pool, MatrixAnchor):
        return h, w, tiling.conv_shape[3]
    _, high, wide, _ = tiling.conv_shape
    rows = min((h - 1) * pool.window.stride[0] + pool.window.extent(0), high)
    return rows, min((w - 1) * pool.window.stride[1] + pool.window.extent(1), wide), c


def _loads(tiling: Tiling, depends: str, chunks: int, slots: int) -> int:
    """How often a ring is filled: exact where all tiles are full.

    The inner loops whose boxes all fit the ring fill it once per step of the loops around them that matter.
    """
    counts, order = tiling.counts, tiling.schedule.order
    sweep, depth = chunks, len(order)
    if chunks <= slots:
        while depth and sweep * (step := counts[order[depth - 1]] if order[depth - 1] in depends else 1) <= slots:
            sweep, depth = sweep * step, depth - 1
        # Loops that do not matter, just around the sweep, find everything where it was.
        while depth and (order[depth - 1] not in depends or counts[order[depth - 1]] == 1):
            depth -= 1
    return sweep * prod(counts[d] for d in order[:depth])


@dataclass(frozen=True)
class Work:
    """Cycles of the engines that compute, of one full tile and of the whole kernel, and those that its tiles add."""

    mmu_tile: int
    vcu_tile: int
    mmu: int
    vcu: int
    steps: int

    @property
    def least(self) -> int:
        """No kernel of this work takes fewer cycles."""
        return max(self.mmu, self.vcu) + self.steps


def kernel_work(tiling: Tiling, machine: Machine) -> Work:
    """What a kernel computes: closed forms per tile, times tiles. Where its operands lie does not matter."""
    spec, s = tiling.spec, tiling.schedule
    anchor = spec.anchor
    h, w, c = anchor_sizes(tiling)
    mmu_tile = 0
    if isinstance(anchor, MatrixAnchor):
        if anchor.depthwise:
            mmu_tile = depthwise_cycles(h * w, anchor.window.taps, c, machine, anchor.mode)
        else:
            depth = anchor.window.taps * min(s.tile_k, tiling.group_inputs)
            pieces = max(1, -(-c // tiling.group_outputs))
            mmu_tile = tiling.counts["k"] * pieces * mmu_cycles(h * w, depth, -(-c // pieces), machine, anchor.mode)
    if spec.product is not None:
        mmu_tile += mmu_cycles(h * w, c, tile_sizes(tiling)[2], machine, spec.product.mode)
    strided = spec.movement is not None
    vcu_tile = vcu_cycles(h * w * c, program_slots(spec.program, machine), taps_of(anchor), machine, strided)
    for stage in spec.stages:
        width = (spec.row_channels or c) if stage.reduce is not RowReduce.NONE else 1
        vcu_tile += vcu_cycles(h * w * width, program_slots(stage.program, machine), 1, machine)
    if spec.pool_program is not None:
        out = prod(tile_sizes(tiling))
        vcu_tile += vcu_cycles(out, program_slots(spec.pool_program, machine), taps_of(spec.pool), machine)
    tiles = prod(tiling.counts[d] for d in "nhwc")
    edge = edge_factor(tiling)
    steps = TILE_OVERHEAD_CYCLES * tiles * tiling.counts["k"]
    return Work(mmu_tile, vcu_tile, ceil(mmu_tile * tiles * edge), ceil(vcu_tile * tiles * edge), steps)


def kernel_cost(tiling: Tiling, residency: Residency, machine: Machine, work: Work | None = None) -> KernelCost:
    """Estimate a kernel: its ``work`` (counted here if it is not given) and its traffic, overlapped."""
    s = tiling.schedule
    work = work or kernel_work(tiling, machine)
    rings = channels(tiling, residency, machine)
    burst = machine.dram.burst_bytes
    traffic = [(r.role, _traffic(tiling, r, residency, burst)) for r in rings if r.role not in ON_CHIP_ROLES]
    dram = sum(size for _, size in traffic)
    dma = dma_cycles(1, dram, machine)
    first = dma_cycles(1, sum(r.slot_bytes for r in rings if r.role in FIRST_ROLES), machine)
    last = work.vcu_tile + dma_cycles(1, sum(r.slot_bytes for r in rings if r.role == "output"), machine)
    # What the busiest engine cannot hide: filling the pipeline in front of it and draining it behind.
    exposed = first + last if work.mmu >= max(work.vcu, dma) else first + work.mmu_tile + last
    overlap = s.output_slots > 1
    parallel = max(work.mmu, work.vcu, dma) if overlap else work.mmu + work.vcu + dma
    if overlap and s.weight_slots == 1:
        # Nothing runs while the only slot is filled again.
        exposed += dma_cycles(1, sum(size for role, size in traffic if role in FACTOR_ROLES), machine)
    sram = sum(r.bytes for r in rings if r.role not in ACC_ROLES)
    acc = sum(r.bytes for r in rings if r.role in ACC_ROLES)
    return KernelCost(parallel + exposed + work.steps, work.mmu, work.vcu, dma, dram, sram, acc)


def program_slots(program: VectorProgram, machine: Machine) -> int:
    """Stage slots that a vector program takes."""
    return vcu_passes((op.func for op in program.ops), machine) * machine.vcu.stages


def taps_of(anchor: object) -> int:
    """Elements of stream A that one output of a window reduction or an interpolation reads; else 1."""
    if isinstance(anchor, ResizeAnchor):
        return RESIZE_TAPS[anchor.kind]
    return anchor.window.taps if isinstance(anchor, PoolAnchor) else 1


def edge_factor(tiling: Tiling) -> float:
    """Real outputs over the outputs of full tiles: the last tile of a dimension may be short."""
    sizes = tile_sizes(tiling)
    real = prod(tiling.spec.output)
    counts = tiling.counts
    return real / (counts["n"] * tiling.images * prod(counts[d] * t for d, t in zip("hwc", sizes, strict=True)))


def _traffic(tiling: Tiling, ring: ChannelSize, residency: Residency, burst: int) -> int:
    """DRAM bytes that pass through a ring."""
    spec = tiling.spec
    anchor, chunks = spec.anchor, tiling.counts["k"]
    if ring.role == "output":
        tiles = prod(tiling.counts[d] for d in "nhwc") * edge_factor(tiling)
        written = residency.strides(-1)
        return ceil(tiles * stored_bursts(spec.output, tile_sizes(tiling), spec.stored.output, burst, written))
    if ring.role == "params":
        return (1 if tiling.schedule.whole_params else _loads(tiling, "c", 1, ring.slots)) * ring.slot_bytes
    if ring.role == "weight":
        return _loads(tiling, "c", chunks, ring.slots) * ring.slot_bytes
    shape = spec.operands[ring.operand]
    _, h, w, c = (r.size for r in tiling.max_box(ring.role, ring.operand))
    each = stored_bursts(shape, (h, w, c), spec.dtypes[ring.operand], burst, residency.strides(ring.operand))
    if ring.role in ("rhs", "second"):
        return _loads(tiling, "nc", chunks, ring.slots) * each
    if ring.role == "act" and isinstance(anchor, MatrixAnchor):
        depends = "nhwc" if anchor.groups > 1 else "nhw"
        return _loads(tiling, depends, 1 if anchor.depthwise else chunks, ring.slots) * each
    depends = "".join(d for d, size in zip("nhwc", shape, strict=True) if size > 1)
    return _loads(tiling, depends, 1, ring.slots) * each
