"""The .qbin container."""

import copy
import dataclasses
import hashlib
import pickle
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isa import program
from isa.container import ENTRY, HEADER, TAGS, Binary
from isa.errors import ContainerError
from isa.instructions import DType, Halt, LoadCopy
from isa.machine import Machine
from isa.sections import Location, TensorInfo, read_locations, write_machine
from tests.isa.binaries import sample, seal, sections

ROOT = Path(__file__).parents[2]


def rejects(message: str):
    return pytest.raises(ContainerError, match=re.escape(message))


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return seal(data[:at] + new + data[at + len(new) :])


def section(data: bytes, tag: bytes) -> int:
    """Offset of a section."""
    return next(offset for found, offset, _ in sections(data) if found == tag)


def entry(tag: bytes) -> int:
    """Offset of a section's table entry."""
    return HEADER.size + TAGS.index(tag) * ENTRY.size


def test_from_bytes_inverts_to_bytes():
    assert Binary.from_bytes(sample().to_bytes()) == sample()


def test_a_minimal_binary_round_trips():
    empty = sample(code=Halt().to_bytes(), constants=b"", inputs=(), outputs=(), provenance={}, spans=((1, 0),))
    assert Binary.from_bytes(empty.to_bytes()) == empty


def test_every_field_reaches_the_bytes():
    other = {
        "machine": Machine.load("edge28"),
        "code": program.encode([LoadCopy(), LoadCopy(), LoadCopy(bytes=1), Halt()]),
        "constants": b"1",
        "inputs": (),
        "outputs": (),
        "input_bytes": 17,
        "output_bytes": 13,
        "arena_bytes": 65,
        "locations": (Location("", "", "", "", 1),) * 2,
        "spans": ((4, 0),),
        "provenance": {},
    }
    assert set(other) == {field.name for field in dataclasses.fields(Binary)}
    for name, value in other.items():
        assert sample(**{name: value}).to_bytes() != sample().to_bytes(), name


def test_provenance_order_does_not_matter():
    entries = {"b": "2", "a": "1"}
    assert sample(provenance=entries).to_bytes() == sample(provenance=dict(sorted(entries.items()))).to_bytes()


@pytest.mark.slow
def test_two_processes_with_different_hash_seeds_write_the_same_bytes():
    command = [sys.executable, "-c", "from tests.isa.binaries import sample; print(sample().to_bytes().hex())"]
    outputs = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True).stdout
        for seed in "12"
    }
    assert outputs == {sample().to_bytes().hex().encode() + b"\n"}


def test_the_weight_section_costs_its_bits_and_little_more():
    constants = bytes(1 << 20)
    assert len(sample(constants=constants).to_bytes()) < 1.02 * len(constants)


def test_copies_and_pickles_are_equal():
    assert copy.deepcopy(sample()) == sample() == pickle.loads(pickle.dumps(sample()))


def test_instructions_are_the_decoded_code():
    assert sample().instructions == program.decode(sample().code)


def test_a_file_is_not_a_qbin():
    with rejects("not a .qbin file (empty)"):
        Binary.from_bytes(b"")
    with rejects("not a .qbin file (wrong magic number)"):
        Binary.from_bytes(b"\x7fELF" + bytes(100))
    with rejects("8 bytes, a .qbin file has at least 56; the file is cut off"):
        Binary.from_bytes(sample().to_bytes()[:8])


def test_every_truncation_is_rejected():
    data = sample().to_bytes()
    for length in range(len(data)):
        with pytest.raises(ContainerError):
            Binary.from_bytes(data[:length])


def test_every_flipped_bit_is_rejected():
    data = bytearray(sample().to_bytes())
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        with pytest.raises(ContainerError):
            Binary.from_bytes(data)
        data[at] ^= 1 << at % 8


def test_bytes_behind_the_end_are_rejected():
    with rejects("it is cut off or damaged"):
        Binary.from_bytes(sample().to_bytes() + b"\0")


def test_damage_without_new_checksums_is_named():
    data = bytearray(sample().to_bytes())
    data[-1] ^= 1
    with rejects("SHA-256 does not match; the file is damaged"):
        Binary.from_bytes(data)


def test_other_versions_are_named_before_any_checksum():
    data = sample().to_bytes()
    with rejects("container version 7, this Quartic reads 1; compile again"):
        Binary.from_bytes(data[:8] + b"\x07\0" + data[10:])
    with rejects("ISA version 9, this Quartic runs 1; compile again"):
        Binary.from_bytes(data[:10] + b"\x09\0" + data[12:])


