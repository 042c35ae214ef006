"""Energy: event counts times the table, per instruction and component, in integer femtojoules.

The parts add up to the total exactly: instructions by component, plus three named overheads (program fetch,
leakage, DRAM background). Nominal values come with the band that the table's sources allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.energy import EVENT_COMPONENT, Band, Component, EnergyModel, Event
from runtime.timing import Timeline

COMPONENTS = tuple(Component)
CORNERS = ("low", "nominal", "high")
Femtojoules = NDArray[np.int64]


@dataclass(frozen=True)
class Energy:
    """Energy of one run. ``instruction_fj``: (instructions, components) nominal int64, columns as COMPONENTS.

    ``overhead_fj`` belongs to no instruction: overhead -> component -> nominal. ``band_fj``: component -> low,
    nominal, high over everything; ``total_fj`` is their sum.
    """

    instruction_fj: Femtojoules
    overhead_fj: Mapping[str, Mapping[Component, int]]
    band_fj: Mapping[Component, Band]
    total_fj: Band
    events: Mapping[Event, int]

    @property
    def joules(self) -> float:
        """Nominal total in joules."""
        return self.total_fj.nominal * 1e-15

    def component_fj(self, component: Component) -> int:
        """Nominal total of one component."""
        return self.band_fj[component].nominal


def _rates(model: EnergyModel, corner: str) -> Femtojoules:
    """(events, components) femtojoules per event; the clock's share has its own column."""
    rates = np.zeros((len(Event), len(COMPONENTS)), dtype=np.int64)
    for event in Event:
        rates[event, COMPONENTS.index(EVENT_COMPONENT[event])] += getattr(model.event[event], corner)
        rates[event, COMPONENTS.index(Component.CLOCK)] += getattr(model.clock[event], corner)
    return rates


def account_energy(timeline: Timeline, model: EnergyModel) -> Energy:
    """Energy of the program whose times are ``timeline``."""
    counts = np.array([cost.counts for cost in timeline.prices.costs], dtype=np.int64)
    which = timeline.prices.which
    uses = np.bincount(which, minlength=len(counts))
    summed = uses @ counts
    summed[Event.DRAM_READ_BYTE] += timeline.fetch_bytes
    rates = {corner: _rates(model, corner) for corner in CORNERS}
    # Numbers of Python's own: a slow clock or DRAM makes more femtojoules per cycle and cycles than 64 bits hold.
    totals = {corner: [int(total) for total in summed @ rates[corner]] for corner in CORNERS}
    for component, band in model.cycle.items():
        for corner in CORNERS:
            totals[corner][COMPONENTS.index(component)] += getattr(band, corner) * timeline.cycles
    band_fj = {
        component: Band(*(totals[corner][column] for corner in CORNERS))
        for column, component in enumerate(COMPONENTS)
    }
    fetch_fj = timeline.fetch_bytes * model.event[Event.DRAM_READ_BYTE].nominal
    overhead: dict[str, Mapping[Component, int]] = {"fetch": {Component.DRAM: fetch_fj}}
    for component, band in model.cycle.items():
        overhead[component.value] = {component: band.nominal * timeline.cycles}
    return Energy(
        (counts @ rates["nominal"])[which],
        overhead,
        band_fj,
        Band(*(sum(totals[corner]) for corner in CORNERS)),
        {event: int(summed[event]) for event in Event},
    )
