"""Bounds: what no schedule can beat, from a list of layers."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.energy import EnergyModel, Event
from isa.instructions import (
    STORED_BITS,
    DType,
    Func,
    Halt,
    LoadCopy,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuWindow,
    Mode,
    Operand,
    Space,
    StoreCopy,
    VcuOp,
    VcuRun,
    VcuShape,
    VcuStream,
)
from isa.machine import Machine
from runtime.bounds import Layer, array_cycles, bound, least_events
from runtime.energy import account_energy
from runtime.timing import simulate_time
from tests.thinning import examples

EDGE = Machine.load("edge28")
CONV = Layer("conv", 196 * 576 * 100, 196, 576, 100, 196 * 64, 196 * 100, 57_600)
LINEAR = Layer("fc", 2048 * 1000, 1, 2048, 1000, 2048, 1000, 2_048_000)
DEPTHWISE = Layer("dw", 49 * 25 * 48, 49, 25, 48, 2352, 2352, 1200, depthwise=True)
ADD = Layer("add", 0, 0, 0, 0, 200, 100, 0)


def test_array_cycles_pad_lanes():
    assert array_cycles(CONV, EDGE) == 196 * 18 * 4
    assert array_cycles(DEPTHWISE, EDGE) == 49 * 3 * 2
    assert array_cycles(ADD, EDGE) == 0


def test_one_row_waits_for_the_weight_port():
    assert array_cycles(LINEAR, EDGE) == 64 * 32 * 16


def test_network_bounds():
    found = bound([CONV, LINEAR, ADD], EDGE, 1000, 10)
    assert found.macs == CONV.macs + LINEAR.macs
    assert found.mac_cycles == -(-found.macs // 1024)
    assert found.array_cycles == array_cycles(CONV, EDGE) + array_cycles(LINEAR, EDGE)
    assert found.dram_bytes == 57_600 + 2_048_000 + 1000 + 10
    assert found.layerwise_bytes == found.dram_bytes - 1010 + 196 * 64 + 196 * 100 + 2048 + 1000 + 300
    assert found.cycles == found.dram_cycles == -(-2_106_610 * 10**9 * 100 // (17_060_000_000 * 80))
    assert found.machine_cycles >= found.cycles
    assert found.layerwise_cycles >= found.array_cycles


def test_live_bytes_beyond_sram_go_out_and_back():
    base, over = bound([CONV], EDGE, 0, 0, [5, 1 << 20]), bound([CONV], EDGE, 0, 0, [5, (1 << 20) + 7])
    assert over.dram_bytes - base.dram_bytes == 14


def test_energy_bound_is_its_events_and_leakage():
    model = EnergyModel.of(EDGE)
    found = bound([CONV], EDGE, 0, 0)
    static = found.machine_cycles * sum(band.nominal for band in model.cycle.values())
    dynamic = {event: model.event[event].nominal + model.clock[event].nominal for event in Event}
    assert found.energy_fj == sum(dynamic[event] * n for event, n in found.events.items()) + static


def test_least_events_of_a_convolution():
    found = least_events([CONV, ADD], EDGE, 57_600, 32)
    outputs, weights = 196 * 100, 576 * 100
    assert found[Event.MAC_W8A8] == CONV.macs
    # 196 rows latch every weight four times, 64 rows each; a byte of activations serves 32 columns.
    assert found[Event.WEIGHT_LATCH_BYTE] == 4 * weights
    assert found[Event.SRAM_READ_WORD] == (CONV.macs // 32 + 4 * weights + 32) // 32
    assert found[Event.ACC_READ_WORD] == found[Event.ACC_WRITE_WORD] == 4 * outputs // 32
    # The last layer's results are only converted and scaled.
    assert found[Event.VCU_ADD] == found[Event.VCU_MUL] == outputs
    assert found[Event.SRAM_WRITE_WORD] == 57_600 // 32


def test_layers_before_the_last_quantize_and_write_their_results():
    found = least_events([CONV, LINEAR], EDGE, 0, 0)
    assert found[Event.VCU_MUL] == 2 * 19_600 + 1000
    assert found[Event.VCU_ADD] == 4 * 19_600 + 1000
    assert found[Event.SRAM_WRITE_WORD] == 19_600 // 32


SIZES = st.integers(1, 80)


def packed(elements: int, dtype: DType) -> int:
    """Bytes of so many."""
    return -(-elements * STORED_BITS[dtype] // 8)


@settings(max_examples=examples(60), deadline=None)
@given(
    height=SIZES, width=SIZES, channels=SIZES, n=SIZES, taps=st.integers(1, 3), depthwise=st.booleans(),
    mode=st.sampled_from(Mode),
)  # fmt: skip
def test_no_program_needs_less(height, width, channels, n, taps, depthwise, mode):
    m, k = height * width, taps * taps * (1 if depthwise else channels)
    weights, results, row = packed(k * n, mode.weight), packed(m * n, mode.activation), packed(n, mode.activation)
    layer = Layer("layer", m * k * n, m, k, n, 0, results, weights, depthwise, mode)
    of_sums, of_codes = packed(1, mode.accumulator), packed(1, mode.activation)
    sums = {"stride0": of_sums * width * n, "stride1": of_sums * n, "stride2": of_sums}
    program = [
        LoadCopy(bytes=weights),
        MmuInput(channels=channels),
        MmuWindow(kernel_h=taps, kernel_w=taps),
        MmuOutput(height=height, width=width),
        MmuRun(n=n, depthwise=int(depthwise), mode=mode),
        VcuOp(func=Func.MUL, b_kind=Operand.PARAMETER),
        VcuShape(n0=height, n1=width, n2=n),
        VcuStream(id=0, dtype=mode.accumulator, space=Space.ACC, **sums),
        VcuStream(id=7, dtype=mode.activation, stride0=width * row, stride1=row, stride2=of_codes),
        VcuRun(count=int(mode is not Mode.F32)),
        StoreCopy(bytes=results),
        Halt(),
    ]
    timeline = simulate_time(program, EDGE)
    spent = account_energy(timeline, EnergyModel.of(EDGE))
    least = bound([layer], EDGE, 0, results)
    assert timeline.cycles >= least.machine_cycles
    assert spent.total_fj.nominal >= least.energy_fj
    assert all(spent.events[event] >= count for event, count in least.events.items())


@pytest.mark.parametrize(
    ("mode", "mac_cycles", "array", "words", "kept", "additions"),
    [
        # A layer of 196 x 576 x 100 twice: 22,579,200 products over the array's; its tiles times 196 rows. Words of 32
        # bytes: 39,200 accumulators; 19,600 results between the layers. Additions: 1 per sum, 3 per code.
        (Mode.W8A8, 22_050, 18 * 4 * 196 * 2, 4900, 612, 39_200 + 58_800),
        (Mode.W4A8, 11_025, 18 * 2 * 196 * 2, 4900, 612, 39_200 + 58_800),
        (Mode.W4A4, 11_025, 9 * 4 * 196 * 2, 4900, 306, 39_200 + 58_800),
        (Mode.W8A16, 44_100, 36 * 4 * 196 * 2, 9800, 1225, 39_200 + 58_800),
        (Mode.W16A16, 88_200, 36 * 7 * 196 * 2, 9800, 1225, 39_200 + 58_800),
        (Mode.F32, 352_800, 288 * 4 * 196 * 2, 4900, 2450, 0),
    ],
)
def test_bounds_of_every_mode(mode, mac_cycles, array, words, kept, additions):
    found = bound([dataclasses.replace(CONV, mode=mode, weight_bytes=0)] * 2, EDGE, 0, 0)
    assert found.mac_cycles == mac_cycles
    assert found.array_cycles == array
    assert found.events[Event.ACC_READ_WORD] == found.events[Event.ACC_WRITE_WORD] == words
    assert found.events[Event.SRAM_WRITE_WORD] == kept
    assert found.events[Event.VCU_ADD] == additions


def test_reference_resnet50_figures():
    # 4.089 GMAC and 25.7 MB are 3.99 ms and 1.88 ms on this machine
    layer = Layer("all", 4_089_000_000, 1, 1, 1, 0, 0, 25_700_000)
    found = bound([layer], EDGE, 0, 0)
    assert found.mac_cycles // 10_000 == 399
    assert found.dram_cycles // 10_000 == 188
