"""Prices of every mode of ``mmu.run``: worked out by hand from ``docs/machines.md`` and the arrays' shapes."""

import pytest

from isa import cost as costs
from isa.cycles import mmu_cycles
from isa.energy import IDLE_EVENTS, MAC_EVENTS, Event
from isa.instructions import (
    DType,
    MmuCodes,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuWindow,
    Mode,
    Space,
    VcuRun,
    VcuShape,
    VcuStream,
)
from isa.machine import Machine
from isa.state import State

EDGE = Machine.load("edge28")


def state_of(*setup) -> State:
    state = State()
    for inst in setup:
        assert state.apply(inst)
    return state


# M = 100 in two chunks of 50 rows, K = 200, N = 70: 1,400,000 products. No size is a multiple of the lanes.
DENSE = state_of(MmuInput(channels=200), MmuOutput(height=10, width=10))


@pytest.mark.parametrize(
    ("mode", "fill", "tiles_k", "tiles_n", "array"),
    [
        # Lanes k x n; fill = k x n x weight bits / (8 x 64); tiles = 200 / k and 70 / n, rounded up; array = k x n.
        (Mode.W8A8, 16, 7, 3, 1024),  # 32 x 32
        (Mode.W4A8, 16, 7, 2, 2048),  # 32 x 64: a product is half of an 8-bit one
        (Mode.W4A4, 16, 4, 3, 2048),  # 64 x 32: a quarter, of which half is used
        (Mode.W8A16, 8, 13, 3, 512),  # 16 x 32: two of them
        (Mode.W16A16, 8, 13, 5, 256),  # 16 x 16: four
        (Mode.F32, 4, 100, 3, 64),  # 2 x 32: sixteen
    ],
)
def test_dense_run(mode: Mode, fill: int, tiles_k: int, tiles_n: int, array: int) -> None:
    """Cycles: pipeline, first fill, tiles x rows, drain of the last chunk; what is no product is an idle lane."""
    run, tiles = MmuRun(n=70, mode=mode), tiles_k * tiles_n
    found = costs.events(run, DENSE, EDGE)
    assert costs.cycles(run, DENSE, EDGE) == 8 + fill + tiles * 100 + 50
    assert found[MAC_EVENTS[mode]] == 1_400_000
    assert found[IDLE_EVENTS[mode]] == tiles * 100 * array - 1_400_000
    assert found.keys() & {*MAC_EVENTS.values(), *IDLE_EVENTS.values()} == {MAC_EVENTS[mode], IDLE_EVENTS[mode]}


