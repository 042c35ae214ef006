"""The ``.qbin`` container: one compiled model, self-contained, versioned and checked.

Layout, all integers little endian::

    header    magic 8 | container version u16 | ISA version u16 | section count u32 | file bytes u64
    table     per section: tag 4 | flags u32 (bit 0: required) | offset u64 | bytes u64 | CRC32 u32 | 0 u32
    sections  in the table's order, each starting at the next multiple of 16, zeros between
    trailer   SHA-256 of everything before it

One binary has one encoding: sections come in a fixed order, each in canonical form. A reader skips unknown
sections unless they are marked as required. :mod:`isa.sections` says what is inside of each.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from struct import Struct
from types import MappingProxyType

from isa import program, sections
from isa.encoding import ISA_VERSION, WORD_BYTES, Instruction
from isa.errors import ContainerError, EncodingError
from isa.machine import Machine
from isa.sections import DIGEST_BYTES, ITEM_BYTES, Location, Memory, TensorInfo

__all__ = ["Binary", "Location", "TensorInfo"]

MAGIC = b"\x89QBIN\r\n\x1a"
"""As PNG's: a high bit and both line ends, so that a transfer as text is noticed."""
VERSION = 1
HEADER = Struct("<8sHHIQ")
ENTRY = Struct("<4sIQQII")
ALIGNMENT = 16
REQUIRED = 1
MAX_SECTIONS = 64
REGION_LIMIT = 1 << 32
"""What the 32-bit offsets of ``load.copy`` reach."""

TAGS = (b"MACH", b"CODE", b"CNST", b"IO\0\0", b"LOCS", b"PROV")


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ContainerError(message)


