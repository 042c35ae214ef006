"""What is inside of the container's sections: strings, tensors, memory sizes, locations.

Every reader takes bytes that may be anything and raises ContainerError unless they are exactly what
the writer makes, so every value has one encoding. Strings are UTF-8 behind a u32 byte count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error
from typing import TypeVar, cast

import numpy as np

from isa.errors import ContainerError, QuarticError
from isa.instructions import DType
from isa.machine import Machine

U32 = Struct("<I")
TENSOR = Struct("<QBB")
LOCATION = Struct("<IIIIQ")
SIZES = Struct("<QQQ")
DIGEST_BYTES = 32
MACHINE_LIMIT = 1 << 16
"""A machine's text has some 50 short lines; more only serves to stress the TOML parser."""

ITEM_BYTES: Mapping[DType, int] = {DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F32: 4}
T = TypeVar("T")


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: row-major in PyTorch's dimension order, ``offset`` bytes into its region."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    offset: int

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes in its region."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Location:
    """Where instructions come from: kernel, FX node, module path and ``file.py:12``.

    An overhead has kernel "" and node "overhead:<name>". ``macs`` are the node's useful MACs, counted once.
    """

    kernel: str
    node: str
    module: str
    source: str
    macs: int = 0


Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Memory:
    """The IO section: graph inputs and outputs, and the bytes of the DRAM regions that a host provides."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    input_bytes: int
    output_bytes: int
    arena_bytes: int


class Reader:
    """A cursor over one section that never reads past its end."""

    def __init__(self, section: str, data: bytes) -> None:
        self.section = section
        self.data = data
        self.at = 0

    def error(self, message: str) -> ContainerError:
        """An error that names section and byte."""
        return ContainerError(f"section {self.section}, byte {self.at}: {message}")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > len(self.data) - self.at:
            raise self.error(f"{size} bytes wanted, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """The next integers."""
        return layout.unpack(self.take(layout.size))

    def count(self, item_bytes: int) -> int:
        """A u32 number of items of at least ``item_bytes`` bytes, which therefore fit in what is left."""
        (count,) = self.unpack(U32)
        if count * item_bytes > len(self.data) - self.at:
            raise self.error(f"{count} items do not fit in the {len(self.data) - self.at} bytes left")
        return count

    def string(self) -> str:
        """The next string."""
        raw = self.take(self.count(1))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error("a string is not UTF-8") from None

    def finish(self) -> None:
        """Check that nothing is left."""
        if left := len(self.data) - self.at:
            raise self.error(f"{left} bytes too many")


def _string(text: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise ContainerError(f"{text!r} cannot be written as UTF-8") from None
    return U32.pack(len(raw)) + raw


def _pack(section: str, layout: Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct_error:
        raise ContainerError(f"section {section}: {values} does not fit the format {layout.format!r}") from None


def _read(section: str, payload: bytes, read: Callable[[Reader], T], write: Callable[[T], bytes]) -> T:
    """Read all of ``payload`` and check that the value would be written as exactly these bytes."""
    reader = Reader(section, payload)
    value = read(reader)
    reader.finish()
    if write(value) != payload:
        raise ContainerError(f"section {section}: not in canonical form")
    return value


def write_strings(strings: Mapping[str, str]) -> bytes:
    """PROV: a u32 count, then keys and values in the order of the keys."""
    pairs = sorted(strings.items())
    return U32.pack(len(pairs)) + b"".join(_string(key) + _string(value) for key, value in pairs)


def read_strings(payload: bytes) -> Mapping[str, str]:
    """Inverse of :func:`write_strings`. Raises ContainerError."""

    def read(reader: Reader) -> Mapping[str, str]:
        return {reader.string(): reader.string() for _ in range(reader.count(8))}

    return _read("PROV", payload, read, write_strings)


def write_memory(memory: Memory) -> bytes:
    """IO: region sizes, then inputs and outputs, each a u32 count of (offset, dtype, rank, dimensions, name)."""
    parts = [_pack("IO", SIZES, memory.input_bytes, memory.output_bytes, memory.arena_bytes)]
    for infos in (memory.inputs, memory.outputs):
        parts.append(U32.pack(len(infos)))
        for info in infos:
            parts.append(_pack("IO", TENSOR, info.offset, int(info.dtype), len(info.shape)))
            parts += (_pack("IO", U32, n) for n in info.shape)
            parts.append(_string(info.name))
    return b"".join(parts)


def read_memory(payload: bytes) -> Memory:
    """Inverse of :func:`write_memory`. Raises ContainerError."""

    def read(reader: Reader) -> Memory:
        sizes = reader.unpack(SIZES)
        inputs, outputs = (tuple(_read_tensor(reader) for _ in range(reader.count(TENSOR.size))) for _ in range(2))
        return Memory(inputs, outputs, *sizes)

    return _read("IO", payload, read, write_memory)


def _read_tensor(reader: Reader) -> TensorInfo:
    offset, dtype, rank = reader.unpack(TENSOR)
    if dtype not in {int(member) for member in DType}:
        raise reader.error(f"dtype {dtype} is unknown")
    shape = tuple(reader.unpack(U32)[0] for _ in range(rank))
    return TensorInfo(reader.string(), shape, DType(dtype), offset)


def write_locations(locations: Sequence[Location], spans: Spans) -> bytes:
    """LOCS: a table of strings in order of first use, locations as indices into it, and the spans as u32 pairs."""
    strings: dict[str, int] = {}
    rows: list[bytes] = []
    for place in locations:
        texts = (place.kernel, place.node, place.module, place.source)
        indices = [strings.setdefault(text, len(strings)) for text in texts]
        rows.append(_pack("LOCS", LOCATION, *indices, place.macs))
    return b"".join(
        [
            U32.pack(len(strings)),
            *map(_string, strings),
            U32.pack(len(rows)),
            *rows,
            U32.pack(len(spans)),
            np.array(spans, dtype="<u4").tobytes(),
        ]
    )


def read_locations(payload: bytes) -> tuple[tuple[Location, ...], Spans]:
    """Inverse of :func:`write_locations`. Raises ContainerError."""

    def read(reader: Reader) -> tuple[tuple[Location, ...], Spans]:
        strings = [reader.string() for _ in range(reader.count(4))]
        locations = tuple(_read_location(reader, strings) for _ in range(reader.count(LOCATION.size)))
        pairs = np.frombuffer(reader.take(8 * reader.count(8)), dtype="<u4").reshape(-1, 2)
        counts, indices = (cast("list[int]", column.tolist()) for column in pairs.T)
        return locations, tuple(zip(counts, indices, strict=True))

    return _read("LOCS", payload, read, lambda value: write_locations(*value))


def _read_location(reader: Reader, strings: list[str]) -> Location:
    *indices, macs = reader.unpack(LOCATION)
    if max(indices) >= len(strings):
        raise reader.error(f"string {max(indices)} of a location, must be below {len(strings)}")
    kernel, node, module, source = (strings[i] for i in indices)
    return Location(kernel, node, module, source, macs)


def write_machine(machine: Machine) -> bytes:
    """MACH: the digest's 32 bytes, then the canonical TOML text."""
    return bytes.fromhex(machine.digest) + machine.to_toml().encode()


def read_machine(payload: bytes) -> Machine:
    """Inverse of :func:`write_machine`. Raises ContainerError, also for a digest of another machine."""
    if len(payload) > MACHINE_LIMIT:
        raise ContainerError(f"section MACH: {len(payload)} bytes, must be at most {MACHINE_LIMIT}")
    reader = Reader("MACH", payload)
    digest = reader.take(DIGEST_BYTES).hex()
    text = payload[DIGEST_BYTES:]
    try:
        machine = Machine.from_toml(text.decode(), "embedded machine")
    except (QuarticError, ValueError, ArithmeticError, RecursionError) as error:
        raise ContainerError(f"section MACH: {error}") from None
    if digest != machine.digest:
        raise ContainerError(
            f"section MACH: digest {digest[:12]}... is not that of the machine's text, {machine.digest[:12]}...; "
            "the binary was made for another machine"
        )
    if write_machine(machine) != payload:
        raise ContainerError("section MACH: the text is not in canonical form")
    return machine