@pytest.mark.parametrize(
    ("mode", "taken", "weights", "accumulators"),
    [
        # Words of 32 bytes. Taken: a row's k activations per step. Weights: 2 chunks x 200 x 70 elements, in bytes.
        # Accumulators: 7000 of 4 bytes, or 8 with 16-bit activations.
        (Mode.W8A8, 2100 * 1, 28_000, 875),
        (Mode.W4A8, 1400 * 1, 14_000, 875),
        (Mode.W4A4, 1200 * 1, 14_000, 875),  # 64 codes of 4 bits are a word
        (Mode.W8A16, 3900 * 1, 28_000, 1750),  # 16 of 16 bits too
        (Mode.W16A16, 6500 * 1, 56_000, 1750),
        (Mode.F32, 30_000 // 4, 112_000, 875),  # 2 of 32 bits are a quarter
    ],
)
def test_words_of_a_dense_run(mode: Mode, taken: int, weights: int, accumulators: int) -> None:
    found = costs.events(MmuRun(n=70, mode=mode), DENSE, EDGE)
    assert found[Event.WEIGHT_LATCH_BYTE] == weights
    assert found[Event.SRAM_READ_WORD] == taken + -(-weights // 32)
    assert found[Event.ACC_WRITE_WORD] == accumulators
    assert Event.ACC_READ_WORD not in found
    added = costs.events(MmuRun(n=70, mode=mode, accumulate=1), DENSE, EDGE)
    assert added[Event.ACC_READ_WORD] == added[Event.ACC_WRITE_WORD] == accumulators


@pytest.mark.parametrize(("mode", "weights"), [(Mode.W8A8, 28_000), (Mode.W4A8, 14_000)])
def test_codes_of_a_codebook_are_read_as_4_bits(mode: Mode, weights: int) -> None:
    state = state_of(MmuInput(channels=200), MmuOutput(height=10, width=10), MmuCodes(decode=1))
    tiles = {Mode.W8A8: 21, Mode.W4A8: 14}[mode]
    # 32 codes of 4 bits are half a word.
    found = costs.events(MmuRun(n=70, mode=mode), state, EDGE)
    assert found[Event.SRAM_READ_WORD] == tiles * 100 // 2 + -(-weights // 32)


# (machine, mode), and pipeline + fill + tiles x 64 rows + a drain of acc_rows: M = 64, K = N = 192.
SQUARE = {
    ("edge28", Mode.W8A8): 8 + 16 + 6 * 6 * 64 + 64,
    ("edge28", Mode.W4A8): 8 + 16 + 6 * 3 * 64 + 64,
    ("edge28", Mode.W4A4): 8 + 16 + 3 * 6 * 64 + 64,
    ("edge28", Mode.W8A16): 8 + 8 + 12 * 6 * 64 + 64,
    ("edge28", Mode.W16A16): 8 + 8 + 12 * 12 * 64 + 64,
    ("edge28", Mode.F32): 8 + 4 + 96 * 6 * 64 + 64,
    ("quartdepth28-f32", Mode.F32): 9 + 32 + 6 * 12 * 64 + 64,
    ("quartdepth28-w4a8", Mode.W4A8): 9 + 12 + 6 * 4 * 64 + 64,
    ("quartdepth28-w4a8", Mode.W8A8): 9 + 12 + 6 * 8 * 64 + 64,
    ("quartdepth28-w4a8", Mode.W8A16): 9 + 6 + 12 * 8 * 64 + 64,
    ("quartdepth28-w4a8", Mode.W16A16): 9 + 6 + 12 * 16 * 64 + 64,
    ("quartdepth28-w4a4", Mode.W4A4): 9 + 16 + 3 * 6 * 64 + 64,
    ("quartdepth28-w4a4", Mode.W4A8): 9 + 8 + 6 * 6 * 64 + 64,
    ("quartdepth28-w4a4", Mode.W8A8): 9 + 8 + 6 * 12 * 64 + 64,
    ("quartdepth28-w4a4", Mode.W8A16): 9 + 4 + 12 * 12 * 64 + 64,
    ("quartdepth28-w4a4", Mode.W16A16): 9 + 4 + 24 * 12 * 64 + 64,
    ("tiny", Mode.W8A8): 6 + 4 + 24 * 24 * 64 + 16,
    ("tiny", Mode.W4A8): 6 + 4 + 24 * 12 * 64 + 16,
    ("tiny", Mode.W4A4): 6 + 4 + 12 * 24 * 64 + 16,
    ("tiny", Mode.W8A16): 6 + 2 + 48 * 24 * 64 + 16,
    ("tiny", Mode.W16A16): 6 + 2 + 48 * 48 * 64 + 16,
    ("tiny", Mode.F32): 6 + 1 + 192 * 48 * 64 + 16,
}


@pytest.mark.parametrize(("machine", "mode"), SQUARE)
def test_cycles_on_every_machine(machine: str, mode: Mode) -> None:
    assert mmu_cycles(64, 192, 192, Machine.load(machine), mode) == SQUARE[machine, mode]


def test_every_mode_of_every_machine_has_cycles_above() -> None:
    machines = map(Machine.load, Machine.shipped())
    assert SQUARE.keys() == {(machine.name, mode) for machine in machines for mode in machine.mmu.modes}


@pytest.mark.parametrize(
    ("mode", "cycles"),
    [
        # One row waits for the fill of every tile: tiles of 2048 x 1000, then the row's drain.
        (Mode.W8A8, 8 + 16 + 64 * 32 * 16 + 1),
        (Mode.W4A8, 8 + 16 + 64 * 16 * 16 + 1),
        (Mode.W4A4, 8 + 16 + 32 * 32 * 16 + 1),
        (Mode.W8A16, 8 + 8 + 128 * 32 * 8 + 1),
        (Mode.W16A16, 8 + 8 + 128 * 63 * 8 + 1),
        (Mode.F32, 8 + 4 + 1024 * 32 * 4 + 1),
    ],
)
def test_a_row_is_bound_by_the_weight_port(mode: Mode, cycles: int) -> None:
    assert mmu_cycles(1, 2048, 1000, EDGE, mode) == cycles


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


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize(
    ("dtype", "element", "row", "words"),
    [
        # Bytes of an element (of two, at 4 bits) and of a row of 64; words of 32 bytes in 10 x 10 rows.
        (DType.I4, 1, 32, 100),
        (DType.I8, 1, 64, 200),
        (DType.I16, 2, 128, 400),
        (DType.I32, 4, 256, 800),
        (DType.F32, 4, 256, 800),
        (DType.I64, 8, 512, 1600),
    ],
)
def test_words_of_a_stream(dtype: DType, element: int, row: int, words: int, space: Space) -> None:
    stream = VcuStream(id=0, dtype=dtype, space=space, stride0=10 * row, stride1=row, stride2=element)
    found = costs.events(VcuRun(), state_of(stream, VcuShape(n0=10, n1=10, n2=64)), EDGE)
    assert found[Event.SRAM_READ_WORD if space is Space.SRAM else Event.ACC_READ_WORD] == words
