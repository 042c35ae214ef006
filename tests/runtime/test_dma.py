"""Load and Store move exactly the bytes of their boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa.access import Memory, accesses
from isa.errors import AccessError
from isa.instructions import (
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    Region,
    StoreCopy,
    StoreShape,
    StoreStrides,
    StoreTile,
)
from tests.runtime.machine import context, run


def test_copies_move_bytes_both_ways():
    found = context()
    arena, output = found.memory.bytes[Memory.ARENA], found.memory.bytes[Memory.OUTPUT]
    run(found, LoadCopy(region=Region.ARENA, offset=5, sram=9, bytes=33))
    run(found, StoreCopy(region=Region.OUTPUT, offset=70, sram=9, bytes=33))
    assert torch.equal(output[70:103], arena[5:38])


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 40), st.integers(0, 9), st.integers(0, 3)
)
def test_tiles_move_runs(n0, n1, run_bytes, dram0, dram1, gap):
    found = context()
    sram1 = run_bytes + gap
    before = {space: data.clone() for space, data in found.memory.bytes.items()}
    setup = (
        LoadShape(n0=n0, n1=n1, run=run_bytes),
        LoadStrides(dram0=dram0, dram1=dram1, sram0=n1 * sram1, sram1=sram1),
    )
    run(found, *setup, LoadTile(region=Region.INPUT, offset=3, sram=100))
    want = before[Memory.SRAM].clone()
    for i, j in np.ndindex(n0, n1):
        target, source = 100 + i * n1 * sram1 + j * sram1, 3 + i * dram0 + j * dram1
        want[target : target + run_bytes] = before[Memory.INPUT][source : source + run_bytes]
    assert torch.equal(found.memory.bytes[Memory.SRAM], want)


def test_a_tile_store_is_the_inverse_of_a_tile_load():
    found = context()
    loads = (LoadShape(n0=2, n1=3, run=4), LoadStrides(dram0=50, dram1=10, sram0=12, sram1=4))
    stores = (StoreShape(n0=2, n1=3, run=4), StoreStrides(dram0=50, dram1=10, sram0=12, sram1=4))
    run(found, *loads, LoadTile(region=Region.INPUT, offset=7, sram=64))
    run(found, *stores, StoreTile(region=Region.OUTPUT, offset=7, sram=64))
    (box,) = accesses(StoreTile(region=Region.OUTPUT, offset=7, sram=64), found.state).writes
    assert (box.start, box.run, box.n0, box.n1) == (7, 4, 2, 3)
    first, second = found.memory.bytes[Memory.INPUT], found.memory.bytes[Memory.OUTPUT]
    for start in (7, 17, 27, 57, 67, 77):
        assert torch.equal(first[start : start + 4], second[start : start + 4])
    assert not torch.equal(first[11:17], second[11:17])


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([LoadCopy(sram=65530, bytes=7)], r"SRAM bytes 0xfffa to 0x10001 .*: the space ends at 0x10000"),
        ([LoadCopy(region=Region.INPUT, offset=4090, bytes=7)], r"INPUT bytes 0xffa to 0x1001 .* ends at 0x1000"),
        ([StoreCopy(region=Region.CONSTANTS, bytes=1)], r"instruction 0 \(store.copy\): CONSTANTS .* is read-only"),
        ([LoadShape(n0=2, run=4), LoadTile(sram=0)], r"instruction 1 \(load.tile\).* overlaps itself"),
    ],
)
def test_illegal_copies_name_the_rule(instructions, message):
    with pytest.raises(AccessError, match=message):
        run(context(), *instructions)


def test_a_copy_of_no_bytes_is_legal_anywhere():
    run(context(), LoadCopy(sram=(1 << 24) - 1, offset=(1 << 32) - 1, bytes=0), LoadShape(n0=0), LoadTile(sram=99999))
