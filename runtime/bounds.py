"""What no schedule can beat on a machine: cycles, DRAM bytes and energy from a list of layers.

Kinds: *mac* (every multiplier busy), *array* (padded work, still unavoidable for this array), *dram* (compulsory
traffic), *layerwise* (every layer reads its inputs from and writes its outputs to DRAM: what a schedule without
fusion pays; a reference point, not a limit for fused schedules).

Energy: no schedule causes fewer events than :func:`least_events`, and each costs what the table says; leakage runs
as long as the fastest schedule. It holds for one array, whose lanes and accumulators say how often an operand is
reused: per MAC an activation for the mode's output lanes, a weight for ``acc_rows`` rows. Additions,
pools, activation functions, parameters, idle lanes and the program's own fetch are left out, so the bound is loose
where they matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isa.cost import LOCAL_WORDS
from isa.cycles import ceil_div, dram_cycles, weight_fill_cycles
from isa.energy import MAC_EVENTS, EnergyModel, Event
from isa.instructions import STORED_BITS, Mode
from isa.machine import Machine


@dataclass(frozen=True)
class Layer:
    """One anchor of a network: ``m`` output pixels, ``k`` products each, ``n`` output channels; bytes as stored.

    ``depthwise``: every output channel reads one input channel, ``k`` is the number of taps. A layer without MACs
    (an addition, a pool) has ``macs`` 0.
    """

    name: str
    macs: int
    m: int
    k: int
    n: int
    in_bytes: int
    out_bytes: int
    weight_bytes: int
    depthwise: bool = False
    mode: Mode = Mode.W8A8


@dataclass(frozen=True)
class Bounds:
    """Lower bounds of a whole network on one machine; names carry the units."""

    macs: int
    mac_cycles: int
    array_cycles: int
    dram_bytes: int
    dram_cycles: int
    layerwise_bytes: int
    layerwise_cycles: int
    energy_fj: int
    events: Mapping[Event, int]
    """The events in ``energy_fj``; the rest of it is leakage and DRAM background."""

    @property
    def cycles(self) -> int:
        """No schedule is faster: all multipliers busy, or compulsory traffic at full bandwidth."""
        return max(self.mac_cycles, self.dram_cycles)

    @property
    def machine_cycles(self) -> int:
        """As ``cycles``, with the padding that this array's shape forces."""
        return max(self.array_cycles, self.dram_cycles)


def array_cycles(layer: Layer, machine: Machine) -> int:
    """Cycles in which the array works on one layer, padded lanes and the weight port included."""
    if layer.macs == 0:
        return 0
    mmu, lanes = machine.mmu, machine.mmu.shape(layer.mode)
    tiles_n = ceil_div(layer.n, lanes.n)
    if layer.depthwise:
        return layer.m * ceil_div(layer.k, mmu.taps(layer.mode)) * tiles_n
    tiles = ceil_div(layer.k, lanes.k) * tiles_n
    chunks = ceil_div(layer.m, mmu.acc_rows)
    return tiles * max(layer.m, chunks * weight_fill_cycles(mmu, layer.mode))


