"""The pictures: a textured shape, turned, scaled and moved, before a textured, cluttered background, with noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 32
TRAIN, TEST = 1, 2
"""Seeds of the two sets."""
Array = NDArray[np.floating[Any]]
Inside = Callable[[Array, Array], NDArray[np.bool_]]


def _polygon(corners: int) -> Inside:
    def inside(u: Array, v: Array) -> NDArray[np.bool_]:
        sector = 2 * np.pi / corners
        angle = np.mod(np.arctan2(v, u), sector) - sector / 2
        return np.hypot(u, v) * np.cos(angle) < np.cos(sector / 2)

    return inside


def _star(points: int, waist: float) -> Inside:
    def inside(u: Array, v: Array) -> NDArray[np.bool_]:
        turn = np.abs(np.mod(np.arctan2(v, u) * points / (2 * np.pi), 1) - 0.5) * 2
        return np.hypot(u, v) < waist + (1 - waist) * turn

    return inside


def _box(u: Array, v: Array, left: float, right: float, low: float, high: float) -> NDArray[np.bool_]:
    return (u > left) & (u < right) & (v > low) & (v < high)


SHAPES: dict[str, Inside] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.85,
    "triangle": _polygon(3),
    "square": _polygon(4),
    "star5": _star(5, 0.4),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.28) & (np.maximum(abs(u), abs(v)) < 0.9),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.7) < 0.2,
    "crescent": lambda u, v: (np.hypot(u, v) < 0.9) & (np.hypot(u - 0.45, v) > 0.7),
    "ell": lambda u, v: _box(u, v, -0.7, -0.2, -0.8, 0.8) | _box(u, v, -0.7, 0.7, -0.8, -0.3),
    "tee": lambda u, v: _box(u, v, -0.25, 0.25, -0.8, 0.8) | _box(u, v, -0.8, 0.8, 0.35, 0.8),
    "aitch": lambda u, v: _box(abs(u), v, 0.35, 0.8, -0.8, 0.8) | _box(u, v, -0.5, 0.5, -0.22, 0.22),
}
"""Where each class is, in coordinates that are turned and scaled with it."""
CLASSES = len(SHAPES)


def pictures(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``count`` pictures [N, 3, 32, 32], about standard normal, and their classes [N]; the same for the same seed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    axis = (np.arange(SIDE) + 0.5) / (SIDE / 2) - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    image = _texture(rng, count, x, y)
    clutter = rng.integers(0, CLASSES, count)  # a small shape of any class
    image = _drawn(image, _masks(rng, clutter, x, y, (0.08, 0.16), 0.9), rng, x, y)
    image = _drawn(image, _masks(rng, labels, x, y, (0.5, 0.8), 0.2), rng, x, y)
    image += rng.normal(0, rng.uniform(0.05, 0.15, (count, 1, 1, 1)), image.shape)
    return image.astype(np.float32), labels


def _masks(
    rng: np.random.Generator, labels: NDArray[np.int64], x: Array, y: Array, size: tuple[float, float], reach: float
) -> NDArray[np.bool_]:
    """[N, 32, 32]: which points lie in the shapes ``labels``, of a random size, angle, place and aspect."""
    count = len(labels)
    angle, scale = rng.uniform(-0.5, 0.5, count), rng.uniform(*size, count)
    aspect, centres = rng.uniform(0.8, 1.25, count), rng.uniform(-reach, reach, (2, count))
    masks = np.zeros((count, SIDE, SIDE), bool)
    for i, inside in enumerate(SHAPES.values()):
        of = np.flatnonzero(labels == i)
        dx, dy = x - centres[0, of, None, None], y - centres[1, of, None, None]
        cos, sin = np.cos(angle[of])[:, None, None], np.sin(angle[of])[:, None, None]
        size_u = (scale[of] * aspect[of])[:, None, None]
        size_v = (scale[of] / aspect[of])[:, None, None]
        masks[of] = inside((cos * dx + sin * dy) / size_u, (cos * dy - sin * dx) / size_v)
    return masks


def _drawn(image: Array, masks: NDArray[np.bool_], rng: np.random.Generator, x: Array, y: Array) -> Array:
    return np.where(masks[:, None], _texture(rng, len(image), x, y), image)


def _texture(rng: np.random.Generator, count: int, x: Array, y: Array) -> Array:
    """[N, 3, 32, 32]: a colour and a wave of it."""
    colour = rng.normal(0, 0.8, (count, 3, 1, 1))
    wave = rng.normal(0, 0.2, (count, 3, 1, 1))
    across, down, phase = rng.uniform(-12, 12, (3, count, 1, 1))
    waves = np.sin(across * x + down * y + phase)
    return colour + wave * waves[:, None]
