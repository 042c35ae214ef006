"""Row reductions against sums of Python integers, and what is built on them against its definition and float64."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa import numerics
from isa.numerics.rows import MOMENT_LIMIT, SUM_LIMIT
from tests.isa.exact import binary32, rational, same

NAN, INF = float("nan"), float("inf")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = st.floats(-100, 100, width=32)
FRACTIONS = st.integers(-128, 127)
MATRICES = [np.random.default_rng(n).normal(0, 3, (4, n)).astype(np.float32) for n in (1, 2, 7, 64, 1000)]
FAINT = np.where(np.arange(900) == 5, 0, np.linspace(-22, -20, 900)).astype(np.float32)[None]
"""Nearly all of it is of the size of the unit of softmax's sum."""


def rows(elements=SMALL, least=1):
    """float32 rows of up to 40 elements."""
    return st.lists(elements, min_size=least, max_size=40).map(lambda v: np.array(v, np.float32))


def integers(row, fraction: int, limit: float, inclusive: bool) -> list[int] | None:
    """rne(x * 2**fraction), None where the row has no defined sum."""
    exact = rational(row)
    if exact is None:
        return None
    values = [round(x * Fraction(2) ** fraction) for x in exact]
    inside = all(abs(v) <= limit if inclusive else abs(v) < limit for v in values)
    return values if inside else None


def scaled(total: int, exponent: int) -> np.float32:
    """fp32(total) * 2**exponent: two roundings, the second only of denormals and infinities."""
    return binary32(Fraction(float(binary32(total))) * Fraction(2) ** exponent)


def exact_sum(row, fraction: int) -> np.float32:
    v = integers(row, fraction, SUM_LIMIT, inclusive=False)
    return np.float32(NAN) if v is None else scaled(sum(v), -fraction)


def exact_moments(row, fraction: int) -> tuple[np.float32, np.float32, np.float32]:
    """Sum, sum of squares and n * sum v*v - (sum v)**2."""
    v = integers(row, fraction, MOMENT_LIMIT, inclusive=True)
    if v is None:
        return (np.float32(NAN),) * 3
    squares = sum(x * x for x in v)
    spread = len(v) * squares - sum(v) ** 2
    return scaled(sum(v), -fraction), scaled(squares, -2 * fraction), scaled(spread, -2 * fraction)


def both(function, x, *args):
    """The numpy result, which torch's equals bit for bit."""
    y = function(x, *args)
    assert same(function(torch.from_numpy(x.copy()), *args), y)
    return y


@given(rows(FINITE), FRACTIONS)
def test_sum_is_that_of_integers(row, fraction):
    assert same(both(numerics.row_sum, row[None], fraction), [exact_sum(row, fraction)])


@given(rows(), st.integers(-20, 45))
def test_sum_of_ordinary_numbers_is_that_of_integers(row, fraction):
    """Most rows of arbitrary binary32 overflow a fraction; these do not."""
    assert same(both(numerics.row_sum, row[None], fraction), [exact_sum(row, fraction)])


@given(rows(st.one_of(SMALL, FINITE)), FRACTIONS)
def test_squares_are_those_of_integers(row, fraction):
    assert same(both(numerics.row_squares, row[None], fraction), [exact_moments(row, fraction)[1]])


@given(rows(st.floats(-4, 4, width=32)), st.integers(0, 18))
def test_moments_are_those_of_integers(row, fraction):
    x, total, square, spread = row[None], *exact_moments(row, fraction)
    for image in (x, torch.from_numpy(x)):
        found = numerics.row_moments(image, fraction)
        assert same(found[0], [total])
        assert same(found[1], [spread])
    assert same(numerics.row_squares(x, fraction), [square])