@dataclass(frozen=True)
class Binary:
    """A compiled model. Construction checks that the parts fit each other and raises ContainerError.

    ``spans`` gives (instruction count, index into ``locations``) runs in program order; the last
    instruction of ``code`` is its only ``halt``. The byte counts are the sizes of the DRAM regions.
    """

    machine: Machine
    code: bytes
    constants: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    locations: tuple[Location, ...]
    spans: tuple[tuple[int, int], ...]
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(sorted(self.provenance.items()))))
        try:
            program.verify(self.code)
        except EncodingError as error:
            raise ContainerError(f"CODE section: {error}") from None
        for name, size in self._region_sizes().items():
            _require(0 <= size <= REGION_LIMIT, f"{name} region: {size} bytes, must be in 0..{REGION_LIMIT}")
        _check_tensors("input", self.inputs, self.input_bytes)
        _check_tensors("output", self.outputs, self.output_bytes)
        names = [info.name for info in self.inputs]
        _require(len(set(names)) == len(names), f"input names must differ: {', '.join(names)}")
        _check_apart(self.inputs)
        _check_spans(self.spans, len(self.locations), len(self.code) // WORD_BYTES)

    def __reduce__(self) -> tuple[object, ...]:
        return Binary.from_bytes, (self.to_bytes(),)

    def _region_sizes(self) -> dict[str, int]:
        return {
            "constants": len(self.constants),
            "input": self.input_bytes,
            "output": self.output_bytes,
            "arena": self.arena_bytes,
        }

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """The decoded code."""
        return program.decode(self.code)

    def to_bytes(self) -> bytes:
        """The file's bytes; equal binaries give equal bytes."""
        memory = Memory(self.inputs, self.outputs, self.input_bytes, self.output_bytes, self.arena_bytes)
        payloads = (
            sections.write_machine(self.machine),
            self.code,
            self.constants,
            sections.write_memory(memory),
            sections.write_locations(self.locations, self.spans),
            sections.write_strings(self.provenance),
        )
        return _assemble(tuple(zip(TAGS, payloads, strict=True)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Binary:
        """Inverse of :meth:`to_bytes`. Raises ContainerError for everything else."""
        found = _split(memoryview(bytes(data)))
        machine = sections.read_machine(found[b"MACH"])
        memory = sections.read_memory(found[b"IO\0\0"])
        locations, spans = sections.read_locations(found[b"LOCS"])
        return cls(
            machine=machine,
            code=found[b"CODE"],
            constants=found[b"CNST"],
            inputs=memory.inputs,
            outputs=memory.outputs,
            input_bytes=memory.input_bytes,
            output_bytes=memory.output_bytes,
            arena_bytes=memory.arena_bytes,
            locations=locations,
            spans=spans,
            provenance=sections.read_strings(found[b"PROV"]),
        )

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all. Raises ContainerError if it cannot be written."""
        path = Path(path)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                temporary = file.name
                file.write(self.to_bytes())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise ContainerError(f"{path}: cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Binary:
        """Read a file. Raises ContainerError, which names the file."""
        try:
            data = Path(path).read_bytes()
        except TypeError:
            raise ContainerError(f"what is read is the path of a .qbin file, not {type(path).__name__}") from None
        except OSError as error:
            raise ContainerError(
                f"{path}: cannot be read: {error.strerror}; give a file that `quartic compile` wrote"
            ) from None
        try:
            return cls.from_bytes(data)
        except ContainerError as error:
            raise ContainerError(f"{path}: {error}") from None


def _check_tensors(kind: str, infos: tuple[TensorInfo, ...], region_bytes: int) -> None:
    for info in infos:
        label = f"{kind} {info.name!r}"
        _require(
            info.dtype in ITEM_BYTES,
            f"{label}: type {info.dtype.name} must be one of {', '.join(d.name for d in ITEM_BYTES)}",
        )
        item = ITEM_BYTES[info.dtype]
        _require(all(n >= 1 for n in info.shape), f"{label}: shape {info.shape} has a dimension below 1")
        _require(info.offset % item == 0, f"{label}: offset {info.offset} must be a multiple of {item}")
        end = info.offset + info.size_bytes
        _require(
            info.offset >= 0 and end <= region_bytes,
            f"{label}: bytes {info.offset}..{end} must lie in the {kind} region of {region_bytes} bytes",
        )


def _check_apart(inputs: tuple[TensorInfo, ...]) -> None:
    """No two inputs share a byte, or one would change the other; outputs may, when a graph returns a value twice."""
    rising = sorted(inputs, key=lambda info: info.offset)
    for first, second in pairwise(rising):
        end = first.offset + first.size_bytes
        _require(
            end <= second.offset,
            f"input {second.name!r}: offset {second.offset} lies within input {first.name!r}, which ends at {end}",
        )


def _check_spans(spans: tuple[tuple[int, int], ...], locations: int, instructions: int) -> None:
    for number, (count, index) in enumerate(spans):
        _require(count >= 1, f"location span {number}: {count} instructions, must be at least 1")
        _require(0 <= index < locations, f"location span {number}: location {index}, must be in 0..{locations - 1}")
    covered = sum(count for count, _ in spans)
    _require(covered == instructions, f"location spans cover {covered} instructions, code has {instructions}")


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _assemble(payloads: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Header, table, aligned payloads and trailer."""
    offset = _padded(HEADER.size + ENTRY.size * len(payloads))
    table: list[bytes] = []
    parts: list[bytes] = []
    for tag, payload in payloads:
        table.append(ENTRY.pack(tag, REQUIRED, offset, len(payload), zlib.crc32(payload), 0))
        size = _padded(len(payload))
        parts += payload, bytes(size - len(payload))
        offset += size
    head = HEADER.pack(MAGIC, VERSION, ISA_VERSION, len(payloads), offset + DIGEST_BYTES) + b"".join(table)
    body = b"".join([head, bytes(_padded(len(head)) - len(head)), *parts])
    return body + hashlib.sha256(body).digest()


def _split(data: memoryview) -> dict[bytes, bytes]:
    """The payloads of the known sections, after every check that needs no look inside of them."""
    count = _check_file(data)
    head = HEADER.size + ENTRY.size * count
    body = len(data) - DIGEST_BYTES
    _require(_padded(head) <= body, f"section table: {count} sections do not fit in {len(data)} bytes")
    _require(not any(data[head : _padded(head)]), "section table: padding must be zero")
    expected = _padded(head)
    found: dict[bytes, bytes] = {}
    for tag, flags, offset, size, crc, zero in ENTRY.iter_unpack(data[HEADER.size : head]):
        name = f"section {_label(tag)}"
        _require(flags in (0, REQUIRED) and zero == 0, f"{name}: reserved bits of its table entry are set")
        _require(offset == expected, f"{name}: offset {offset}, must be {expected}")
        _require(size <= body - offset, f"{name}: {size} bytes at {offset} reach past byte {body}")
        expected = offset + _padded(size)
        _require(expected <= body, f"{name}: padding reaches past byte {body}")
        payload = data[offset : offset + size]
        _require(zlib.crc32(payload) == crc, f"{name}: CRC32 does not match; the file is damaged")
        _require(not any(data[offset + size : expected]), f"{name}: padding must be zero")
        _require(tag in TAGS or not flags, f"{name} is required but unknown; read it with a newer Quartic")
        _require(tag not in found, f"{name} occurs twice")
        if tag in TAGS:
            _require(bool(flags), f"{name} must be marked as required")
            found[tag] = bytes(payload)
    _require(expected == body, f"{body - expected} bytes between the last section and the trailer")
    missing = [_label(tag) for tag in TAGS if tag not in found]
    _require(not missing, f"sections are missing: {', '.join(missing)}")
    _require(tuple(found) == TAGS, f"sections must come in the order {', '.join(map(_label, TAGS))}")
    return found


def _check_file(data: memoryview) -> int:
    """Check length, magic, versions and trailer; returns the number of sections."""
    least = HEADER.size + DIGEST_BYTES
    magic = bytes(data[: len(MAGIC)])
    _require(
        len(magic) > 0 and MAGIC.startswith(magic),
        "not a .qbin file (wrong magic number); compile the model first" if magic else "not a .qbin file (empty)",
    )
    _require(len(data) >= least, f"{len(data)} bytes, a .qbin file has at least {least}; the file is cut off")
    _, version, isa_version, count, length = HEADER.unpack(data[: HEADER.size])
    _require(version == VERSION, f"container version {version}, this Quartic reads {VERSION}; compile again")
    _require(isa_version == ISA_VERSION, f"ISA version {isa_version}, this Quartic runs {ISA_VERSION}; compile again")
    _require(length == len(data), f"header says {length} bytes, the file has {len(data)}; it is cut off or damaged")
    _require(count <= MAX_SECTIONS, f"{count} sections, must be at most {MAX_SECTIONS}")
    digest = hashlib.sha256(data[:-DIGEST_BYTES]).digest()
    _require(digest == bytes(data[-DIGEST_BYTES:]), "SHA-256 does not match; the file is damaged")
    return count


def _label(tag: bytes) -> str:
    return tag.decode("ascii", "backslashreplace").rstrip("\0")
