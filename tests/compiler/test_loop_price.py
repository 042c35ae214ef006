"""What a shared loop is said to take, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.analysis import loop_price
from compiler.analysis.cost import KernelCost
from compiler.analysis.loop_price import DMA, MMU, VCU, loop_cycles
from compiler.analysis.share_loops import stripe_ends
from compiler.analysis.stripes import Group, share
from compiler.analysis.tile_search import Choice
from compiler.ir.schedule import KernelSchedule
from isa.machine import Machine
from tests.compiler.kern_graphs import conv, graph, q, relu
from tests.compiler.loop_graphs import kernel_graph

TINY = Machine.load("tiny")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what engines do counts."""
    monkeypatch.setattr(loop_price, "STRIPE_CYCLES", 0)
    monkeypatch.setattr(loop_price, "TILE_OVERHEAD_CYCLES", 0)
    for name in ("_first", "_whole"):
        monkeypatch.setattr(loop_price, name, lambda *_: 0)


def priced(overlap: bool = True) -> float:
    """A quantize on the vector unit, 400 cycles of it and 200 of DRAM, in front of a product that takes 800 cycles."""
    found = kernel_graph(graph([(1, 4, 8, 8)], lambda x: relu(conv(q(x), 4))))
    group = Group(0, 1)
    shared = share(found, group, (2, 4, 6, 8))
    assert shared is not None
    assert dict(shared.delays) == {0: 0, 1: 1}
    costs = (KernelCost(0, 0, 400, 200, 0, 0, 0), KernelCost(0, 800, 40, 0, 0, 0, 0))
    choices: list[Choice] = []
    for step, cost in zip(found.steps, costs, strict=True):
        schedule = KernelSchedule(step.spec.name, (), *step.spec.output[1:], 4, "nhwc", stripes=shared.ends[step.index])
        choices.append((replace(schedule, tile_h=2), cost))
    return loop_cycles(found, shared, choices, frozenset(shared.held), TINY, overlap)


@pytest.mark.usefixtures("bare")
def test_the_busiest_engine_of_each_step_counts():
    assert (MMU, VCU, DMA) == (0, 1, 2)
    assert priced() == 100 + 3 * 200 + 200  # the product is a stripe behind


@pytest.mark.usefixtures("bare")
def test_without_a_second_slot_engines_take_turns():
    assert priced(overlap=False) == 400 + 200 + 800 + 40


def test_stripes_are_whole_rows_of_the_coarsest_kernel():
    assert [ends[0] for ends in stripe_ends(1920, 40)] == [960, 480, 240, 120, 80, 40]
    assert all(end % 40 == 0 for ends in stripe_ends(1920, 40) for end in ends)
    assert [ends for ends in stripe_ends(3, 1)] == [(2, 3), (1, 2, 3)]
