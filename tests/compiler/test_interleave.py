"""Program order: each engine keeps its own, who waits stays behind, and no load waits for a full queue."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest

from compiler.backend import emit
from compiler.backend.dependences import Dependences, dependences
from compiler.backend.interleave import interleave, start_cycles
from compiler.pipeline import Options, compile_module
from isa.container import Binary
from isa.encoding import Engine, Instruction
from isa.machine import Machine
from isa.state import SETTERS
from runtime.session import run_timing
from tests.compiler.kern_graphs import GRAPHS, attention, graph

EDGE, TINY = Machine.load("edge28"), Machine.load("tiny")
NAMES = ("residual", "zoo", "attention")


def compiled(name: str) -> Binary:
    shapes, body = GRAPHS[name]
    return compile_module(graph(shapes, body), EDGE, Options()).binary


def emitted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Instruction]:
    """The instructions of a graph as its kernels give them."""
    found: list[list[Instruction]] = []

    def spy(instructions: list[Instruction], waits: Dependences, machine: Machine) -> list[int]:
        found.append(instructions)
        return interleave(instructions, waits, machine)

    monkeypatch.setattr(emit, "interleave", spy)
    compiled(name)
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_keeps_its_order(monkeypatch: pytest.MonkeyPatch, name: str):
    instructions = emitted(monkeypatch, name)
    order = interleave(instructions, dependences(instructions), EDGE)
    assert sorted(order) == list(range(len(instructions)))
    for engine in {i.engine for i in instructions}:
        mine = [i for i in order if instructions[i].engine is engine]
        assert mine == sorted(mine)


@pytest.mark.parametrize("name", NAMES)
def test_who_waits_stays_behind(monkeypatch: pytest.MonkeyPatch, name: str):
    instructions = emitted(monkeypatch, name)
    place = {index: at for at, index in enumerate(interleave(instructions, dependences(instructions), EDGE))}
    waits = dependences(instructions)
    assert waits
    assert all(place[source] < place[waiter] for waiter, sources in waits.items() for source in sources)


def test_starts_of_an_engine_do_not_overlap(monkeypatch: pytest.MonkeyPatch):
    instructions = emitted(monkeypatch, "attention")
    starts = start_cycles(instructions, dependences(instructions), EDGE)
    for engine in {i.engine for i in instructions}:
        mine = [start for start, i in zip(starts, instructions, strict=True) if i.engine is engine]
        assert all(b > a for a, b in pairwise(mine))


def test_a_load_does_not_wait_for_a_full_queue(monkeypatch: pytest.MonkeyPatch):
    module = graph([(2, 64, 32)], attention)
    better = run_timing(compile_module(module.clone(), TINY, Options()).binary).profile.cycles
    monkeypatch.setattr(emit, "interleave", lambda instructions, *_: range(len(instructions)))
    assert better < run_timing(compile_module(module, TINY, Options()).binary).profile.cycles


@pytest.mark.parametrize("name", NAMES)
def test_setup_of_a_run_stays_together(monkeypatch: pytest.MonkeyPatch, name: str):
    """No instruction of another engine stands between two setup words that no run parts."""
    instructions = emitted(monkeypatch, name)
    order = interleave(instructions, dependences(instructions), EDGE)
    runs: dict[Engine, int] = {}
    blocks: list[tuple[Engine, int]] = []
    for index in order:
        engine = instructions[index].engine
        if type(instructions[index]) in SETTERS:
            blocks.append((engine, runs.get(engine, 0)))
        else:
            runs[engine] = runs.get(engine, 0) + 1
            blocks.append((engine, -1 - index))
    seen = [block for block, _ in groupby(blocks)]
    assert len(seen) == len(set(seen))
