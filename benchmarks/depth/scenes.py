"""Procedural scenes: a ground plane, a back wall, boxes and spheres with textures and a light, and their exact depth.

Depth is the distance along the optical axis, in metres. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NEAR = 1e-3
"""Metres before the camera that nothing is seen in."""
VALIDATION, TEST = 1_000_000, 2_000_000
"""First seeds of the scenes that choose a checkpoint, and of those that only measure; training counts up from 0."""


@dataclass(frozen=True)
class Scenes:
    """Parameters of the generator; changing them gives scenes out of the training distribution."""

    size: int = 112
    field_of_view: float = 70.0
    """Degrees, horizontal."""
    camera_height: tuple[float, float] = (1.2, 2.0)
    pitch: tuple[float, float] = (0.0, 12.0)
    """Degrees downwards."""
    wall: tuple[float, float] = (7.0, 10.0)
    boxes: tuple[int, int] = (2, 5)
    spheres: tuple[int, int] = (1, 4)
    ambient: float = 0.35
    colours: tuple[float, float] = (0.15, 1.0)
    pattern: tuple[float, float] = (1.0, 4.0)
    """Cells of a texture per metre."""
    noise: float = 0.01
    """Standard deviation, of the image's 0 .. 1."""

    def scene(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image [3, size, size] in 0 .. 1 and depth [1, size, size]."""
        rng = np.random.default_rng(seed)
        pitch = np.deg2rad(rng.uniform(*self.pitch))
        rays, forward = self._rays(pitch), np.array([0.0, -np.sin(pitch), np.cos(pitch)])
        origin = np.array([0.0, rng.uniform(*self.camera_height), 0.0])
        hits = [_plane(origin, rays, 1, 0.0), _plane(origin, rays, 2, rng.uniform(*self.wall))]
        for _ in range(rng.integers(*self.boxes)):
            hits.append(_box(origin, rays, *_placed_box(rng)))
        for _ in range(rng.integers(*self.spheres)):
            radius = rng.uniform(0.3, 0.9)
            centre = np.array([rng.uniform(-2.5, 2.5), radius, rng.uniform(2.5, 6.5)])
            hits.append(_sphere(origin, rays, centre, radius))
        image, distance = self._shade(rng, origin, rays, hits)
        depth = distance * (rays @ forward)
        return image.transpose(2, 0, 1).astype(np.float32), depth[None].astype(np.float32)

    def batch(self, first: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scenes of seeds first .. first + count - 1, stacked."""
        images, depths = zip(*(self.scene(seed) for seed in range(first, first + count)), strict=True)
        return np.stack(images), np.stack(depths)

    def _rays(self, pitch: float) -> Floats:
        """Unit directions [size, size, 3]; y is up, z forwards."""
        half = np.tan(np.deg2rad(self.field_of_view) / 2)
        place = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        x, y = np.meshgrid(place * half, -place * half)
        c, s = np.cos(pitch), np.sin(pitch)
        rays = np.stack([x, y * c - s, y * s + c], -1)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def _shade(
        self, rng: np.random.Generator, origin: Floats, rays: Floats, hits: list[tuple[Floats, Floats]]
    ) -> tuple[Floats, Floats]:
        distances = np.stack([t for t, _ in hits])
        nearest = distances.argmin(0)
        distance = np.take_along_axis(distances, nearest[None], 0)[0]
        points = origin + rays * distance[..., None]
        light = np.array([rng.uniform(-1, 1), rng.uniform(0.8, 1.5), rng.uniform(-1.2, -0.4)])
        light /= np.linalg.norm(light)
        image = np.zeros_like(rays)
        for i, (_, normal) in enumerate(hits):
            seen = nearest == i
            shade = self.ambient + (1 - self.ambient) * np.clip(normal[seen] @ light, 0, 1)
            image[seen] = _texture(rng, points[seen], self.colours, self.pattern) * shade[:, None]
        noise = rng.normal(scale=self.noise, size=image.shape)
        return np.clip(image + noise, 0, 1), distance


def _placed_box(rng: np.random.Generator) -> tuple[Floats, Floats]:
    size = rng.uniform([0.4, 0.4, 0.4], [1.4, 2.0, 1.2])
    low = np.array([rng.uniform(-3.0, 2.0), 0.0, rng.uniform(2.0, 6.5)])
    return low, low + size


def _plane(origin: Floats, rays: Floats, axis: int, at: float) -> tuple[Floats, Floats]:
    """Distance to the plane where coordinate ``axis`` is ``at``, and its normal towards the camera."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (at - origin[axis]) / rays[..., axis]
    normal = np.zeros(3)
    normal[axis] = np.sign(origin[axis] - at)
    return np.where(t > NEAR, t, np.inf), np.broadcast_to(normal, rays.shape)


def _box(origin: Floats, rays: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Distance to an axis-aligned box by slabs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - origin) / rays, (high - origin) / rays
    enter, leave = np.minimum(a, b), np.maximum(a, b)
    axis, first = enter.argmax(-1), enter.max(-1)
    hit = (first < leave.min(-1)) & (first > NEAR)
    normal = -np.sign(np.take_along_axis(rays, axis[..., None], -1)) * np.eye(3)[axis]
    return np.where(hit, first, np.inf), normal


def _sphere(origin: Floats, rays: Floats, centre: Floats, radius: float) -> tuple[Floats, Floats]:
    """Distance to a sphere: the smaller root of |o + t r - c| = radius."""
    offset = origin - centre
    b = rays @ offset
    root = b * b - offset @ offset + radius * radius
    t = -b - np.sqrt(np.maximum(root, 0))
    t = np.where((root > 0) & (t > NEAR), t, np.inf)
    points = origin + rays * np.where(np.isfinite(t), t, 0.0)[..., None]
    return t, (points - centre) / radius


SETS = {
    "held out": Scenes(),
    "textures": Scenes(pattern=(6.0, 16.0), colours=(0.0, 1.0)),
    "night": Scenes(ambient=0.1, colours=(0.05, 0.5), noise=0.04),
    "crowd": Scenes(boxes=(7, 11), spheres=(5, 9)),
    "camera": Scenes(field_of_view=95.0, camera_height=(2.2, 3.0), pitch=(15.0, 28.0)),
}
"""What is measured on: the first as the training scenes, the others each changed in one respect."""


def _texture(
    rng: np.random.Generator,
    points: Floats,
    colours: tuple[float, float] = Scenes.colours,
    pattern: tuple[float, float] = Scenes.pattern,
) -> Floats:
    """Colours [N, 3] of points [N, 3]: checkers, stripes or plain, of two random colours.

    The pattern starts at a random place: an edge of it that lies in the plane y = 0 would be drawn by rounding.
    """
    pair, scale, start = rng.uniform(*colours, (2, 3)), rng.uniform(*pattern), rng.uniform(0.0, 2.0, 3)
    place = points * scale + start
    match rng.integers(3):
        case 0:
            mask = np.floor(place).sum(-1) % 2
        case 1:
            mask = np.floor(place @ rng.normal(size=3)) % 2
        case _:
            mask = 0.5 + 0.5 * np.sin(place @ rng.normal(size=3))
    return pair[0] + (pair[1] - pair[0]) * mask[:, None]