@pytest.mark.parametrize("n", [3, 8192])
def test_largest_moments_are_exact(n):
    """2**18 in every place but a few: the widest sums that the unit may form, rounded once."""
    row = np.full(n, 2.0**18, np.float32)
    row[1::3] = -(2.0**18) + 1
    row[2] = 12345
    total, _, spread = exact_moments(row, 0)
    for image in (row[None], torch.from_numpy(row[None])):
        found = numerics.row_moments(image)
        assert same(found[0], [total])
        assert same(found[1], [spread])


def test_long_sums_beyond_binary64_are_exact():
    """2**53 + 2**29 + 1, which binary64 would round to a tie of binary32, and that tie down."""
    row = np.array([2.0**45] * 256 + [2.0**29, 1], np.float32)
    found = both(numerics.row_sum, row[None])
    assert found.tolist() == [2.0**53 + 2.0**30]
    assert same(found, [exact_sum(row, 0)])


@pytest.mark.parametrize("fraction", [-3, 0, 5])
def test_ties_round_to_even(fraction):
    x = np.array([[0.5, 1.5, 2.5, 0], [-0.5, -1.5, -2.5, 0.5]], np.float32) * np.float32(2.0**-fraction)
    assert (both(numerics.row_sum, x, fraction) * 2.0**fraction).tolist() == [4, -4]
    assert (both(numerics.row_squares, x, fraction) * 4.0**fraction).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("function", "limit", "inside"),
    [(numerics.row_sum, SUM_LIMIT, False), (numerics.row_squares, MOMENT_LIMIT, True)],
)
def test_a_row_beyond_the_limit_is_nan_and_the_others_are_not(function, limit, inside):
    below = float(np.nextafter(np.float32(limit), np.float32(0)))
    above = float(np.nextafter(np.float32(limit), np.float32(INF)))
    for sign in (1, -1):
        x = np.array([[sign * below, 1.0], [sign * limit, 1.0], [sign * above * 2, 1.0]], np.float32)
        assert np.isnan(both(function, x)).tolist() == [False, not inside, True]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_row_with_what_is_not_finite_is_nan(value):
    x = np.ones((3, 5), np.float32)
    x[1, 3] = value
    for function in (numerics.row_sum, numerics.row_squares, numerics.softmax):
        found = both(function, x)
        hidden = function is numerics.softmax and value == -INF
        assert np.isnan(found).reshape(3, -1).all(1).tolist() == [False, not hidden, False]
        assert not np.isnan(found[[0, 2]]).any()
    for part in numerics.row_moments(x):
        assert np.isnan(part).tolist() == [False, True, False]


@given(rows(st.one_of(SMALL, st.floats(width=32))), st.randoms(use_true_random=False))
def test_no_reduction_depends_on_the_order(row, random):
    """Also of what is built on them: a permuted row gives the permuted result."""
    order = list(range(len(row)))
    random.shuffle(order)
    x, permuted = row[None], row[order][None]
    for function in (numerics.row_max, numerics.row_min, numerics.row_sum, numerics.row_squares, numerics.sum_rows):
        assert same(both(function, permuted), function(x))
    for found, want in zip(numerics.row_moments(permuted, 3), numerics.row_moments(x, 3), strict=True):
        assert same(found, want)
    with np.errstate(all="ignore"):
        assert same(numerics.softmax(permuted), numerics.softmax(x)[:, order])
        assert same(numerics.rms_norm(permuted, None, 1e-6), numerics.rms_norm(x, None, 1e-6)[:, order])
        found = numerics.layer_norm(permuted, None, None, 1e-6)
        assert same(found, numerics.layer_norm(x, None, None, 1e-6)[:, order])


@given(rows(st.floats(width=32)))
def test_maximum_and_minimum_are_ieee_and_argmax_is_the_first(row):
    """NaN wins, -0 is below +0."""
    values = [float(v) for v in row]
    nans = [i for i, v in enumerate(values) if np.isnan(v)]
    order = [(v, not np.signbit(v)) for v in values]
    top, low = (NAN, NAN) if nans else (values[order.index(max(order))], values[order.index(min(order))])
    first = nans[0] if nans else values.index(max(values))
    assert same(both(numerics.row_max, row[None]), np.array([top], np.float32))
    assert same(both(numerics.row_min, row[None]), np.array([low], np.float32))
    for x in (row[None], torch.from_numpy(row[None])):
        assert numerics.row_argmax(x).tolist() == [first]


