"""Bounds: what no schedule can beat, from a list of layers."""

from isa.energy import EnergyModel, Event
from isa.machine import Machine
from runtime.bounds import Layer, array_cycles, bound

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


def test_energy_bound_is_macs_and_traffic_and_leakage():
    model = EnergyModel.of(EDGE)
    found = bound([CONV], EDGE, 0, 0)
    static = found.cycles * sum(band.nominal for band in model.cycle.values())
    assert found.energy_fj == CONV.macs * 250 + 57_600 * model.event[Event.DRAM_READ_BYTE].nominal + static


def test_reference_resnet50_figures():
    # 4.089 GMAC and 25.7 MB are 3.99 ms and 1.88 ms on this machine
    layer = Layer("all", 4_089_000_000, 1, 1, 1, 0, 0, 25_700_000)
    found = bound([layer], EDGE, 0, 0)
    assert found.mac_cycles // 10_000 == 399
    assert found.dram_cycles // 10_000 == 188