def test_the_digest_of_another_machine_is_rejected():
    data = sample().to_bytes()
    other = write_machine(Machine.load("edge28"))[:32]
    with rejects("the binary was made for another machine"):
        Binary.from_bytes(patched(data, section(data, b"MACH"), other))


@pytest.mark.parametrize("text", [b"name = 1", b"\xff", b"a = " + b"[" * 500, b"a = 1e99999999999999999999"])
def test_bad_machine_texts_are_rejected(text):
    data = sample().to_bytes()
    at = section(data, b"MACH") + 32
    with rejects("section MACH: "):
        Binary.from_bytes(patched(data, at, text + b"\n#"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (8, 1 << 60, "section CNST: offset 1152921504606846976, must be "),
        (16, 1 << 63, "section CNST: 9223372036854775808 bytes at "),
        (16, (1 << 64) - 1, "reach past byte "),
    ],
)
def test_huge_lengths_are_rejected(field, value, message):
    with rejects(message):
        Binary.from_bytes(patched(sample().to_bytes(), entry(b"CNST") + field, struct.pack("<Q", value)))


def test_a_huge_section_count_is_rejected():
    with rejects("4294967295 sections, must be at most 64"):
        Binary.from_bytes(patched(sample().to_bytes(), 12, b"\xff" * 4))
    with rejects("64 sections do not fit"):
        small = sample(code=Halt().to_bytes(), constants=b"", spans=((1, 0),)).to_bytes()
        Binary.from_bytes(patched(small, 12, b"\x40"))


def test_wrong_crc_is_named():
    data = bytearray(sample().to_bytes())
    data[section(data, b"CNST")] ^= 1
    sealed = bytearray(seal(data))
    at = entry(b"CNST") + 24
    sealed[at] ^= 1
    sealed[-32:] = hashlib.sha256(sealed[:-32]).digest()
    with rejects("section CNST: CRC32 does not match; the file is damaged"):
        Binary.from_bytes(sealed)


def test_unknown_sections_are_skipped_only_if_they_are_not_required():
    data = sample().to_bytes()
    with rejects("section NEWS is required but unknown; read it with a newer Quartic"):
        Binary.from_bytes(with_section(data, b"NEWS", 1))
    assert Binary.from_bytes(with_section(data, b"NEWS", 0)) == sample()


def with_section(data: bytes, tag: bytes, flags: int) -> bytes:
    """``data`` with one more, empty section, last."""
    count, length = len(TAGS) + 1, len(data) + ENTRY.size
    head = bytearray(data[: HEADER.size + ENTRY.size * len(TAGS)])
    struct.pack_into("<IQ", head, 12, count, length)
    for at in range(HEADER.size, len(head), ENTRY.size):
        (offset,) = struct.unpack_from("<Q", head, at + 8)
        struct.pack_into("<Q", head, at + 8, offset + ENTRY.size)
    head += ENTRY.pack(tag, flags, length - 32, 0, 0, 0)
    return seal(head + data[HEADER.size + ENTRY.size * len(TAGS) :])


def test_missing_twice_and_unordered_sections_are_rejected():
    data = sample().to_bytes()
    with rejects("section PROV occurs twice"):
        Binary.from_bytes(with_section(data, b"PROV", 1))
    with rejects("section NONE is required but unknown"):
        Binary.from_bytes(patched(data, entry(b"PROV"), b"NONE"))
    with rejects("sections are missing: PROV"):
        Binary.from_bytes(patched(data, entry(b"PROV"), b"NONE\0"))
    with rejects("sections must come in the order MACH, CODE"):
        swapped = patched(data, entry(b"MACH"), b"CODE")
        Binary.from_bytes(patched(swapped, entry(b"CODE"), b"MACH"))


def test_padding_must_be_zero():
    data = sample().to_bytes()
    with rejects("section CNST: padding must be zero"):
        Binary.from_bytes(patched(data, section(data, b"CNST") + 37, b"\1"))
    with rejects("section table: padding must be zero"):
        Binary.from_bytes(patched(data, HEADER.size + ENTRY.size * len(TAGS), b"\1"))


