"""What no schedule can beat on a machine: cycles, DRAM bytes and energy from a list of layers.

Kinds: *mac* (every multiplier busy), *array* (padded work, still unavoidable for this array), *dram* (compulsory
traffic), *layerwise* (every layer reads its inputs from and writes its outputs to DRAM: what a schedule without
fusion pays; a reference point, not a limit for fused schedules).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isa.cost import ceil_div, dram_cycles, weight_fill_cycles
from isa.energy import EnergyModel, Event
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
    mmu = machine.mmu
    tiles_n = ceil_div(layer.n, mmu.lanes_n)
    if layer.depthwise:
        return layer.m * ceil_div(layer.k, mmu.depthwise_taps) * tiles_n
    tiles = ceil_div(layer.k, mmu.lanes_k) * tiles_n
    chunks = ceil_div(layer.m, mmu.acc_rows)
    return tiles * max(layer.m, chunks * weight_fill_cycles(mmu))


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
    mac_cycles, moved_cycles = ceil_div(macs, machine.mmu.macs_per_cycle), dram_cycles(moved, machine)
    per_cycle = sum(band.nominal for band in model.cycle.values())
    energy = (
        macs * (model.event[Event.MAC_W8A8].nominal + model.clock[Event.MAC_W8A8].nominal)
        + moved * model.event[Event.DRAM_READ_BYTE].nominal
        + max(mac_cycles, moved_cycles) * per_cycle
    )
    return Bounds(
        macs,
        mac_cycles,
        sum(arrays),
        moved,
        moved_cycles,
        sum(traffic),
        sum(max(a, dram_cycles(b, machine)) for a, b in zip(arrays, traffic, strict=True)),
        energy,
    )
