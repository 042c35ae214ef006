"""Small binaries for tests, and a way to damage one under valid checksums."""

import hashlib
import zlib

from isa import program
from isa.container import DIGEST_BYTES, ENTRY, HEADER, Binary
from isa.instructions import DType, Halt, LoadCopy, MmuRun, Region, StoreCopy
from isa.machine import Machine
from isa.sections import Location, TensorInfo


def sample(**changes) -> Binary:
    """A binary with something in every section."""
    parts = {
        "machine": Machine.load("tiny"),
        "code": program.encode(
            [LoadCopy(region=Region.INPUT, bytes=12), MmuRun(n=3), StoreCopy(region=Region.OUTPUT, bytes=12), Halt()]
        ),
        "constants": bytes(range(37)),
        "inputs": (TensorInfo("x", (1, 3, 2, 2), DType.I8, 0), TensorInfo("scale", (), DType.F32, 12)),
        "outputs": (TensorInfo("logits", (1, 3), DType.F32, 0),),
        "input_bytes": 16,
        "output_bytes": 12,
        "arena_bytes": 64,
        "locations": (
            Location("conv", "conv2d_1", "features.0", "model.py:12", 36),
            Location("", "overhead:halt", "", ""),
        ),
        "spans": ((3, 0), (1, 1)),
        "provenance": {"quartic": "0.1.0", "model": "Füllung"},
    }
    return Binary(**(parts | changes))


def sections(data: bytes) -> list[tuple[bytes, int, int]]:
    """(tag, offset, bytes) of every section, read without any check."""
    count = HEADER.unpack_from(data)[3]
    entries = ENTRY.iter_unpack(data[HEADER.size : HEADER.size + ENTRY.size * count])
    return [(tag, offset, size) for tag, _, offset, size, _, _ in entries]


def seal(data: bytes) -> bytes:
    """``data`` with CRCs and SHA-256 made valid again wherever the table still makes sense."""
    out = bytearray(data)
    count = min(HEADER.unpack_from(out)[3], (len(out) - HEADER.size) // ENTRY.size)
    for at in range(HEADER.size, HEADER.size + ENTRY.size * count, ENTRY.size):
        tag, flags, offset, size, _, zero = ENTRY.unpack_from(out, at)
        crc = zlib.crc32(out[offset : offset + size])
        ENTRY.pack_into(out, at, tag, flags, offset, size, crc, zero)
    out[-DIGEST_BYTES:] = hashlib.sha256(out[:-DIGEST_BYTES]).digest()
    return bytes(out)