def test_a_bad_instruction_is_named_by_its_offset():
    data = sample().to_bytes()
    with rejects("CODE section: byte offset 0x10 (instruction 1): unknown opcode 0xff"):
        Binary.from_bytes(patched(data, section(data, b"CODE") + 16, b"\xff"))


def test_counts_larger_than_their_section_are_rejected():
    data = sample().to_bytes()
    with rejects("section LOCS, byte 4: 4294967295 items do not fit in the "):
        Binary.from_bytes(patched(data, section(data, b"LOCS"), b"\xff" * 4))
    with rejects("section PROV, byte 4: 4294967295 items do not fit in the "):
        Binary.from_bytes(patched(data, section(data, b"PROV"), b"\xff" * 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": b"\1"}, "CODE section: byte offset 0x0: code is cut off: 1 bytes"),
        ({"code": LoadCopy().to_bytes()}, "CODE section: code has no halt; the last instruction must be halt"),
        ({"spans": ((3, 0),)}, "location spans cover 3 instructions, code has 4"),
        ({"spans": ((4, 2),)}, "location span 0: location 2, must be in 0..1"),
        ({"spans": ((4, 0), (0, 0))}, "location span 1: 0 instructions, must be at least 1"),
        ({"input_bytes": 15}, "input 'scale': bytes 12..16 must lie in the input region of 15 bytes"),
        ({"arena_bytes": 2**32 + 1}, "arena region: 4294967297 bytes, must be in 0..4294967296"),
        ({"output_bytes": -1}, "output region: -1 bytes"),
        (
            {"inputs": (TensorInfo("x", (), DType.I8, 0),) * 2},
            "input names must differ: x, x",
        ),
        (
            {"outputs": (TensorInfo("y", (2, 0), DType.I8, 0),)},
            "output 'y': shape (2, 0) has a dimension below 1",
        ),
        ({"outputs": (TensorInfo("y", (), DType.F32, 2),)}, "output 'y': offset 2 must be a multiple of 4"),
        ({"outputs": (TensorInfo("y", (), DType.I16, 1),)}, "output 'y': offset 1 must be a multiple of 2"),
        ({"outputs": (TensorInfo("y", (), DType.I4, 0),)}, "output 'y': type I4 must be one of I8, I16, I32, F32"),
        ({"outputs": (TensorInfo("y", (1 << 40,), DType.I8, 0),)}, "must lie in the output region of 12 bytes"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_rejected(changes, message):
    with rejects(message):
        sample(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"path": "\udc80"}}, "cannot be written as UTF-8"),
        ({"locations": (Location("", "", "", "", 1 << 64),) * 2}, "section LOCS: "),
    ],
)
def test_values_that_the_format_cannot_hold_are_errors_of_the_writer(changes, message):
    with rejects(message):
        sample(**changes).to_bytes()


def test_save_and_load_leave_one_file(tmp_path):
    path = tmp_path / "model.qbin"
    sample().save(path)
    replace(sample(), constants=b"new").save(path)
    assert Binary.load(path).constants == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_read_or_written_name_the_path(tmp_path):
    with rejects("none.qbin: cannot be read: No such file or directory; give a file that `quartic compile` wrote"):
        Binary.load(tmp_path / "none.qbin")
    with rejects("cannot be written: No such file or directory"):
        sample().save(tmp_path / "none" / "model.qbin")
    (tmp_path / "bad.qbin").write_bytes(b"12345678")
    with rejects("bad.qbin: not a .qbin file (wrong magic number)"):
        Binary.load(tmp_path / "bad.qbin")


def test_inputs_may_not_share_bytes_but_outputs_may():
    first, second = TensorInfo("a", (4,), DType.I8, 2), TensorInfo("b", (3,), DType.I8, 0)
    with rejects("input 'a': offset 2 lies within input 'b', which ends at 3"):
        replace(sample(), inputs=(first, second), input_bytes=8)
    found = replace(sample(), outputs=(first, replace(first, name="again")), output_bytes=8)
    assert Binary.from_bytes(found.to_bytes()) == found


def test_a_location_names_strings_of_its_table():
    payload = b"".join(
        [struct.pack("<I", 1), struct.pack("<I", 0), struct.pack("<I", 1), struct.pack("<IIIIQ", 0, 0, 1, 0, 0)]
    )
    with rejects("section LOCS, byte 36: string 1 of a location, must be below 1"):
        read_locations(payload + struct.pack("<I", 0))
