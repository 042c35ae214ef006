"""What the cost model says moves is what moves; rings are as large as their largest box."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.analysis.cost import Residency, burst_bytes, channels, kernel_cost
from compiler.ir.channel import Ring
from compiler.ir.kernel import KernelSpec, MatrixAnchor, PoolAnchor, Stream, VectorProgram, Window
from compiler.ir.place import ELEMENT_BYTES
from compiler.ir.schedule import KernelSchedule
from compiler.ir.tiling import Tiling
from compiler.pipeline import Options, compile_module
from isa.access import Memory, accesses
from isa.instructions import DType, Reduce
from isa.machine import Machine
from isa.program import decode
from isa.state import State
from tests.compiler.kern_graphs import POSITIVE, conv, graph, q, relu

TINY = Machine.load("tiny")
BURST = TINY.dram.burst_bytes
EXACT = st.sampled_from([1, 2, 4])


def matrix(groups: int = 1, taps: int = 1, n: int = 2) -> KernelSpec:
    """A convolution [n, 4, 4, 8] to 8 channels with a residual and a per-channel stream."""
    anchor = MatrixAnchor(0, 1, Window((taps, taps), pad=(taps // 2,) * 2), groups, 0, depthwise=groups == 8)
    streams = (Stream(None, DType.I32), Stream(2, DType.I8, 0, 1.0), Stream(3, DType.F32))
    image = (n, 4, 4, 8)
    return KernelSpec(
        "k", (image, (8, taps, taps, 8 // groups), image, (1, 1, 1, 8)),
        (DType.I8, DType.I8, DType.I8, DType.F32), image, anchor, VectorProgram(streams, (), DType.I8),
    )  # fmt: skip


def schedule(draw: st.DrawFn) -> KernelSchedule:
    slots = st.sampled_from([1, 2, 3, 4, 8, 64])
    order = "".join(draw(st.permutations("cnhw")))
    tiles = [draw(EXACT), draw(EXACT), draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4, 8]))]
    return KernelSchedule("k", (), *tiles, order, *(draw(slots) for _ in range(4)))


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    """Full tiles only; an ungrouped or depthwise convolution."""
    return Tiling(matrix(draw(st.sampled_from([1, 8])), draw(st.sampled_from([1, 3]))), schedule(draw))


def fills(tiling: Tiling, role: str, operand: int, slots: int) -> int:
    """Loads that a ring really does."""
    ring, count = Ring(slots), 0
    for tile in tiling.tiles():
        if role == "stream" and not tile.last_k:
            continue
        key = (tile.out.c, tile.k) if role == "weight" else tiling.box(role, operand, tile)
        if ring.find(key) is None:
            ring.push(key)
            count += 1
    return count


@given(tilings())
def test_traffic_is_what_the_rings_load(tiling):
    nothing = Residency((False,) * 4, False)
    rings = {(r.role, r.operand): r for r in channels(tiling, nothing, TINY)}
    expected = 0
    for (role, operand), ring in rings.items():
        if role == "weight":
            expected += fills(tiling, role, operand, ring.slots) * ring.slot_bytes
        if role in ("act", "stream"):
            shape = tiling.spec.operands[operand]
            box = tiling.max_box(role, operand)
            element = ELEMENT_BYTES[tiling.spec.dtypes[operand]]
            each = burst_bytes(shape, (box.h.size, box.w.size, box.c.size), element, BURST)
            expected += fills(tiling, role, operand, ring.slots) * each
    s, out = tiling.schedule, tiling.spec.output
    tiles = out[0] * (4 // s.tile_h) * (4 // s.tile_w) * (8 // s.tile_c)
    expected += tiles * burst_bytes(out, (s.tile_h, s.tile_w, s.tile_c), 1, BURST)
    assert kernel_cost(tiling, nothing, TINY).dram_bytes == expected


@given(tilings())
def test_a_ring_holds_the_largest_box(tiling):
    for ring in channels(tiling, Residency((False,) * 4, False), TINY):
        if ring.role in ("act", "stream"):
            largest = max(tiling.box(ring.role, ring.operand, t).elements for t in tiling.tiles())
            assert ring.slot_bytes >= largest * ELEMENT_BYTES[tiling.spec.dtypes[ring.operand]]


def test_what_lies_in_sram_needs_no_ring_and_no_traffic():
    tiling = Tiling(matrix(), KernelSchedule("k", (), 4, 4, 8, 8))
    everywhere = Residency((True, False, True, True), True)
    rings = channels(tiling, everywhere, TINY)
    assert {r.role for r in rings} == {"weight", "acc"}
    assert kernel_cost(tiling, everywhere, TINY).dram_bytes == 64


@pytest.mark.parametrize(
    ("sizes", "element", "expected"),
    [
        ((4, 8, 16), 1, 512),  # all of it: one run
        ((2, 8, 16), 1, 256),  # whole rows
        ((2, 4, 16), 1, 2 * 64),  # parts of rows
        ((2, 4, 8), 1, 8 * 32),  # parts of pixels: each in one burst
        ((2, 4, 12), 1, 8 * (12 + 32 - 4)),  # or in two, wherever the tile starts
        ((2, 4, 8), 4, 8 * 32),
    ],
)
def test_bursts_of_a_box(sizes, element, expected):
    assert burst_bytes((1, 4, 8, 16), sizes, element, 32) == expected


@given(pixel=st.integers(9, 40), run=st.integers(1, 8), pixels=st.integers(2, 6))
def test_bursts_of_parts_of_a_join_are_those_of_all_starts_on_average(pixel, run, pixels):
    element, burst = 4, 64
    strides = (8 * pixels * pixel * element, pixels * pixel * element, pixel * element, element)
    found = burst_bytes((1, 8, pixels, run), (1, pixels, run), element, burst, strides)
    grain = gcd(burst, *strides[1:3])
    starts = range(0, burst, grain)
    touched = sum(-(-(start + run * element) // burst) * burst for start in starts)
    assert found == pixels * touched / len(starts)


def test_what_a_kernel_reads_of_a_join_costs_the_bursts_that_it_touches():
    tiling = Tiling(matrix(), KernelSchedule("k", (), 4, 4, 8, 8))
    packed = Residency((False, True, True, True), True)
    shape = tiling.spec.operands[0]
    wide = 3 * shape[3]
    gaps = ((shape[1] * shape[2] * wide, shape[2] * wide, wide, 1), None, None, None, None)
    apart = kernel_cost(tiling, replace(packed, gaps=gaps), TINY)
    assert apart.dram_bytes > kernel_cost(tiling, packed, TINY).dram_bytes


def test_pools_read_their_taps():
    anchor = PoolAnchor(0, Window((3, 3), (2, 2), pad=(1, 1)), Reduce.MAX, 0, 0.0)
    program = VectorProgram((Stream(None, DType.I8),), (), DType.I8)
    spec = KernelSpec("k", ((1, 8, 8, 32),), (DType.I8,), (1, 4, 4, 32), anchor, program)
    assert spec.reads == (("act", 0),)
    tiling = Tiling(spec, KernelSchedule("k", (), 2, 4, 32, 1))
    (act, out) = channels(tiling, Residency((False,), False), TINY)
    assert (act.slot_bytes, out.slot_bytes) == (5 * 8 * 32, 2 * 4 * 32)


def moved(code: bytes) -> int:
    """Bytes that the loads and stores of a program move over the DRAM port."""
    state, total = State(), 0
    for instruction in decode(code):
        state.apply(instruction)
        if instruction.mnemonic.startswith(("load.copy", "load.tile", "store.copy", "store.tile")):
            touched = accesses(instruction, state)
            total += sum(b.bytes for b in (*touched.reads, *touched.writes) if b.space is not Memory.SRAM)
    return total


@pytest.mark.thin(1)
@pytest.mark.parametrize("double_buffer", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_traffic_of_a_program_is_what_the_model_says(double_buffer, keep):
    """Channels that fill bursts and tiles that divide the tensors: every estimate is exact."""

    def body(x):
        return relu(conv(q(relu(conv(q(x, POSITIVE), 32)), POSITIVE), 32))

    module = graph([(1, 32, 8, 8)], body)
    options = Options(double_buffer=double_buffer, share_loops=False)
    chosen = compile_module(module.clone(), TINY, options).schedule
    rows = tuple(replace(k, tile_h=4, tile_w=8, tile_c=32, tile_k=32, keep=keep) for k in chosen.kernels)
    binary = compile_module(module, TINY, Options(schedule=replace(chosen, kernels=rows))).binary
    image, weights, params = 8 * 8 * 32, 32 * 32, 2 * 4 * 32
    between = 0 if keep else 2 * 2 * image
    assert moved(binary.code) == 4 * image + between + 2 * (weights + params) + 4 * image
