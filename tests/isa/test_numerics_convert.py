"""Conversions, elementwise operations and integer products: equations, edges, numpy = torch."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa import numerics
from isa.numerics.integer import float32_is_exact, int_mm_is_exact, takes_int_mm
from tests.isa.exact import binary32, same

SCALES = st.floats(2.0**-60, 2.0**20, allow_nan=False)
ZEROS = st.integers(-128, 127)
FLOATS = np.array([0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf, np.nan, 1e-45], np.float32)
CODES = np.arange(-128, 128, dtype=np.int8)


@given(SCALES, ZEROS)
def test_dequantize_rounds_the_product_once(scale: float, zero: int) -> None:
    y = numerics.dequantize(CODES, scale, zero)
    exact = [Fraction(int(q) - zero) * Fraction(numerics.fp32(scale)) for q in CODES]
    assert [float(v) for v in y] == [numerics.fp32(float(e)) for e in exact]
    assert np.array_equal(numerics.dequantize(torch.from_numpy(CODES), scale, zero).numpy(), y)


@given(SCALES, ZEROS)
def test_codes_survive_dequantize_and_quantize(scale: float, zero: int) -> None:
    y = numerics.dequantize(CODES, scale, zero)
    assert np.array_equal(numerics.quantize(y, numerics.inverse_scale(scale), zero), CODES)


@given(SCALES, ZEROS, st.lists(st.floats(-300, 300), min_size=1, max_size=30))
def test_quantize_is_clamp_of_round_half_even(scale: float, zero: int, steps: list[float]) -> None:
    y = (np.array(steps) * scale).astype(np.float32)
    inverse = numerics.inverse_scale(scale)
    want = [min(max(round(float(v * np.float32(inverse))) + zero, -128), 127) for v in y]
    assert numerics.quantize(y, inverse, zero).tolist() == want
    assert numerics.quantize(torch.from_numpy(y), inverse, zero).tolist() == want


def test_quantize_saturates_infinities_and_sends_nan_to_the_zero_point() -> None:
    want = [7, 7, 7, 9, 9, 7, 5, 127, -128, 127, -128, 7, 7]
    assert numerics.quantize(FLOATS, 1.0, 7).tolist() == want
    assert numerics.quantize(torch.from_numpy(FLOATS), 1.0, 7).tolist() == want


def test_quantize_takes_a_scratch_buffer_and_a_scalar() -> None:
    y = FLOATS.copy()
    want = numerics.quantize(y, 0.5, 0)
    assert np.array_equal(numerics.quantize(y, 0.5, 0, scratch=y), want)
    assert numerics.quantize(np.float32(3.0), 1.0, 0) == 3
    t = torch.from_numpy(FLOATS.copy())
    assert np.array_equal(numerics.quantize(t, 0.5, 0, scratch=t).numpy(), want)


def test_unsigned_codes_dequantize_like_signed_ones_shifted_by_128() -> None:
    u = np.arange(256, dtype=np.uint8)
    assert np.array_equal(numerics.dequantize(u, 0.3, 130), numerics.dequantize(CODES, 0.3, 2))


def test_inverse_scale_rounds_the_double_quotient_once() -> None:
    assert numerics.inverse_scale(0.1) == float(np.float32(1 / 0.1))


def test_product_scale_rounds_both_factors_and_the_product() -> None:
    want = np.float32(0.1) * np.float32(0.3)
    assert numerics.product_scale(0.1, 0.3) == float(want)
    assert numerics.product_scale(0.1, np.array([0.3])).tolist() == [float(want)]
    assert numerics.product_scale(0.1, torch.tensor([0.3], dtype=torch.float64)).tolist() == [float(want)]


def test_accumulators_become_float_then_scale_then_bias() -> None:
    acc = np.array([[2**24 + 1, -3], [2**31 - 1, 0]], np.int32)
    scale, bias = np.array([0.1, 3.0], np.float32), np.array([1.0, 0.1], np.float32)
    want = acc.astype(np.float32) * scale + bias
    assert np.array_equal(numerics.accumulate_to_float(acc, scale, bias), want)
    got = numerics.accumulate_to_float(*map(torch.from_numpy, (acc, scale, bias)))
    assert np.array_equal(got.numpy(), want)


def test_mean_multiplies_by_the_scale_and_then_by_the_rounded_reciprocal() -> None:
    total = np.array([1, -7, 2**20], np.int32)
    want = (total.astype(np.float32) * np.float32(0.3)) * np.float32(1 / 49)
    assert np.array_equal(numerics.sum_to_mean(total, 0.3, 49), want)
    assert np.array_equal(numerics.sum_to_mean(torch.from_numpy(total), 0.3, 49).numpy(), want)


@pytest.mark.parametrize(
    ("name", "args"), [("relu", ()), ("clamp", (0.1, 6.0)), ("hardswish", ()), ("hardsigmoid", ())]
)
def test_elementwise_agrees_between_numpy_and_torch(name: str, args: tuple[float, ...]) -> None:
    x = np.concatenate([FLOATS, np.linspace(-8, 8, 4001, dtype=np.float32)])
    with np.errstate(all="ignore"):
        want = getattr(numerics, name)(x, *args)
    got = getattr(numerics, name)(torch.from_numpy(x), *args)
    assert np.array_equal(got.numpy(), want, equal_nan=True)


def test_hardswish_rounds_each_step() -> None:
    x = np.float32(1.1) * np.ones(1, np.float32)
    t = np.minimum(np.maximum(x + np.float32(3), np.float32(0)), np.float32(6))
    assert np.array_equal(numerics.hardswish(x), (x * t) * np.float32(1 / 6))


SHAPES = [(1, 1, 1), (1, 1, 5), (1, 4608, 1), (7, 1, 9), (3, 5, 1), (2, 3, 4), (17, 1025, 33), (5, 3000, 7), (0, 4, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [(-128, -127), (-128, -128), (127, 127), None])
def test_integer_product_is_exact(shape: tuple[int, int, int], values: tuple[int, int] | None) -> None:
    m, k, n = shape
    rng = np.random.default_rng(k)
    a, w = (rng.integers(-128, 128, s, dtype=np.int8) for s in ((m, k), (n, k)))
    if values is not None:
        a[:], w[:] = values
    want = a.astype(np.int64) @ w.astype(np.int64).T
    assert np.array_equal(numerics.matmul_i8(a, w), want)
    assert np.array_equal(numerics.matmul_i8(torch.from_numpy(a), torch.from_numpy(w)).numpy(), want)


@pytest.mark.parametrize("zeros", [(0, 0), (-128, 0), (127, -5), (0, 9)])
def test_zero_points_are_subtracted_exactly(zeros: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    a, w = rng.integers(-128, 128, (5, 77), dtype=np.int8), rng.integers(-128, 128, (3, 77), dtype=np.int8)
    want = (a.astype(np.int64) - zeros[0]) @ (w.astype(np.int64) - zeros[1]).T
    assert np.array_equal(numerics.matmul_zero(a, zeros[0], w, zeros[1]), want)
    got = numerics.matmul_zero(torch.from_numpy(a), zeros[0], torch.from_numpy(w), zeros[1])
    assert np.array_equal(got.numpy(), want)


def test_a_saturating_int8_engine_is_replaced_by_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (a.int() @ w.int()).clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    int_mm_is_exact.cache_clear()
    takes_int_mm.cache_clear()
    a = torch.full((2, 4608), -128, dtype=torch.int8)
    try:
        assert numerics.matmul_i8(a, a).tolist() == [[2**14 * 4608] * 2] * 2
        assert not takes_int_mm(torch)
    finally:
        int_mm_is_exact.cache_clear()
        takes_int_mm.cache_clear()


def test_a_float_engine_of_fewer_bits_is_replaced_by_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.Tensor.__matmul__

    def narrow(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return product(a, w).bfloat16().float() if a.dtype is torch.float32 else product(a, w)

    monkeypatch.setattr(torch.Tensor, "__matmul__", narrow)
    monkeypatch.setattr("isa.numerics.integer.takes_int_mm", lambda _torch: False)
    float32_is_exact.cache_clear()
    a = torch.full((2, 4608), -127, dtype=torch.int8)
    try:
        assert not float32_is_exact(torch)
        assert numerics.matmul_i8(a, a).tolist() == [[127**2 * 4608] * 2] * 2
    finally:
        float32_is_exact.cache_clear()


@pytest.mark.parametrize("chosen", [True, False])
def test_both_engines_give_the_same_products(monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    monkeypatch.setattr("isa.numerics.integer.takes_int_mm", lambda _torch: chosen)
    a, w = torch.randint(-128, 128, (9, 3001), dtype=torch.int8), torch.randint(-128, 128, (4, 3001), dtype=torch.int8)
    assert torch.equal(numerics.matmul_i8(a, w), (a.double() @ w.double().t()).int())


def test_product_of_rows_that_overlap_in_memory() -> None:
    rows = torch.arange(-4, 4, dtype=torch.int8).as_strided((4, 5), (1, 1))
    w = torch.arange(15, dtype=torch.int8).reshape(3, 5)
    assert torch.equal(numerics.matmul_i8(rows, w), (rows.int() @ w.int().t()))


@pytest.mark.parametrize("k", [2, 5, 64])
def test_product_of_a_single_row_whatever_its_row_stride(k: int) -> None:
    row = torch.arange(k, dtype=torch.int8).view(k, 1).t()  # strides (1, 1), and contiguous to torch
    w = torch.arange(-k, 2 * k, dtype=torch.int8).view(3, k)
    assert torch.equal(numerics.matmul_i8(row, w), row.int() @ w.int().t())
    assert torch.equal(numerics.matmul_i8(w, row), w.int() @ row.int().t())


def test_product_wraps_modulo_2_to_the_32_on_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.full((1, 2**17 + 3), -128, dtype=torch.int8)
    want = [[2**14 * (2**17 + 3) - 2**32]]
    assert numerics.matmul_i8(a, a).tolist() == want
    assert numerics.matmul_i8(a.numpy(), a.numpy()).tolist() == want
    monkeypatch.setattr("isa.numerics.integer.takes_int_mm", lambda _torch: False)
    assert numerics.matmul_i8(a, a).tolist() == want


def test_long_products_of_odd_numbers_are_exact_in_numpy():
    """Partial sums beyond 2^24 that are odd, which one binary32 product over all terms would round."""
    a = np.full((2, 5001), 127, np.int8)
    w = np.full((3, 5001), 127, np.int8)
    w[:, ::7] = 126
    assert np.array_equal(numerics.matmul_i8(a, w), a.astype(np.int64) @ w.astype(np.int64).T)


@pytest.mark.parametrize("peak", [2**15, 2**17])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (5, 999, 7), (0, 4, 3)])
def test_product_of_16_bit_codes_is_exact(shape, peak):
    m, k, n = shape
    rng = np.random.default_rng(k)
    a, w = (rng.integers(-peak, peak, s, endpoint=True) for s in ((m, k), (n, k)))
    a[: m // 2], w[: n // 2] = peak, -peak
    want = a @ w.T
    found = numerics.matmul_i16(a, w)
    assert found.dtype == np.int64
    assert np.array_equal(found, want)
    assert np.array_equal(numerics.matmul_i16(torch.from_numpy(a), torch.from_numpy(w)).numpy(), want)


def plain_products(a: np.ndarray, w: np.ndarray, start: np.ndarray) -> np.ndarray:
    """One product after the other by exact rationals, each product and each sum rounded once."""
    acc = start.copy()
    for m, n in np.ndindex(acc.shape):
        for x, y in zip(a[m], w[n], strict=True):
            term = binary32(Fraction(float(x)) * Fraction(float(y)))
            acc[m, n] = binary32(Fraction(float(acc[m, n])) + Fraction(float(term)))
    return acc


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 5), (2, 1, 7), (4, 40, 1), (3, 0, 2)])
def test_binary32_products_are_added_one_after_the_other(shape, started):
    m, k, n = shape
    rng = np.random.default_rng(k)
    a, w, start = (rng.normal(0, 9, s).astype(np.float32) for s in ((m, k), (n, k), (m, n)))
    if not started:
        start[:] = 0
    want = plain_products(a, w, start)
    given = (start.copy(),) if started else ()
    assert same(numerics.matmul_f32(a, w, *given), want)
    tensors = [torch.from_numpy(x.copy()) for x in (a, w, *((start,) if started else ()))]
    assert same(numerics.matmul_f32(*tensors), want)


def test_binary32_products_depend_on_the_order_and_are_not_fused():
    """1e8 + 1 - 1e8 is 0; and 0.1f * 0.1f - fp32(0.1f * 0.1f) is 0 only if the product was rounded."""
    tenth = np.float32(0.1)
    a, w = np.array([[1e8, 1, -1e8], [1e8, -1e8, 1]], np.float32), np.ones((1, 3), np.float32)
    assert numerics.matmul_f32(a, w).ravel().tolist() == [0, 1]
    assert numerics.matmul_f32(np.array([[-1, tenth]], np.float32), np.array([[tenth * tenth, tenth]])).item() == 0


def test_binary32_products_of_infinities_are_ieee():
    a = np.array([[np.inf, 1], [np.inf, 0], [3e38, 3e38], [-0.0, 0]], np.float32)
    w = np.array([[1, 1], [0, np.inf]], np.float32)
    want = np.array([[np.inf, np.nan], [np.inf, np.nan], [np.inf, np.inf], [0, np.nan]], np.float32)
    assert same(numerics.matmul_f32(a, w), want)
    assert same(numerics.matmul_f32(torch.from_numpy(a), torch.from_numpy(w)), want)
