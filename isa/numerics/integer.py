"""Exact integer matrix products at BLAS speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

from isa.numerics.namespace import Array, cast, is_torch, namespace

EXACT_FLOAT32_TERMS = 1024
"""|a*w| <= 2^14, and every integer up to 2^24 is a binary32: 2^10 terms are exact in any order."""


def matmul_i8(a: Array, w: Array) -> Array:
    """sum_k a[m, k] * w[n, k]: int8 [M, K] and int8 [N, K] to int32 [M, N], exact (modulo 2^32)."""
    return _torch_matmul(a, w) if is_torch(a) else _float_matmul(a, w, "float32")


def matmul_zero(a: Array, zero_a: int, w: Array, zero_w: int = 0) -> Array:
    """sum_k (a[m, k] - zero_a) * (w[n, k] - zero_w), int32 [M, N], through sums of rows.

    Intermediate terms may wrap; int32 arithmetic is modular, so the sum is exact whenever it fits.
    """
    acc = matmul_i8(a, w)
    if zero_a:
        acc -= zero_a * row_sums(w)
    if zero_w:
        acc -= (zero_w * row_sums(a))[:, None]
    if zero_a and zero_w:
        acc += zero_a * zero_w * int(a.shape[1])
    return acc


def row_sums(x: Array) -> Array:
    """Sums over the last axis of an int8 array, as int32."""
    return x.sum(-1, dtype=namespace(x).int32)


def _torch_matmul(a: Array, w: Array) -> Array:
    torch = namespace(a)
    if a.shape[1] == 1:  # torch._int_mm misreads a [1, N] operand whose two strides are equal
        return cast(a, "int32") * cast(w, "int32").t()
    if 0 in (*a.shape, w.shape[0]):
        return torch.zeros((a.shape[0], w.shape[0]), dtype=torch.int32)
    if takes_int_mm(torch):
        return torch._int_mm(_dense(a), _dense(w).t())
    return _float_matmul(a, w, "float32" if float32_is_exact(torch) else "float64")


def _float_matmul(a: Array, w: Array, dtype: str) -> Array:
    """Chunks of the sum in floats that hold them exactly, added as integers: a float beyond int32 would not wrap."""
    acc = _chunk(a, w, slice(0, EXACT_FLOAT32_TERMS), dtype)
    for start in range(EXACT_FLOAT32_TERMS, a.shape[1], EXACT_FLOAT32_TERMS):
        acc += _chunk(a, w, slice(start, start + EXACT_FLOAT32_TERMS), dtype)
    return acc


def _chunk(a: Array, w: Array, terms: slice, dtype: str) -> Array:
    return cast(cast(a[:, terms], dtype) @ cast(w[:, terms], dtype).T, "int32")


def _dense(x: Array) -> Array:
    """``x`` with the strides of its shape, copied only if its elements do not lie so.

    torch._int_mm misreads rows that overlap, as the patches of a convolution may, and a single row whose
    (meaningless) row stride is below its length, which ``contiguous()`` lets pass.
    """
    return x.reshape(-1).view(x.shape)


@cache
def takes_int_mm(torch: Any) -> bool:
    """Whether ``torch._int_mm`` on this CPU is exact and, measured, not slower than binary32 products.

    Without dot-product instructions (VNNI) it is tens of times slower. Either way the bits are the same.
    """
    if not int_mm_is_exact(torch):
        return False
    a, w = (torch.ones((128, 512), dtype=torch.int8) for _ in range(2))
    return _seconds(lambda: torch._int_mm(a, w.t())) <= 2 * _seconds(lambda: _float_matmul(a, w, "float32"))


def _seconds(work: Callable[[], object]) -> float:
    """Wall time of ``work``, the least of a few tries."""
    found: list[float] = []
    for _ in range(4):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return min(found)


@cache
def int_mm_is_exact(torch: Any) -> bool:
    """Whether ``torch._int_mm`` on this CPU is exact on worst-case values (some int8 paths saturate in 16 bits)."""
    return _is_exact(torch, lambda a, w: torch._int_mm(a, w.t()))


@cache
def float32_is_exact(torch: Any) -> bool:
    """Whether binary32 products of integers are exact here: a backend may be set to a narrower type."""
    return _is_exact(torch, lambda a, w: _float_matmul(a, w, "float32"))


def _is_exact(torch: Any, product: Callable[[Array, Array], Array]) -> bool:
    shapes = ((1, 2, 1), (1, 64, 8), (5, 3, 7), (16, 33, 16), (17, 257, 33), (64, 4608, 48))
    pairs = ((-128, -128), (-128, -127), (-128, 127), (127, -128), (127, 127))
    for m, k, n in shapes:
        for high, low in pairs:
            a = torch.full((m, k), high, dtype=torch.int8)
            w = torch.full((n, k), low, dtype=torch.int8)
            w[::2, ::3] = 127  # neighbours of unlike sign and size, so that pairwise sums saturate unevenly
            want = (a.double() @ w.double().t()).to(torch.int32)
            try:
                got = product(a, w)
            except RuntimeError:
                return False
            if not torch.equal(got, want):
                return False
    return True


def matmul_i16(a: Array, w: Array) -> Array:
    """sum_k a[m, k] * w[n, k] of integers up to 2^17 in magnitude, as int64 [M, N]: exact for K <= 2^18 in binary64."""
    product = cast(a, "float64") @ cast(w, "float64").T
    return cast(product, "int64")


def matmul_f32(a: Array, w: Array, start: Array | None = None) -> Array:
    """Binary32 sums acc = fp32(acc + fp32(a[m, k] * w[n, k])), one k after the other, from ``start`` or 0: [M, N].

    ``a`` is [M, K], ``w`` [N, K], both binary32. No product is fused with its addition and none is reordered.
    """
    xp = namespace(a)
    columns, rows = a.T.contiguous() if is_torch(a) else np.ascontiguousarray(a.T), w.T
    rows = rows.contiguous() if is_torch(w) else np.ascontiguousarray(rows)
    shape = (a.shape[0], w.shape[0])
    acc = xp.zeros(shape, dtype=xp.float32) if start is None else start
    term = xp.empty(shape, dtype=xp.float32)
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            xp.multiply(columns[k][:, None], rows[k][None], out=term)
            xp.add(acc, term, out=acc)
    return acc
