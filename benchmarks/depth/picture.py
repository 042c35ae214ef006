"""Pictures without a graphics library: a colour map, PNG through zlib, and rows of half blocks for a terminal."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from quartic.files import write_bytes

Picture = NDArray[np.uint8]
"""[H, W, 3], red, green, blue."""

STOPS = np.array([[240, 249, 33], [248, 149, 64], [204, 71, 120], [126, 3, 168], [13, 8, 135]], np.float64)
"""Near to far: the plasma colour map, backwards, at five places."""


def coloured(depth: NDArray[np.float32], low: float, high: float) -> Picture:
    """Depth [H, W] as colours; ``low`` and nearer is yellow, ``high`` and farther is blue."""
    place = np.clip((depth - low) / max(high - low, 1e-9), 0, 1) * (len(STOPS) - 1)
    channels = [np.interp(place, range(len(STOPS)), STOPS[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def photograph(image: NDArray[np.float32]) -> Picture:
    """Image [3, H, W] in [0, 1] as bytes."""
    return (np.clip(image, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)


LETTERS = {
    "a": "0e11111f111111", "c": "0e11101010110e", "e": "1f10101e10101f", "f": "1f10101e101010", "i": "0e04040404040e",
    "l": "1010101010101f", "n": "11191513111111", "o": "0e11111111110e", "p": "1e11111e101010", "t": "1f040404040404",
    "u": "1111111111110e", "w": "11111115151b11", "x": "11110a040a1111", "1": "040c040404040e", "4": "02060a121f0202",
    "6": "0e10101e11110e", "8": "0e11110e11110e",
}  # fmt: skip
"""Seven rows of five pixels per character, in hexadecimal: what the captions of depth maps need."""


def caption(text: str, width: int, scale: int = 2) -> Picture:
    """``text`` in the middle of a white strip ``width`` pixels wide; characters outside LETTERS are left blank."""
    strip = np.full((13, width // scale + 1, 3), 255, np.uint8)
    left = max(0, (strip.shape[1] - 6 * len(text)) // 2)
    for character in text:
        rows = bytes.fromhex(LETTERS.get(character, "00" * 7))
        ink = np.unpackbits(np.frombuffer(rows, np.uint8)[:, None], axis=1)[:, 3:].astype(bool)
        cell = strip[3:10, left : left + 5]
        cell[ink[:, : cell.shape[1]]] = 40
        left += 6
    return enlarged(strip, scale)[:, :width]


def enlarged(picture: Picture, scale: int) -> Picture:
    """Every pixel as a square of ``scale`` pixels."""
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def beside(pictures: Sequence[Picture], gap: int = 4, axis: int = 1) -> Picture:
    """Pictures of one height from left to right, or with ``axis`` 0 of one width from top to bottom; white between."""
    shape = list(pictures[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(parts[:-1], axis=axis)


def sheet(titles: Sequence[str], rows: Sequence[Sequence[Picture]], scale: int = 2) -> Picture:
    """Rows of pictures of one size, enlarged, under a title for each column."""
    width = rows[0][0].shape[1] * scale
    lines = [beside([caption(title, width) for title in titles])]
    lines += [beside([enlarged(picture, scale) for picture in row]) for row in rows]
    return beside(lines, axis=0)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file: 8-bit RGB, no filter (PNG specification, ISO/IEC 15948)."""
    height, width, _ = picture.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, picture: Picture) -> None:
    """Write the picture as PNG; raises InputError if ``path`` cannot be written."""
    write_bytes(path, png(picture))


def half_blocks(picture: Picture, columns: int = 76) -> Text:
    """The picture for a terminal: each character shows two pixels, the upper as its colour, the lower behind it."""
    height, width, _ = picture.shape
    columns = min(columns, width)
    rows = max(1, round(height * columns / width / 2)) * 2
    y = (np.arange(rows) * height // rows)[:, None]
    small = picture[y, np.arange(columns) * width // columns]
    text = Text()
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        for a, b in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", style=f"rgb({a[0]},{a[1]},{a[2]}) on rgb({b[0]},{b[1]},{b[2]})")
        text.append("\n")
    return text
