"""Machines: schema, canonical text, digest, and errors that name file, table, key and rule."""

import dataclasses

import pytest

from isa.errors import DescriptionError, UnsupportedError
from isa.instructions import Mode
from isa.machine import Machine

TINY = Machine.load("tiny").to_toml()


def test_shipped_machines():
    quartdepth = [f"quartdepth28-{kind}" for kind in ("f32", "w4a4", "w4a8")]
    assert Machine.shipped() == ("edge28", *quartdepth, "tiny")


@pytest.mark.parametrize(
    ("name", "mode", "macs"),
    [("f32", Mode.F32, 512), ("w4a8", Mode.W4A8, 1536), ("w4a4", Mode.W4A4, 2048)],
)
def test_quartdepth_arrays(name, mode, macs):
    machine = Machine.load(f"quartdepth28-{name}")
    assert machine.clock_hz == 10**9
    assert (machine.dram.bytes_per_second, machine.dram.efficiency_percent) == (19_200_000_000, 100)
    assert machine.mmu.macs_per_cycle(mode) == machine.mmu.peak == macs


def test_a_mode_that_is_not_built_is_named():
    with pytest.raises(UnsupportedError, match="mode W8A8 is not built; the machine has F32"):
        Machine.load("quartdepth28-f32").mmu.shape(Mode.W8A8)


def test_edge28_is_the_machine_of_the_contract():
    machine = Machine.load("edge28")
    assert machine.clock_hz == 1_000_000_000
    assert (machine.sram.bytes, machine.sram.bank_bytes, machine.sram.banks) == (1 << 20, 1 << 16, 16)
    assert machine.mmu.macs_per_cycle(Mode.W8A8) == 1024
    assert machine.mmu.macs_per_cycle(Mode.W4A4) == machine.mmu.macs_per_cycle(Mode.W4A8) == 2048
    assert (machine.vcu.lanes, machine.vcu.stages) == (64, 4)
    assert machine.dram.bytes_per_second == 17_060_000_000


@pytest.mark.parametrize("name", Machine.shipped())
def test_canonical_text_round_trips(name):
    machine = Machine.load(name)
    assert Machine.from_toml(machine.to_toml()) == machine
    assert Machine.from_toml(machine.to_toml()).digest == machine.digest


def test_digest_ignores_comments_but_no_value():
    assert Machine.from_toml("# hello\n" + TINY).digest == Machine.load("tiny").digest
    assert Machine.from_toml(TINY.replace("lanes = 8", "lanes = 9")).digest != Machine.load("tiny").digest


def test_load_takes_a_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TINY)
    assert Machine.load(path) == Machine.load("tiny")


def test_strings_with_quotes_and_controls_round_trip():
    machine = dataclasses.replace(Machine.load("tiny"), description='a "b" \\ \n \x7f \x01 é')
    assert Machine.from_toml(machine.to_toml()) == machine


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("acc_rows", "acc_row", r"<machine>: \[mmu\] unknown key 'acc_row'; did you mean 'acc_rows'\?"),
        ("acc_rows = 16\n", "", r"\[mmu\] missing key 'acc_rows'; required: lanes, acc_rows, weight_port_bytes"),
        ("n = 8\n", "n = 0\n", r"\[mmu.lanes.w8a8\] k = 8, n = 0: both are 0, or none is"),
        ("[sync]", "[sink]", r"top level unknown key 'sink'; did you mean 'sync'\?"),
        ("acc_rows = 16", 'acc_rows = "8"', r"\[mmu\] acc_rows = '8': must be int, not str"),
        ("acc_rows = 16", "acc_rows = true", r"\[mmu\] acc_rows = True: must be int, not bool"),
        ("acc_rows = 16", "acc_rows = 8.0", r"\[mmu\] acc_rows = 8.0: must be int, not float"),
        ("acc_rows = 16", "acc_rows = 0", r"\[mmu\] acc_rows = 0: must be at least 1"),
        ("acc_rows = 16", "acc_rows = ", r"<machine>: not TOML"),
        (
            "bank_bytes = 4096",
            "bank_bytes = 5000",
            r"\[sram\] bytes = 65536: must be a multiple of bank_bytes",
        ),
        (
            "word_bytes = 8",
            "word_bytes = 6",
            r"\[sram\] bank_bytes = 4096: must be a multiple of word_bytes = 6",
        ),
        ("registers = 16", "registers = 17", r"\[vcu\] registers = 17: must be at most 16"),
        ("registers = 16", "registers = 3", r"\[vcu\] registers = 3: must be at least 4"),
        ("semaphores = 63", "semaphores = 64", r"\[sync\] semaphores = 64: must be at most 63"),
        ("percent = 80", "percent = 101", r"\[dram\] efficiency_percent = 101: must be at most 100"),
        ("fetch_block_bytes = 256", "fetch_block_bytes = 48", r"must be a multiple of dram.burst_bytes = 32"),
        ("clock_hz = 1000000000", "clock_hz = 999999", r"clock_hz = 999999: must be at least 1000000"),
        (
            "clock_hz = 1000000000",
            f"clock_hz = {2**40 + 1}",
            r"clock_hz = 1099511627777: must be at most 1099511627776",
        ),
        ("clock_hz = 1000000000", "clock_hz = " + "9" * 5000, r"<machine>: not TOML: Exceeds the limit"),
        ("k = 8\n", "k = 65537\n", r"\[mmu.lanes.w8a8\] k = 65537: must be at most 65536"),
        ("latency_cycles = ", "latency_cycles = 99999", r"\[dram\] latency_cycles = 99999\d+: must be at most 65536"),
        ("fetch_block_bytes = 256", "fetch_block_bytes = 33554432", r"must be at most 16777216"),
        ("[sync]", "x = " + "[" * 5000 + "\n[sync]", r"<machine>: not TOML"),
        ("bytes = 16384", "bytes = 256", r"acc.bytes = 256: must hold one chunk .* = 1024"),
    ],
)
def test_bad_description_names_table_key_and_rule(old, new, message):
    with pytest.raises(DescriptionError, match=message):
        Machine.from_toml(TINY.replace(old, new, 1))


def test_scalar_in_place_of_a_table():
    with pytest.raises(DescriptionError, match=r"vcu = 3: must be a table"):
        Machine.from_toml("vcu = 3\n" + TINY.replace("[vcu]", "[dram.x]"))


def test_replace_is_checked_too():
    machine = Machine.load("tiny")
    with pytest.raises(DescriptionError, match="lanes = -1: must be at least 1"):
        dataclasses.replace(machine.vcu, lanes=-1)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(DescriptionError, match=r"machine 'edge82': .*shipped: edge28, .*tiny; nearest: 'edge28'"):
        Machine.load("edge82")


def test_error_of_a_file_names_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TINY.replace("acc_rows = 16", "acc_rows = 0"))
    with pytest.raises(DescriptionError, match=r"mine\.toml: \[mmu\] acc_rows = 0"):
        Machine.load(path)


def test_a_name_with_a_zero_byte_is_an_error_not_a_crash():
    with pytest.raises(DescriptionError, match="not a path"):
        Machine.load("edge\0")


def test_binary_file_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DescriptionError, match="not UTF-8 text"):
        Machine.load(path)
