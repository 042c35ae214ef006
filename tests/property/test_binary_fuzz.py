"""Damaged binaries are rejected with ContainerError or equal what they were; nothing else ever happens."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isa.container import HEADER, Binary
from isa.errors import ContainerError
from tests.isa.binaries import sample, seal, sections
from tests.thinning import examples

DATA = sample().to_bytes()
BORDERS = sorted({b for _, offset, size in sections(DATA) for b in (offset, offset + size)} | {0, HEADER.size})

edits = st.tuples(
    st.integers(0, len(DATA) - 1),
    st.sampled_from(["flip", "set", "zeros", "ones", "delete", "insert", "copy"]),
    st.integers(1, 16),
    st.integers(0, 255),
)


def edit(data: bytes, at: int, kind: str, size: int, value: int) -> bytes:
    """One random change at ``at``."""
    at %= max(1, len(data))
    old = data[at : at + size]
    new = {
        "flip": bytes(b ^ 1 << value % 8 for b in old[:1]) + old[1:],
        "set": bytes([value]) + old[1:],
        "zeros": bytes(len(old)),
        "ones": b"\xff" * len(old),
        "delete": b"",
        "insert": bytes([value]) * size + old,
        "copy": data[value : value + len(old)],
    }[kind]
    return data[:at] + new + data[at + size :]


def load(data: bytes) -> Binary | None:
    try:
        return Binary.from_bytes(data)
    except ContainerError:
        return None


@given(st.lists(edits, min_size=1, max_size=4))
@settings(max_examples=examples(400), deadline=None)
def test_damaged_bytes_are_rejected_or_unchanged(changes):
    data = DATA
    for change in changes:
        data = edit(data, *change)
    binary = load(data)
    assert (binary is None) == (data != DATA)


@given(st.lists(edits, min_size=1, max_size=3), st.booleans())
@example([(len(DATA) // 2, "ones", 8, 0)], True)
@settings(max_examples=examples(800), deadline=None)
def test_damage_under_valid_checksums_is_rejected_or_is_the_one_encoding_of_its_value(changes, keep_length):
    data = DATA
    for change in changes:
        data = edit(data, *change)
    if keep_length:
        data = data[: len(DATA)].ljust(len(DATA), b"\0")
    if len(data) < HEADER.size + 32:
        return
    data = seal(data)
    if (binary := load(data)) is not None:
        assert binary.to_bytes() == data


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_random_bytes_are_rejected(data, with_header):
    assert load((DATA[: HEADER.size] if with_header else b"") + data) is None


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_truncation_around_every_section_border_is_rejected(border, shift):
    data = DATA[: max(0, border + shift)]
    assert load(data) is None
    if len(data) >= HEADER.size + 32:
        assert load(seal(data)) is None
