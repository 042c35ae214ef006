"""Every function against float64 over the whole binary32 range, and numpy against torch."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from isa import numerics
from isa.numerics.functions import MAX_ULP, STEPS
from tests.isa.exact import binary32, same

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.0, -1.0, 3.4e38, -3.4e38], np.float32)
EXACT = {
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x))),
    "tanh": np.tanh,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: np.where(x == 0, np.inf, 1 / np.sqrt(x)),
}


def sweep() -> np.ndarray:
    """All exponents and signs densely, the interesting intervals more so, and the special values."""
    everywhere = np.arange(0, 2**32, 30011, dtype=np.uint64).astype(np.uint32).view(np.float32)
    rng = np.random.default_rng(0)
    near = [rng.uniform(-r, r, 40000).astype(np.float32) for r in (0.1, 1, 5, 20, 150)]
    return np.concatenate([everywhere, SPECIAL, *near])


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the binary32 nearest to ``exact``; infinite where kinds differ."""
    nearest = exact.astype(np.float32)
    unit = np.maximum(np.spacing(np.abs(nearest)).astype(np.float64), 2.0**-149)
    same = (y == nearest) | (np.isnan(y) & np.isnan(exact))
    distance = np.abs(y - exact) / unit
    distance = np.where(same, np.where(np.isfinite(nearest), distance, 0.0), distance)
    return np.where(np.isnan(y) != np.isnan(exact), np.inf, np.nan_to_num(distance, nan=0.0, posinf=np.inf))


@pytest.mark.parametrize("name", sorted(EXACT))
def test_error_is_below_the_stated_ulp(name: str) -> None:
    x = sweep()
    with np.errstate(all="ignore"):
        distance = ulps(getattr(numerics, name)(x), EXACT[name](x.astype(np.float64)))
    worst = int(np.argmax(distance))
    assert distance[worst] <= MAX_ULP[name], f"{name}({x[worst]}) is {distance[worst]} ulp off"


@pytest.mark.parametrize("name", sorted(EXACT))
def test_numpy_and_torch_agree_bit_for_bit(name: str) -> None:
    x = sweep()
    function = getattr(numerics, name)
    by_torch = function.__wrapped__(torch.from_numpy(x.copy())).numpy()  # without the detour through numpy
    assert np.array_equal(bits(function(x)), bits(by_torch))
    assert np.array_equal(bits(function(x)), bits(function(torch.from_numpy(x.copy())).numpy()))


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.int32)


class Counting(np.ndarray):
    """Counts binary32 multiplies, adds and roundings."""

    steps = 0

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        plain = [a.view(np.ndarray) if isinstance(a, Counting) else a for a in args]
        if "out" in kwargs:
            kwargs["out"] = tuple(a.view(np.ndarray) if isinstance(a, Counting) else a for a in kwargs["out"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        arithmetic = ufunc.__name__ in ("add", "subtract", "multiply", "rint") and method == "__call__"
        Counting.steps += arithmetic and result.dtype == np.float32
        return result.view(Counting) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function, types, args, kwargs):
        plain = [a.view(np.ndarray) if isinstance(a, Counting) else a for a in args]
        Counting.steps += function is np.round
        return function(*plain, **kwargs).view(Counting)


Counting.__module__ = "numpy"  # numerics take their namespace from the type


@pytest.mark.parametrize("name", sorted(STEPS))
def test_steps_are_the_operations_performed(name: str) -> None:
    Counting.steps = 0
    wide = np.array([1, 1, 200], np.float32)  # of which no shortcut for few exponents can be taken
    getattr(numerics, name)(wide.view(Counting))
    assert Counting.steps == STEPS[name]


def test_exp2_of_moderate_arguments_has_the_bits_of_the_general_way() -> None:
    x = np.concatenate([np.linspace(-125, 126, 300_001), np.arange(-125, 127), np.arange(-124.5, 126)])
    x = x.astype(np.float32)
    general = numerics.exp2.__wrapped__(np.append(x, np.float32(np.nan)))[:-1]
    assert np.array_equal(bits(numerics.exp2(x)), bits(general))


@pytest.mark.parametrize("name", sorted(EXACT))
def test_numbers_have_the_same_bits_beside_nan(name: str) -> None:
    """Which way a function takes may depend on its neighbours; the bits must not."""
    x = np.random.default_rng(0).normal(0, 3, 10_001).astype(np.float32)
    function = getattr(numerics, name)
    with np.errstate(all="ignore"):
        assert np.array_equal(bits(function(x)), bits(function(np.append(x, np.float32(np.nan))))[:-1])


@pytest.mark.parametrize("name", sorted(EXACT))
def test_blocks_have_the_bits_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(0, 3, (101, 7)).astype(np.float32).T
    whole = getattr(numerics, name)(x)
    monkeypatch.setattr("isa.numerics.functions.BLOCK", 64)
    assert np.array_equal(bits(getattr(numerics, name)(x)), bits(whole))


def test_stated_tables_cover_the_same_functions() -> None:
    assert set(STEPS) == set(MAX_ULP) == set(EXACT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sigmoid", [0.5, 0.5, 1.0, 0.0, np.nan]),
        ("tanh", [0.0, -0.0, 1.0, -1.0, np.nan]),
        ("exp", [1.0, 1.0, np.inf, 0.0, np.nan]),
        ("exp2", [1.0, 1.0, np.inf, 0.0, np.nan]),
        ("log", [-np.inf, -np.inf, np.inf, np.nan, np.nan]),
        ("log2", [-np.inf, -np.inf, np.inf, np.nan, np.nan]),
        ("erf", [0.0, -0.0, 1.0, -1.0, np.nan]),
        ("reciprocal", [np.inf, -np.inf, 0.0, -0.0, np.nan]),
        ("rsqrt", [np.inf, np.inf, 0.0, np.nan, np.nan]),
    ],
)
def test_zeros_infinities_and_nan_have_defined_results(name: str, expected: list[float]) -> None:
    got = getattr(numerics, name)(SPECIAL[:5])
    want = np.array(expected, np.float32)
    assert np.array_equal(got.view(np.int32), want.view(np.int32))


