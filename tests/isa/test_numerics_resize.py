"""Interpolation against exact rationals and PyTorch's definition in float64."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa import numerics
from tests.isa.exact import binary32, same

SIZES = st.integers(1, 12)
CORNERS = st.booleans()


def place(y: int, size: int, outputs: int, corners: bool) -> Fraction:
    """Where output y lies on an axis of ``size``, as PyTorch defines it."""
    if corners:
        return Fraction(y * (size - 1), outputs - 1) if outputs > 1 else Fraction(0)
    return max((y + Fraction(1, 2)) * Fraction(size, outputs) - Fraction(1, 2), Fraction(0))


def taps(size: int, outputs: int, corners: bool) -> list[tuple[int, int, np.float32]]:
    """Both neighbours of every output and the binary32 weight of the second."""
    places = [place(y, size, outputs, corners) for y in range(outputs)]
    return [(floor(p), min(floor(p) + 1, size - 1), binary32(p - floor(p))) for p in places]


def plain_bilinear(x: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """x float32 [H, W, C]: one output after the other, columns before rows, every step rounded."""
    rows, columns = (taps(n, m, corners) for n, m in zip(x.shape[:2], size, strict=True))
    y = np.empty((*size, x.shape[2]), np.float32)
    for i, (top, bottom, down) in enumerate(rows):
        for j, (left, right, across) in enumerate(columns):
            lines = [x[r, left] + (x[r, right] - x[r, left]) * across for r in (top, bottom)]
            y[i, j] = lines[0] + (lines[1] - lines[0]) * down
    return y


def scales(x, size, corners=False, nearest=False):
    """The positions' arguments (num), (den), (phase) of both axes."""
    places = [numerics.resize_scale(n, m, corners, nearest) for n, m in zip(x.shape[-3:-1], size, strict=True)]
    return tuple(zip(*places, strict=True))


@given(SIZES, st.integers(1, 30), CORNERS)
def test_positions_are_those_of_pytorch(size, outputs, corners):
    first, second, t = numerics.positions(outputs, size, *numerics.resize_scale(size, outputs, corners))
    found = list(zip(first.tolist(), second.tolist(), t, strict=True))
    assert found == taps(size, outputs, corners)
    assert t.dtype == np.float32


@given(SIZES, SIZES, SIZES, SIZES, CORNERS, st.integers(0, 99))
def test_bilinear_is_two_lines_of_rounded_steps(height, width, rows, columns, corners, seed):
    x = np.random.default_rng(seed).normal(0, 5, (height, width, 3)).astype(np.float32)
    size = (rows, columns)
    want = plain_bilinear(x, size, corners)
    for image in (x, torch.from_numpy(x)):
        assert same(numerics.bilinear(image, size, *scales(x, size, corners)), want)


@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_codes_are_interpolated_as_integers_and_scaled_at_the_end(kind, scale):
    limits = np.iinfo(kind)
    x = np.random.default_rng(0).integers(limits.min, limits.max, (2, 5, 4, 3), kind, endpoint=True)
    want = np.stack([plain_bilinear((image.astype(np.int32) - 7).astype(np.float32), (9, 3), False) for image in x])
    want = want * np.float32(scale) if scale else want
    for image in (x, torch.from_numpy(x)):
        assert same(numerics.bilinear(image, (9, 3), *scales(x, (9, 3)), zero=7, scale=scale), want)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(14, 9), (5, 7), (3, 20), (1, 1)])
def test_bilinear_is_near_pytorch_in_float64(size, corners):
    """Four roundings of numbers below 1: far below 2**-21."""
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    found = numerics.bilinear(x.permute(0, 2, 3, 1), size, *scales(np.empty((5, 7, 3)), size, corners))
    want = torch.nn.functional.interpolate(x.double(), size, mode="bilinear", align_corners=corners)
    assert (found.permute(0, 3, 1, 2) - want).abs().max() < 2.0**-21


@given(SIZES, SIZES, SIZES, SIZES)
def test_nearest_takes_the_element_at_the_floor(height, width, rows, columns):
    x = np.arange(height * width * 2, dtype=np.int16).reshape(height, width, 2)
    size = (rows, columns)
    picks = [[y * n // m for y in range(m)] for n, m in zip((height, width), size, strict=True)]
    want = x[picks[0]][:, picks[1]]
    for image in (x, torch.from_numpy(x)):
        found = numerics.nearest(image, size, *scales(x, size, nearest=True))
        assert np.array_equal(np.asarray(found), want)


def test_infinities_spread_to_their_neighbours_and_do_not_warn():
    """a + (b - a) * t, also where t is 0: an infinity makes NaN of every output that has it for a neighbour."""
    x = np.array([[[1.0], [np.inf], [2.0]]], np.float32)
    with np.errstate(all="ignore"):
        want = plain_bilinear(x, (1, 6), False)
    found = numerics.bilinear(x, (1, 6), *scales(x, (1, 6)))
    assert same(found, want)
    assert np.isnan(found[0, :, 0]).tolist() == [True] * 5 + [False]