@given(st.floats(width=32), st.integers(1, 46))
def test_align_brings_the_largest_exponent_to_the_top_bit(a, bits):
    found = both(numerics.align, np.array([a], np.float32), bits)
    if not np.isfinite(a):
        want = np.float32(NAN)
    elif a == 0:
        want = np.float32(1)
    else:
        exponent = Fraction(abs(a)).numerator.bit_length() - Fraction(abs(a)).denominator.bit_length()
        exponent -= Fraction(abs(a)) < Fraction(2) ** exponent
        want = np.float32(2.0 ** max(min(bits - 1 - exponent, 60), -126))
    assert same(found, [want])


@pytest.mark.parametrize("x", [*MATRICES, FAINT], ids=lambda x: f"n{x.shape[1]}")
def test_softmax_is_its_definition(x):
    """Exponentials of binary32, their exact sum in units of 2**-30, one reciprocal."""
    e = numerics.exp2((x - x.max(-1, keepdims=True)) * np.float32(1.4426950408889634))
    total = np.array([exact_sum(row, 30) for row in e])
    assert same(both(numerics.softmax, x), e * numerics.reciprocal(total)[:, None])


@pytest.mark.parametrize("x", MATRICES, ids=lambda x: f"n{x.shape[1]}")
def test_softmax_is_near_float64(x):
    """Within 5e-7 of the value, plus the rounding of the sum's units."""
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    want = e / e.sum(-1, keepdims=True)
    assert np.all(np.abs(numerics.softmax(x) - want) <= 2e-6 * want + x.shape[1] * 2.0**-31 * want)


def test_softmax_of_masked_and_infinite_rows():
    x = np.array([[-INF, 1, 1, -INF], [-INF] * 4, [INF, 0, 0, 0], [3e38, -3e38, 0, 3e38]], np.float32)
    found = both(numerics.softmax, x)
    assert found[0].tolist() == [0, 0.5, 0.5, 0]
    assert np.isnan(found[1:3]).all()
    assert found[3].tolist() == [0.5, 0, 0, 0.5]


@pytest.mark.parametrize("block", [1, 7, 8, 100])
def test_softmax_of_some_rows_at_a_time_is_that_of_all(block, monkeypatch):
    """One row of 7 at a time where a block is shorter, and rows that are no numbers beside others."""
    x = np.random.default_rng(0).normal(0, 9, (3, 5, 7)).astype(np.float32)
    x[0, 1], x[1, 2, 3], x[2, 4] = -INF, NAN, 5
    want = numerics.softmax(x)
    monkeypatch.setattr("isa.numerics.rows.ROWS_BLOCK", block)
    assert same(both(numerics.softmax, x), want)
    assert same(numerics.softmax(x[:, :, 1:6]), numerics.softmax(x[:, :, 1:6].copy()))
    assert numerics.softmax(x[:0]).shape == (0, 5, 7)


def affine(y, gamma, beta):
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


