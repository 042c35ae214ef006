"""What an instruction costs, in closed form: cycles, DRAM service, SRAM words and energy events.

Nothing here touches data or addresses' contents: a cost follows from the instruction, the sticky state and
the machine. ``docs/machines.md`` derives the formulas. All arithmetic is on integers, so time is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from isa.access import CODES, ELEMENT_BYTES, parameters, row_bytes
from isa.cycles import (
    CHEAP_FUNCS,
    RESIZE_TAPS,
    ceil_div,
    depthwise_cycles,
    dram_cycles,
    mmu_cycles,
    steps,
    vcu_passes,
)
from isa.encoding import Instruction
from isa.energy import Event
from isa.instructions import (
    STORED_BITS,
    DType,
    Func,
    Halt,
    LoadCopy,
    LoadSync,
    LoadTile,
    MmuRun,
    MmuSync,
    Mode,
    Reduce,
    RowReduce,
    Space,
    StoreCopy,
    StoreSync,
    StoreTile,
    VcuRun,
    VcuStream,
    VcuSync,
)
from isa.instructions.vcu import STREAM_OUTPUT
from isa.machine import Machine
from isa.state import SETTERS, State

LOCAL_WORDS = {mode: STORED_BITS[mode.accumulator] // 32 for mode in Mode}
"""Words of 32 bits, the unit of their energy events, in which a local accumulator is read and written."""
EVENTS = len(Event)


class Cost(NamedTuple):
    """Price of one instruction.

    ``cycles``: engine occupation without contention. ``dram``: cycles of the DRAM server within it.
    ``words``: SRAM words moved (bank demand). ``counts``: events, indexed by :class:`isa.energy.Event`.
    """

    cycles: int
    dram: int
    words: int
    counts: tuple[int, ...]


def cost(instruction: Instruction, state: State, machine: Machine) -> Cost:
    """Price of ``instruction`` under ``state`` on ``machine``."""
    return COSTS[type(instruction)](instruction, state, machine)


def cycles(instruction: Instruction, state: State, machine: Machine) -> int:
    """Cycles that ``instruction`` occupies its engine when nothing contends."""
    return cost(instruction, state, machine).cycles


def events(instruction: Instruction, state: State, machine: Machine) -> Mapping[Event, int]:
    """Energy events of ``instruction``; zero counts are left out."""
    counts = cost(instruction, state, machine).counts
    return {event: counts[event] for event in Event if counts[event]}


def _counts(**found: int) -> tuple[int, ...]:
    row = [0] * EVENTS
    row[Event.INSTRUCTION] = 1
    for name, count in found.items():
        row[Event[name]] = count
    return tuple(row)


ONE_CYCLE = Cost(1, 0, 0, _counts())


def _one_cycle(_inst: Instruction, _state: State, _machine: Machine) -> Cost:
    """1 cycle."""
    return ONE_CYCLE


@lru_cache(maxsize=65536)
def bursts(start: int, run: int, n0: int, s0: int, n1: int, s1: int, burst: int) -> int:
    """DRAM bursts that n0 x n1 runs touch; runs that meet are one run."""
    if not run or not n0 or not n1:
        return 0
    loops = sorted(((s, n) for n, s in ((n0, s0), (n1, s1)) if n > 1), reverse=True)
    while loops and loops[-1][0] == run:
        run *= loops.pop()[1]
    residues = {start % burst: 1}
    for stride, n in loops:
        # Places within a burst repeat with this period, so that huge counts cost no more than small ones.
        period = burst // gcd(stride, burst)
        spread: dict[int, int] = {}
        for first, count in residues.items():
            for i in range(min(n, period)):
                place = (first + i * stride) % burst
                spread[place] = spread.get(place, 0) + count * (n // period + (i < n % period))
        residues = spread
    return sum(count * ((first + run - 1) // burst + 1) for first, count in residues.items())


def _moved_words(run: int, loops: tuple[int, ...], word: int) -> int:
    """SRAM words of a box: pieces that lie together on both sides move whole words, the rest one piece each.

    So a transposing tile, contiguous on each side but not in the same order, takes a word per element.
    """
    n0, n1, dram0, dram1, sram0, sram1 = loops
    both = sorted(((dram, sram, n) for n, dram, sram in ((n0, dram0, sram0), (n1, dram1, sram1)) if n > 1))
    pieces = n0 * n1
    for dram, sram, n in both:
        if dram != run or sram != run:
            break
        run *= n
        pieces //= n
    return pieces * ceil_div(run, word)


@lru_cache(maxsize=65536)
def _dma(start: int, run: int, loops: tuple[int, ...], store: bool, machine: Machine) -> Cost:
    n0, n1, dram0, dram1 = loops[:4]
    burst = machine.dram.burst_bytes
    transferred = bursts(start % burst, run, n0, dram0, n1, dram1, burst) * burst
    words = _moved_words(run, loops, machine.sram.word_bytes)
    service = dram_cycles(transferred, machine)
    if store:
        counts = _counts(DRAM_WRITE_BYTE=transferred, SRAM_READ_WORD=words)
    else:
        counts = _counts(DRAM_READ_BYTE=transferred, SRAM_WRITE_WORD=words)
    return Cost(max(1, service, words), service, words, counts)


ONE_RUN = (1, 1, 0, 0, 0, 0)


def _copy(inst: Instruction, _state: State, machine: Machine) -> Cost:
    """DRAM service of the bursts touched, at least 1 SRAM word per cycle; latency comes before the first byte."""
    assert isinstance(inst, LoadCopy | StoreCopy)
    burst = machine.dram.burst_bytes
    return _dma(inst.offset % burst, inst.bytes, ONE_RUN, isinstance(inst, StoreCopy), machine)


def _tile(inst: Instruction, state: State, machine: Machine) -> Cost:
    """As a copy, summed over the runs of the box."""
    assert isinstance(inst, LoadTile | StoreTile)
    store = isinstance(inst, StoreTile)
    shape, by = (state.store_shape, state.store_strides) if store else (state.load_shape, state.load_strides)
    loops = (shape.n0, shape.n1, by.dram0, by.dram1, by.sram0, by.sram1)
    return _dma(inst.offset % machine.dram.burst_bytes, shape.run, loops, store, machine)


def _mmu_run(inst: Instruction, state: State, machine: Machine) -> Cost:
    """Dense: pipeline + weight fill + k tiles x n tiles x rows + drain; depthwise: pixels x tap groups x n tiles."""
    assert isinstance(inst, MmuRun)
    out, window = state.mmu_output, state.mmu_window
    m, taps = out.height * out.width, window.kernel_h * window.kernel_w
    zeros = ceil_div(2 * inst.n, machine.sram.word_bytes) if state.mmu_codes.per_channel else 0
    half = bool(state.mmu_codes.decode)
    if inst.depthwise:
        columns = min(window.kernel_w, window.stride_w) if window.dilation_w == 1 else window.kernel_w
        return depthwise(
            m, taps, window.kernel_h * columns, inst.n, inst.accumulate, machine, inst.mode, zeros, half
        )
    k = taps * state.mmu_input.channels
    return dense(m, k, inst.n, inst.accumulate, machine, inst.mode, zeros, half)


@lru_cache(maxsize=65536)
def dense(
    m: int, k: int, n: int, accumulate: int, machine: Machine, mode: Mode, zeros: int, decode: bool
) -> Cost:
    """Of M x K x N; ``zeros``: words of weight zero points; ``decode``: activations are stored as 4-bit codes."""
    mmu, lanes, word = machine.mmu, machine.mmu.shape(mode), machine.sram.word_bytes
    tiles_k, tiles_n = ceil_div(k, lanes.k), ceil_div(n, lanes.n)
    chunks = ceil_div(m, mmu.acc_rows)
    steps_done = m * tiles_k * tiles_n
    weight_bytes = ceil_div(chunks * k * n * STORED_BITS[mode.weight], 8)
    act_bits = STORED_BITS[DType.I4 if decode else mode.activation]
    read = ceil_div(steps_done * lanes.k * act_bits, 8 * word) + ceil_div(weight_bytes, word) + zeros
    acc_words = ceil_div(STORED_BITS[mode.accumulator] // 8 * m * n, word)
    # The first of the k steps starts from zero; the drain reads what the last one left.
    accumulations = m * tiles_k * n * LOCAL_WORDS[mode]
    counts = _counts(
        **{f"MAC_{mode.name}": m * k * n, f"IDLE_{mode.name}": steps_done * lanes.macs - m * k * n},
        WEIGHT_LATCH_BYTE=weight_bytes,
        LOCAL_ACCUMULATOR_READ=accumulations,
        LOCAL_ACCUMULATOR_WRITE=accumulations,
        ACC_READ_WORD=acc_words if accumulate else 0,
        ACC_WRITE_WORD=acc_words,
        SRAM_READ_WORD=read,
    )
    busy = max(mmu_cycles(m, k, n, machine, mode), ceil_div(read, machine.sram.banks))
    return Cost(max(1, busy), 0, read, counts)


@lru_cache(maxsize=65536)
def depthwise(
    m: int, taps: int, fresh: int, n: int, accumulate: int, machine: Machine, mode: Mode, zeros: int, decode: bool
) -> Cost:
    """Of M pixels of N channels; ``fresh``: input pixels per output that the window's buffer does not already hold."""
    mmu, lanes, word = machine.mmu, machine.mmu.shape(mode), machine.sram.word_bytes
    groups = ceil_div(taps, mmu.taps(mode))
    steps_done = m * groups * ceil_div(n, lanes.n)
    act_bits = STORED_BITS[DType.I4 if decode else mode.activation]
    weight_bytes = ceil_div(taps * n * STORED_BITS[mode.weight], 8)
    read = m * fresh * ceil_div(n * act_bits, 8 * word) + ceil_div(weight_bytes, word) + zeros
    acc_words = ceil_div(STORED_BITS[mode.accumulator] // 8 * m * n, word)
    accumulations = m * groups * n * LOCAL_WORDS[mode]
    counts = _counts(
        **{f"MAC_{mode.name}": m * taps * n, f"IDLE_{mode.name}": steps_done * lanes.macs - m * taps * n},
        WEIGHT_LATCH_BYTE=weight_bytes,
        LOCAL_ACCUMULATOR_READ=accumulations,
        LOCAL_ACCUMULATOR_WRITE=accumulations,
        ACC_READ_WORD=acc_words if accumulate else 0,
        ACC_WRITE_WORD=acc_words,
        SRAM_READ_WORD=read,
    )
    busy = max(depthwise_cycles(m, taps, n, machine, mode), ceil_div(read, machine.sram.banks))
    return Cost(max(1, busy), 0, read, counts)


def stream_words(stream: VcuStream, shape: tuple[int, int, int], word: int) -> int:
    """Words that a stream moves; a broadcast is held in the lanes, an element with gaps takes a word."""
    n0, n1, n2 = shape
    size = ELEMENT_BYTES[stream.dtype]
    if stream.dtype is DType.I4 and stream.stride2:
        n2 = ceil_div(n2, 2)  # a byte holds two
    rows = (n0 if stream.stride0 else 1) * (n1 if stream.stride1 else 1)
    if n0 * n1 * n2 == 0:
        return 0
    if stream.stride2 == 0 or n2 == 1:
        gapless = stream.stride1 == size and stream.stride0 in (0, n1 * size)
        return ceil_div(rows * size, word) if gapless else rows
    if stream.stride2 != size:
        return rows * n2
    row = n2 * size
    dense = stream.stride1 in (0, row) and (n0 == 1 or stream.stride0 in (0, (n1 if stream.stride1 else 1) * row))
    return ceil_div(rows * row, word) if dense else rows * ceil_div(row, word)


def _vcu_run(inst: Instruction, state: State, machine: Machine) -> Cost:
    """Pipeline + ceil(elements / lanes) x max(passes, taps), at least the SRAM words over the banks."""
    assert isinstance(inst, VcuRun)
    shape = (state.vcu_shape.n0, state.vcu_shape.n1, state.vcu_shape.n2)
    elements, window = shape[0] * shape[1] * shape[2], state.vcu_window
    word, vcu = machine.sram.word_bytes, machine.vcu
    taps = 1 if window.reduce == Reduce.NONE else max(1, window.kernel_h * window.kernel_w)
    taps = max(taps, RESIZE_TAPS[state.vcu_resizes[0].kind])
    reduce = state.vcu_reduce
    row = [0] * EVENTS
    row[Event.INSTRUCTION] = 1
    program_events((op.func for op in state.program(inst.first, inst.count)), elements, row)
    if taps > 1:
        row[Event.VCU_ADD] += elements * taps
    stores = reduce.kind == RowReduce.NONE or reduce.elements
    used = [*range(min(inst.streams, 4)), *((STREAM_OUTPUT,) if stores else ())]
    for stream_id in used:
        stream, output = state.vcu_streams[stream_id], stream_id == STREAM_OUTPUT
        scaled = state.vcu_converts[stream_id].scale != 0
        moved = stream_words(stream, shape, word) * (taps if stream_id == 0 else 1)
        row[_word_event(stream.space, output)] += moved
        _convert_events(stream.dtype, output, scaled, elements, row)
    row[Event.SRAM_READ_WORD] += len(parameters(inst, state)) * ceil_div(4 * shape[2], word)
    words = row[Event.SRAM_READ_WORD] + row[Event.SRAM_WRITE_WORD]
    passes = vcu_passes((op.func for op in state.program(inst.first, inst.count)), machine)
    work = ceil_div(elements, vcu.lanes) * max(passes, taps)
    if reduce.kind != RowReduce.NONE:
        row[Event.VCU_ADD] += elements * (2 if reduce.kind in (RowReduce.MOMENTS, RowReduce.SQUARES) else 1)
        row[Event.SRAM_WRITE_WORD] += ceil_div(row_bytes(reduce.kind) * shape[0] * shape[1], word)
        words = row[Event.SRAM_READ_WORD] + row[Event.SRAM_WRITE_WORD]
    tree = (vcu.lanes - 1).bit_length() if reduce.kind != RowReduce.NONE else 0
    busy = vcu.pipeline_cycles + tree + max(work, ceil_div(words, machine.sram.banks))
    return Cost(max(1, busy), 0, words, tuple(row))


def _word_event(space: Space, write: bool) -> Event:
    if space is Space.ACC:
        return Event.ACC_WRITE_WORD if write else Event.ACC_READ_WORD
    return Event.SRAM_WRITE_WORD if write else Event.SRAM_READ_WORD


def program_events(funcs: Iterable[Func], elements: int, row: list[int]) -> None:
    """Add to ``row``, by :class:`isa.energy.Event`, what the operations of a vector program do on ``elements``."""
    for func in funcs:
        muls = int(func is Func.MUL) if func in CHEAP_FUNCS else steps(func) // 2
        adds = 0 if func is Func.COPY else steps(func) - muls
        row[Event.VCU_MUL] += muls * elements
        row[Event.VCU_ADD] += adds * elements
        row[Event.VCU_REGISTER] += 3 * max(1, muls + adds) * elements


def _convert_events(dtype: DType, output: bool, scaled: bool, elements: int, row: list[int]) -> None:
    """Codes in: subtract, multiply; accumulators in: one conversion; codes out: multiply, round, add, clamp."""
    if dtype is DType.F32:
        return
    if output:
        row[Event.VCU_MUL] += elements
        row[Event.VCU_ADD] += 3 * elements
        return
    row[Event.VCU_ADD] += elements
    if dtype in CODES and scaled:
        row[Event.VCU_MUL] += elements


COSTS: dict[type[Instruction], Callable[[Instruction, State, Machine], Cost]] = {
    **dict.fromkeys((*SETTERS, Halt, LoadSync, StoreSync, MmuSync, VcuSync), _one_cycle),
    LoadCopy: _copy,
    LoadTile: _tile,
    StoreCopy: _copy,
    StoreTile: _tile,
    MmuRun: _mmu_run,
    VcuRun: _vcu_run,
}