def least_events(layers: Sequence[Layer], machine: Machine, read_bytes: int, write_bytes: int) -> dict[Event, int]:
    """Events that no schedule of ``layers`` avoids, with the compulsory DRAM traffic ``read_bytes``, ``write_bytes``.

    Sums over the layers with MACs of: the MACs; the accumulations of lanes_k products; a latch of every weight per
    acc_rows rows; SRAM reads of what the array takes; one write and read of every result as it is accumulated; of
    integers their conversion and scaling; and, but for the last layer, whose result may leave as binary32, their
    quantization and one write, in the narrowest codes of any layer. DRAM bytes pass through SRAM. (Depthwise: every
    output reads at least one new input.)
    """
    word = machine.sram.word_bytes
    anchors = [layer for layer in layers if layer.macs]
    scaled = sum(layer.m * layer.n for layer in anchors if layer.mode is not Mode.F32)
    quantized = sum(layer.m * layer.n for layer in anchors[:-1] if layer.mode is not Mode.F32)
    kept = sum(layer.m * layer.n for layer in anchors[:-1]) * min(map(_activation_bits, anchors), default=0) // 8
    summed = sum(layer.m * layer.n * STORED_BITS[layer.mode.accumulator] for layer in anchors) // 8
    latched = sum(_latched_bytes(layer, machine) for layer in anchors)
    taken = sum(_taken_bytes(layer, machine) for layer in anchors)
    added = sum(_accumulations(layer, machine) for layer in anchors)
    return {
        **{MAC_EVENTS[mode]: macs for mode, macs in macs_by_mode(anchors).items()},
        Event.WEIGHT_LATCH_BYTE: latched,
        Event.LOCAL_ACCUMULATOR_READ: added,
        Event.LOCAL_ACCUMULATOR_WRITE: added,
        Event.ACC_READ_WORD: summed // word,
        Event.ACC_WRITE_WORD: summed // word,
        Event.SRAM_READ_WORD: (taken + latched + write_bytes) // word,
        Event.SRAM_WRITE_WORD: (kept + read_bytes) // word,
        Event.DRAM_READ_BYTE: read_bytes,
        Event.DRAM_WRITE_BYTE: write_bytes,
        # Integer to binary32: an addition; times the scale: a vector op; to codes: multiply, round, add, clamp.
        Event.VCU_ADD: scaled + 3 * quantized,
        Event.VCU_MUL: scaled + quantized,
        Event.VCU_REGISTER: 3 * scaled,
    }


def macs_by_mode(layers: Iterable[Layer]) -> dict[Mode, int]:
    """MACs of the layers in each mode that they use."""
    found: dict[Mode, int] = {}
    for layer in layers:
        found[layer.mode] = found.get(layer.mode, 0) + layer.macs
    return found


def _activation_bits(layer: Layer) -> int:
    return STORED_BITS[layer.mode.activation]


def _accumulations(layer: Layer, machine: Machine) -> int:
    """Reads, and as many writes, of words of local accumulators."""
    products = machine.mmu.taps(layer.mode) if layer.depthwise else machine.mmu.shape(layer.mode).k
    return layer.macs // products * LOCAL_WORDS[layer.mode]


def _taken_bytes(layer: Layer, machine: Machine) -> int:
    """Bytes of activations that the array takes."""
    elements = layer.m * layer.n if layer.depthwise else layer.macs // machine.mmu.shape(layer.mode).n
    return elements * _activation_bits(layer) // 8


def _latched_bytes(layer: Layer, machine: Machine) -> int:
    rows = layer.m if layer.depthwise else machine.mmu.acc_rows
    return ceil_div(layer.m, rows) * layer.k * layer.n * STORED_BITS[layer.mode.weight] // 8


def bound(
    layers: Sequence[Layer],
    machine: Machine,
    input_bytes: int,
    output_bytes: int,
    cuts: Iterable[int] = (),
    model: EnergyModel | None = None,
) -> Bounds:
    """Bounds of a network.

    ``cuts``: bytes live across cuts of the graph; what exceeds SRAM goes out and back. ``layers`` in program order.
    """
    model = EnergyModel.of(machine) if model is None else model
    macs = sum(layer.macs for layer in layers)
    spill = max((2 * max(0, live - machine.sram.bytes) for live in cuts), default=0)
    moved = sum(layer.weight_bytes for layer in layers) + input_bytes + output_bytes + spill
    traffic = [layer.weight_bytes + layer.in_bytes + layer.out_bytes for layer in layers]
    arrays = [array_cycles(layer, machine) for layer in layers]
    modes = macs_by_mode(layer for layer in layers if layer.macs)
    mac_cycles = sum(ceil_div(count, machine.mmu.shape(mode).macs) for mode, count in modes.items())
    moved_cycles = dram_cycles(moved, machine)
    per_cycle = sum(band.nominal for band in model.cycle.values())
    written = output_bytes + spill // 2
    events = least_events(layers, machine, moved - written, written)
    dynamic = sum(n * (model.event[event].nominal + model.clock[event].nominal) for event, n in events.items())
    energy = dynamic + max(mac_cycles, sum(arrays), moved_cycles) * per_cycle
    return Bounds(
        macs,
        mac_cycles,
        sum(arrays),
        moved,
        moved_cycles,
        sum(traffic),
        sum(max(a, dram_cycles(b, machine)) for a, b in zip(arrays, traffic, strict=True)),
        energy,
        events,
    )