@pytest.mark.parametrize("name", ["sqrt", "gelu", "gelu_tanh", "silu"])
def test_composed_functions_of_zeros_infinities_and_nan(name: str) -> None:
    """0 and infinity are their own; -inf times 0 and the root of it are a NaN of either sign."""
    want = np.array([0.0, -0.0, np.inf, np.nan, np.nan], np.float32)
    with np.errstate(all="ignore"):
        assert same(getattr(numerics, name)(SPECIAL[:5]), want)
    assert same(getattr(numerics, name)(torch.from_numpy(SPECIAL[:5].copy())), want)


def half_of(x: np.ndarray, tail: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + tail)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("gelu", lambda x: half_of(x, EXACT["erf"](x / 2**0.5))),
        ("gelu_tanh", lambda x: half_of(x, np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        ("silu", lambda x: x * EXACT["sigmoid"](x)),
    ],
)
def test_gated_functions_are_near_float64(name, exact) -> None:
    """Of x's size, not of the result's: below 0 a sum with 1 cancels. numpy and torch give the same bits."""
    x = np.concatenate([np.linspace(-12, 12, 200001, dtype=np.float32), np.float32([-1e4, 1e4, 1e-30, -1e-30])])
    found = getattr(numerics, name)(x)
    with np.errstate(all="ignore"):
        assert np.all(np.abs(found - exact(x.astype(np.float64))) <= np.abs(x) * 2.0**-22)
    assert same(getattr(numerics, name)(torch.from_numpy(x)), found)


def test_square_roots_are_rounded_correctly() -> None:
    x = np.abs(sweep())[::7]
    x = x[np.isfinite(x)]
    assert same(numerics.sqrt(x), np.sqrt(x.astype(np.float64)).astype(np.float32))
    assert same(numerics.sqrt(torch.from_numpy(x)), numerics.sqrt(x))


def test_quotients_are_rounded_correctly() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (2, 3000), np.uint64).astype(np.uint32)
    a, b = (x[np.isfinite(x) & (x != 0)][:2900] for x in bits.view(np.float32))
    want = [binary32(Fraction(float(x)) / Fraction(float(y))) for x, y in zip(a, b, strict=True)]
    assert same(numerics.div(a, b), np.copysign(np.array(want), a * np.sign(b)))
    assert same(numerics.div(torch.from_numpy(a), torch.from_numpy(b)), numerics.div(a, b))


def test_constants_are_binary32():
    """A float would be a binary64 to a compiler, and would widen what it meets."""
    from isa.numerics import functions, namespace

    for module in (functions, namespace):
        for name, value in vars(module).items():
            if isinstance(value, float) or (isinstance(value, tuple) and value and isinstance(value[0], float)):
                raise AssertionError(f"{module.__name__}.{name} = {value!r}")
