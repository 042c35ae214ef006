"""Closed forms of time, on plain numbers: the costs of instructions (``isa.cost``) and the compiler's own estimates.

``docs/architecture.md`` has them as formulas. All arithmetic is on integers, so time is exact.
"""

from __future__ import annotations

from collections.abc import Iterable

from isa.instructions import STORED_BITS, Func, Mode, Resize
from isa.machine import Machine, Mmu
from isa.numerics.functions import IEEE_STEPS, STEPS

CHEAP_FUNCS = frozenset(
    {
        Func.COPY,
        Func.ADD,
        Func.SUB,
        Func.MUL,
        Func.MIN,
        Func.MAX,
        Func.RINT,
        Func.ABS,
        Func.GE,
        Func.GT,
        Func.EQ,
        Func.SELECT,
        Func.FLOOR,
        Func.ALIGN,
    }
)
ALL_STEPS = {**STEPS, **IEEE_STEPS}
RESIZE_TAPS = {Resize.NONE: 1, Resize.NEAREST: 1, Resize.BILINEAR: 4}
"""Elements of stream A that one output reads."""


def ceil_div(a: int, b: int) -> int:
    """Ceiling of a / b."""
    return -(-a // b)


def weight_fill_cycles(mmu: Mmu, mode: Mode = Mode.W8A8) -> int:
    """Cycles that one weight tile takes through the weight port."""
    return ceil_div(mmu.shape(mode).macs * STORED_BITS[mode.weight], 8 * mmu.weight_port_bytes)


def mmu_cycles(m: int, k: int, n: int, machine: Machine, mode: Mode = Mode.W8A8) -> int:
    """Cycles of a dense ``mmu.run``: M x K x N through chunks of at most acc_rows rows, as even as possible."""
    mmu, lanes = machine.mmu, machine.mmu.shape(mode)
    if m == 0 or n == 0 or k == 0:
        return mmu.pipeline_cycles
    tiles = ceil_div(k, lanes.k) * ceil_div(n, lanes.n)
    chunks = ceil_div(m, mmu.acc_rows)
    small, larger = divmod(m, chunks)
    fill = weight_fill_cycles(mmu, mode)
    rows = larger * max(small + 1, fill) + (chunks - larger) * max(small, fill)
    return mmu.pipeline_cycles + fill + tiles * rows + small


def depthwise_cycles(m: int, taps: int, n: int, machine: Machine, mode: Mode = Mode.W8A8) -> int:
    """Cycles of a depthwise ``mmu.run``: a pixel of the mode's output lanes and its taps per cycle."""
    mmu = machine.mmu
    return mmu.pipeline_cycles + m * ceil_div(taps, mmu.taps(mode)) * ceil_div(n, mmu.shape(mode).n)


def vcu_passes(funcs: Iterable[Func], machine: Machine) -> int:
    """Trips of an element through the chained stages that a vector program needs, at least 1."""
    stages = machine.vcu.stages
    slots = sum(1 if func in CHEAP_FUNCS else ceil_div(steps(func), stages) * stages for func in funcs)
    return max(1, ceil_div(slots, stages))


def steps(func: Func) -> int:
    """Binary32 multiplies and adds of one operation."""
    return 1 if func in CHEAP_FUNCS else ALL_STEPS[func.name.lower()]


def vcu_cycles(elements: int, slots: int, taps: int, machine: Machine, strided: bool = False) -> int:
    """Cycles of a ``vcu.run`` of ``slots`` stage slots over ``elements``, each the reduction of ``taps`` (or 1).

    ``strided``: one stream walks SRAM with a gap between elements, so that each takes a word of its own.
    """
    vcu = machine.vcu
    work = ceil_div(elements, vcu.lanes) * max(1, ceil_div(slots, vcu.stages), taps)
    words = elements * taps if strided else 0
    return vcu.pipeline_cycles + max(work, ceil_div(words, machine.sram.banks))


def dma_cycles(runs: int, run_bytes: int, machine: Machine) -> int:
    """Cycles of a DMA of ``runs`` separate burst-aligned runs of ``run_bytes``, without latency."""
    burst = machine.dram.burst_bytes
    words = runs * ceil_div(run_bytes, machine.sram.word_bytes)
    return max(1, words, dram_cycles(runs * ceil_div(run_bytes, burst) * burst, machine))


def dram_cycles(transferred: int, machine: Machine) -> int:
    """Cycles of the DRAM server for ``transferred`` bytes (whole bursts), rounded up."""
    dram = machine.dram
    return ceil_div(transferred * machine.clock_hz * 100, dram.bytes_per_second * dram.efficiency_percent)


def fetch_cycles(machine: Machine) -> int:
    """Cycles of the DRAM server for one block of program."""
    return dram_cycles(machine.dispatch.fetch_block_bytes, machine)
