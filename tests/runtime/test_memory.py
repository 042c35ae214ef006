"""Typed views share bytes, stay inside and aligned; reads of unwritten bytes are found."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa.access import Memory, make_box
from isa.errors import AccessError, UninitialisedError
from isa.machine import Machine
from runtime.memory import Memories, Written

TINY = Machine.load("tiny")
SRAM = TINY.sram.bytes


@pytest.fixture
def memory() -> Memories:
    return Memories(
        TINY, {Memory.INPUT: torch.zeros(10, dtype=torch.uint8), Memory.ARENA: torch.zeros(8, dtype=torch.uint8)}
    )


def test_views_of_all_types_share_the_bytes(memory):
    memory.view(Memory.SRAM, torch.int32, 8, (2,), (4,)).fill_(-1)
    assert memory.view(Memory.SRAM, torch.int8, 7, (10,), (1,)).tolist() == [0, *[-1] * 8, 0]


def test_strides_are_bytes(memory):
    memory.bytes[Memory.SRAM][:16] = torch.arange(16)
    view = memory.view(Memory.SRAM, torch.int8, 1, (2, 3), (8, 2))
    assert view.tolist() == [[1, 3, 5], [9, 11, 13]]


def test_a_view_may_end_at_the_last_byte_but_not_beyond(memory):
    memory.view(Memory.SRAM, torch.int8, 0, (2,), (SRAM - 1,))
    with pytest.raises(AccessError, match=rf"SRAM bytes 0x1 to 0x10001 .*: the space ends at {SRAM:#x}"):
        memory.view(Memory.SRAM, torch.int8, 1, (2,), (SRAM - 1,))


def test_a_region_that_the_binary_does_not_have_is_empty(memory):
    with pytest.raises(AccessError, match=r"OUTPUT bytes 0x0 to 0x1 .* ends at 0x0"):
        memory.view(Memory.OUTPUT, torch.int8, 0, (1,), (1,))


def test_a_view_without_elements_is_always_legal(memory):
    assert memory.view(Memory.INPUT, torch.int8, 0, (0, 4), (1, 1)).numel() == 0


@pytest.mark.parametrize(("address", "stride"), [(2, 4), (4, 6)])
def test_wide_data_is_aligned(memory, address, stride):
    with pytest.raises(AccessError, match="must lie at multiples of 4 bytes"):
        memory.view(Memory.ACC, torch.int32, address, (2,), (stride,))


def test_a_target_must_not_overlap_itself(memory):
    memory.target(Memory.SRAM, torch.int8, 0, (3, 2), (2, 1))
    with pytest.raises(AccessError, match="a stride of 1 must be at least 2"):
        memory.target(Memory.SRAM, torch.int8, 0, (3, 2), (1, 1))


def test_inputs_constants_and_code_are_read_only(memory):
    memory.view(Memory.INPUT, torch.uint8, 0, (1,), (1,))
    with pytest.raises(AccessError, match="INPUT address 0x0: the region is read-only"):
        memory.target(Memory.INPUT, torch.uint8, 0, (1,), (1,))


def test_a_read_of_unwritten_bytes_names_the_first():
    written = Written({Memory.SRAM: 64})
    (box,) = make_box(Memory.SRAM, 0, 16)
    written.write(box)
    written.read(box)
    with pytest.raises(UninitialisedError, match=r"reads SRAM \[0x8, 0x18\), .* wrote SRAM address 0x10"):
        written.read(make_box(Memory.SRAM, 8, 16)[0])


BOXES = st.tuples(
    st.integers(0, 20), st.integers(1, 4), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), max_size=3)
)


@given(st.lists(BOXES, max_size=4), BOXES)
def test_reads_are_checked_byte_by_byte(writes, read):
    written, expected = Written({Memory.SRAM: 100}), set()

    def spread(start, run, loops):
        found = set(range(start, start + run))
        for n, stride in loops:
            found = {byte + i * stride for byte in found for i in range(n)}
        return found

    for start, run, loops in writes:
        written.write(make_box(Memory.SRAM, start, run, *loops)[0])
        expected |= spread(start, run, loops)
    start, run, loops = read
    (box,) = make_box(Memory.SRAM, start, run, *loops)
    if spread(start, run, loops) <= expected:
        written.read(box)
    else:
        with pytest.raises(UninitialisedError):
            written.read(box)


def test_what_the_host_provides_counts_as_written():
    Written({Memory.INPUT: 4, Memory.CONSTANTS: 4}).read(make_box(Memory.INPUT, 0, 4)[0])


def test_what_follows_from_sram_bytes_holds_until_one_of_them_is_written(memory):
    held = [memory.derived("sums", 100, 164, (1, 4))[1]]
    memory.target(Memory.SRAM, torch.uint8, 164, (8,), (1,))
    held.append(memory.derived("sums", 100, 164, (1, 4))[1])
    memory.target(Memory.SRAM, torch.uint8, 96, (5,), (1,))
    held.append(memory.derived("sums", 100, 164, (1, 4))[1])
    assert held == [False, True, False]


def test_the_buffer_of_what_no_longer_holds_serves_the_next(memory):
    first, _ = memory.derived("a", 0, 64, (4, 4), torch.int16)
    other, _ = memory.derived("b", 64, 128, (4, 4), torch.int16)
    memory.target(Memory.SRAM, torch.uint8, 8, (1,), (1,))
    again, held = memory.derived("c", 128, 192, (3, 5), torch.int16)
    assert not held
    assert again.data_ptr() == first.data_ptr() != other.data_ptr()
