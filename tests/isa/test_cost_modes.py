"""Prices of every mode of ``mmu.run``: worked out by hand from ``docs/machines.md`` and the arrays' shapes."""

import pytest

from isa import cost as costs
from isa.energy import IDLE_EVENTS, MAC_EVENTS, Event
from isa.instructions import MmuInput, MmuOutput, MmuRun, MmuWindow, Mode
from isa.machine import Machine
from isa.state import State

EDGE = Machine.load("edge28")


def state_of(*setup) -> State:
    state = State()
    for inst in setup:
        assert state.apply(inst)
    return state


# 7 x 7 pixels of 48 channels under a 5 x 5 window, M = 49. Every output brings 5 new pixels into the window.
DEPTHWISE = state_of(MmuInput(channels=48), MmuWindow(kernel_h=5, kernel_w=5), MmuOutput(height=7, width=7))


@pytest.mark.parametrize(
    ("mode", "cycles", "idle", "words"),
    [
        # Pipeline 8; 25 taps in 3 groups of 9, or 13 of the 2 that a lane has in F32; then 48 channels in steps of n.
        # Idle: the array's products in those cycles, less 49 x 25 x 48. Words: 49 x 5 pixels, then the weights.
        (Mode.W8A8, 8 + 49 * 3 * 2, 49 * 3 * 2 * 1024 - 58_800, 245 * 2 + 38),
        (Mode.W4A8, 8 + 49 * 3 * 1, 49 * 3 * 1 * 2048 - 58_800, 245 * 2 + 19),
        (Mode.W4A4, 8 + 49 * 3 * 2, 49 * 3 * 2 * 2048 - 58_800, 245 * 1 + 19),
        (Mode.W8A16, 8 + 49 * 3 * 2, 49 * 3 * 2 * 512 - 58_800, 245 * 3 + 38),
        (Mode.W16A16, 8 + 49 * 3 * 3, 49 * 3 * 3 * 256 - 58_800, 245 * 3 + 75),
        (Mode.F32, 8 + 49 * 13 * 2, 49 * 13 * 2 * 64 - 58_800, 245 * 6 + 150),
    ],
)
def test_depthwise_run(mode: Mode, cycles: int, idle: int, words: int) -> None:
    run = MmuRun(n=48, depthwise=1, mode=mode)
    found = costs.events(run, DEPTHWISE, EDGE)
    assert costs.cycles(run, DEPTHWISE, EDGE) == cycles
    assert found[MAC_EVENTS[mode]] == 49 * 25 * 48
    assert found[IDLE_EVENTS[mode]] == idle
    assert found[Event.SRAM_READ_WORD] == words


@pytest.mark.parametrize("name", Machine.shipped())
def test_a_depthwise_run_does_no_more_products_than_the_array_has(name: str) -> None:
    machine = Machine.load(name)
    state = state_of(MmuInput(channels=96), MmuWindow(kernel_h=12, kernel_w=12), MmuOutput(height=7, width=7))
    for mode in machine.mmu.modes:
        run = MmuRun(n=96, depthwise=1, mode=mode)
        assert costs.cycles(run, state, machine) * machine.mmu.macs_per_cycle(mode) >= 49 * 144 * 96
        assert min(costs.cost(run, state, machine).counts) >= 0


@pytest.mark.parametrize("depthwise", [0, 1])
@pytest.mark.parametrize("mode", Mode)
def test_local_accumulators_have_the_width_of_the_sums(mode: Mode, depthwise: int) -> None:
    """A read and a write per output and step of the array, of 32 bits; two in int64, with 16-bit activations."""
    state = state_of(MmuInput(channels=2 + 14 * depthwise), MmuOutput(height=1, width=10))
    found = costs.events(MmuRun(n=16, depthwise=depthwise, mode=mode), state, EDGE)
    words = 10 * 16 * (2 if mode in (Mode.W8A16, Mode.W16A16) else 1)
    assert found[Event.LOCAL_ACCUMULATOR_READ] == found[Event.LOCAL_ACCUMULATOR_WRITE] == words
