"""Estimated energy of one kernel under one schedule: events of its tiles, by the ISA's own prices.

What is estimated is what depends on addresses (words of a stream that lies with gaps) and on neighbours (a fetch of
instructions, an idle cycle): see :mod:`compiler.analysis.cost`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from compiler.analysis.cost import KernelCost, anchor_sizes, edge_factor, taps_of, tile_sizes
from compiler.ir.kernel import KernelSpec, MatrixAnchor, VectorProgram
from compiler.ir.tiling import Tiling
from isa.cost import EVENTS, dense, depthwise, program_events
from isa.energy import EnergyModel, Event
from isa.instructions import STORED_BITS, DType, RowReduce
from isa.machine import Machine


def kernel_femtojoules(tiling: Tiling, cost: KernelCost, machine: Machine, model: EnergyModel) -> int:
    """Nominal femtojoules of a kernel whose cycles and DRAM traffic ``cost`` estimates, with its share of leakage."""
    events = [0.0] * EVENTS
    _mmu(tiling, machine, events)
    for elements, program, streams in _programs(tiling.spec):
        _vector(program, elements, streams, machine, events)
    events[Event.DRAM_READ_BYTE] += cost.dram_bytes
    events[Event.SRAM_WRITE_WORD] += cost.dram_bytes / machine.sram.word_bytes
    dynamic = sum(events[e] * (model.event[e].nominal + model.clock[e].nominal) for e in Event)
    return round(dynamic + cost.cycles * sum(band.nominal for band in model.cycle.values()))


def _mmu(tiling: Tiling, machine: Machine, events: list[float]) -> None:
    spec, anchor = tiling.spec, tiling.spec.anchor
    tiles = prod(tiling.counts[d] for d in "nhwc") * edge_factor(tiling)
    h, w, c = anchor_sizes(tiling)
    if isinstance(anchor, MatrixAnchor):
        codebook = bool(anchor.codebook)
        if anchor.depthwise:
            taps, stride = anchor.window.taps, anchor.window.stride[1]
            fresh = anchor.window.kernel[0] * min(anchor.window.kernel[1], stride)
            one = depthwise(h * w, taps, fresh, c, 0, machine, anchor.mode, 0, codebook)
            _add(events, one.counts, tiles)
        else:
            depth = anchor.window.taps * min(tiling.schedule.tile_k, tiling.group_inputs)
            pieces = max(1, -(-c // tiling.group_outputs))
            one = dense(h * w, depth, -(-c // pieces), 0, machine, anchor.mode, 0, codebook)
            _add(events, one.counts, tiles * tiling.counts["k"] * pieces)
    if spec.product is not None:
        second = dense(h * w, c, tile_sizes(tiling)[2], 0, machine, spec.product.mode, 0, bool(spec.product.codebook))
        _add(events, second.counts, tiles)


def _add(events: list[float], counts: Iterable[int], times: float) -> None:
    for event, count in enumerate(counts):
        events[event] += count * times


def _programs(spec: KernelSpec) -> list[tuple[int, VectorProgram, int]]:
    """(elements, program, elements of stream A per element) of everything that the vector unit runs."""
    inner = spec.inner or spec.output
    rows = prod(inner[:3])
    swept = rows * (spec.row_channels or inner[3])
    stages = [(rows if s.reduce is RowReduce.NONE else swept, s.program, 1) for s in spec.stages]
    last = [] if spec.pool_program is None else [(prod(spec.output), spec.pool_program, taps_of(spec.pool))]
    return [*stages, (prod(inner), spec.program, taps_of(spec.anchor)), *last]


def _vector(program: VectorProgram, elements: int, taps: int, machine: Machine, events: list[float]) -> None:
    row = [0] * EVENTS
    program_events((op.func for op in program.ops), elements, row)
    word_bits = 8 * machine.sram.word_bytes
    for i, stream in enumerate(program.streams):
        read = elements * (taps if i == 0 else 1)
        from_acc = stream.operand is None and stream.dtype not in (DType.I4, DType.I8, DType.I16)
        words = read * STORED_BITS[stream.dtype] // word_bits
        row[Event.ACC_READ_WORD if from_acc else Event.SRAM_READ_WORD] += words
        row[Event.VCU_ADD] += elements if stream.dtype is not DType.F32 else 0
        row[Event.VCU_MUL] += elements if stream.scale else 0
    row[Event.SRAM_WRITE_WORD] += elements * STORED_BITS[program.output] // word_bits
    if program.output is not DType.F32:
        row[Event.VCU_MUL] += elements
        row[Event.VCU_ADD] += 3 * elements
    _add(events, row, 1.0)

