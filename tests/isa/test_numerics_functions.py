"""Every function against float64 over the whole binary32 range, and numpy against torch."""

import math

import numpy as np
import pytest
import torch

from isa import numerics
from isa.numerics.functions import MAX_ULP, STEPS

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
    assert np.array_equal(function(x).view(np.int32), function(torch.from_numpy(x.copy())).numpy().view(np.int32))


class Counting(np.ndarray):
    """Counts binary32 multiplies, adds and roundings."""

    steps = 0

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        plain = [a.view(np.ndarray) if isinstance(a, Counting) else a for a in args]
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc.__name__ in ("add", "subtract", "multiply", "rint") and result.dtype == np.float32:
            Counting.steps += 1
        return result.view(Counting)

    def __array_function__(self, function, types, args, kwargs):
        plain = [a.view(np.ndarray) if isinstance(a, Counting) else a for a in args]
        Counting.steps += function is np.round
        return function(*plain, **kwargs).view(Counting)


Counting.__module__ = "numpy"  # numerics take their namespace from the type


@pytest.mark.parametrize("name", sorted(STEPS))
def test_steps_are_the_operations_performed(name: str) -> None:
    Counting.steps = 0
    getattr(numerics, name)(np.ones(3, np.float32).view(Counting))
    assert Counting.steps == STEPS[name]


def test_stated_tables_cover_the_same_functions() -> None:
    assert set(STEPS) == set(MAX_ULP) == set(EXACT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sigmoid", [0.5, 0.5, 1.0, 0.0, np.nan]),
        ("tanh", [0.0, -0.0, 1.0, -1.0, np.nan]),
        ("exp2", [1.0, 1.0, np.inf, 0.0, np.nan]),
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