@pytest.mark.parametrize("scale", [None, 0.037])
@pytest.mark.parametrize("n", [1, 5, 96])
def test_layer_norm_is_its_definition(n, scale):
    """Codes as they are; binary32 brought to 18 bits by the power of two of its largest element."""
    rng = np.random.default_rng(n)
    x = (rng.integers(-255, 256, (3, n)) if scale else rng.normal(1, 4, (3, n))).astype(np.float32)
    gamma, beta = rng.normal(size=(2, n)).astype(np.float32)
    eps, r = 1e-3, np.ones((3, 1), np.float32)
    if scale is None:
        r = np.exp2(17 - np.floor(np.log2(np.abs(x).max(-1, keepdims=True)))).astype(np.float32)
        epsilon = (r * r) * np.float32(eps)
    else:
        epsilon = np.full((3, 1), eps / scale**2, np.float32)
    v = x * r
    moments = np.array([exact_moments(row, 0) for row in v])
    total, squares, spread = (moments[:, i : i + 1] for i in range(3))
    inverse = numerics.rsqrt(spread * np.float32(1 / n**2) + epsilon)
    want = affine((v - total * np.float32(1 / n)) * inverse, gamma, beta)
    found = numerics.layer_norm(x, gamma, beta, eps, scale)
    assert same(found, want)
    tensors = (torch.from_numpy(a) for a in (x, gamma, beta))
    assert same(numerics.layer_norm(*tensors, eps, scale), want)
    inverse = numerics.rsqrt(squares * np.float32(1 / n) + epsilon)
    assert same(numerics.rms_norm(x, gamma, eps, scale), affine(v * inverse, gamma, None))
    assert same(numerics.rms_norm(torch.from_numpy(x), torch.from_numpy(gamma), eps, scale), (v * inverse) * gamma)


@pytest.mark.parametrize("magnitude", [1e-12, 1.0, 1e12])
def test_norms_are_near_float64(magnitude):
    """18 bits of the largest element: within 2**-16 of a standard deviation, whatever the unit of x."""
    x = (np.random.default_rng(2).normal(0.5, 1, (8, 200)) * magnitude).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    for found, want in (
        (numerics.layer_norm(x, None, None, 0.0), centred / np.sqrt((centred**2).mean(-1, keepdims=True))),
        (numerics.rms_norm(x, None, 0.0), wide / np.sqrt((wide**2).mean(-1, keepdims=True))),
    ):
        assert np.abs(found - want).max() < 2.0**-15


@given(rows(st.one_of(SMALL, FINITE)))
def test_sum_of_rows_keeps_forty_bits(row):
    """Aligned so that the largest element has 40 bits (but never finer than 2**-60), summed exactly, brought back."""
    found = both(numerics.sum_rows, row[None])
    largest = Fraction(float(np.abs(row).max()))
    exact = sum((Fraction(float(v)) for v in row), Fraction(0))
    bound = abs(exact) / 2**23 + len(row) * max(largest / 2**39, Fraction(1, 2**61))
    assert abs(Fraction(float(found[0])) - exact) <= bound


@pytest.mark.parametrize("n", [1, 6, 301])
def test_sum_of_rows_is_its_definition(n):
    """Also where the large elements cancel and only the last of the forty bits are left."""
    y = np.random.default_rng(n).normal(0, 50, (3, n)).astype(np.float32)
    x = np.concatenate([y, -y, y * np.float32(2.0**-34)], -1)
    r = np.exp2(39 - np.floor(np.log2(np.abs(x).max(-1, keepdims=True)))).astype(np.float32)
    want = np.array([exact_sum(row, 0) for row in x * r]) / r[:, 0]
    assert np.all(want != 0)
    assert same(both(numerics.sum_rows, x), want)
    assert same(both(numerics.mean_rows, x), want * np.float32(1 / (3 * n)))


def test_sums_and_means_of_codes_are_exact_integers():
    x = np.random.default_rng(3).integers(-255, 256, (5, 333)).astype(np.float32)
    total = x.astype(np.int64).sum(-1).astype(np.float32)
    assert same(both(numerics.sum_rows, x, 0.3), total * np.float32(0.3))
    assert same(both(numerics.mean_rows, x, 0.3), (total * np.float32(0.3)) * np.float32(1 / 333))


@pytest.mark.parametrize("exponent", [-254, -127, -1, 0, 1, 127, 254])
def test_two_powers_multiply_to_any(exponent):
    first, second = numerics.powers(exponent)
    assert Fraction(first) * Fraction(second) == Fraction(2) ** exponent
    assert (first, second) == (float(binary32(Fraction(first))), float(binary32(Fraction(second))))
