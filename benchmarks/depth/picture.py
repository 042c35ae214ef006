"""Pictures without a graphics library: a colour map, PNG through zlib, and rows of half blocks for a terminal."""

from __future__ import annotations

import struct
import zlib
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


def beside(pictures: list[Picture], gap: int = 4) -> Picture:
    """Pictures of one height from left to right, white between them."""
    white = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(parts[:-1], axis=1)


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
