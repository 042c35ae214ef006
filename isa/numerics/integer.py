"""Exact integer matrix products at BLAS speed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from isa.numerics.namespace import Array, cast, is_torch, namespace

EXACT_FLOAT32_TERMS = 1024
"""|a*w| <= 2^14, and every integer up to 2^24 is a binary32: 2^10 terms are exact in any order."""


def matmul_i8(a: Array, w: Array) -> Array:
    """sum_k a[m, k] * w[n, k]: int8 [M, K] and int8 [N, K] to int32 [M, N], exact (modulo 2^32)."""
    return _torch_matmul(a, w) if is_torch(a) else _numpy_matmul(a, w)


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


def _numpy_matmul(a: Array, w: Array) -> Array:
    k = a.shape[1]
    acc = np.zeros((a.shape[0], w.shape[0]), np.int32)
    for start in range(0, k, EXACT_FLOAT32_TERMS):
        chunk = slice(start, start + EXACT_FLOAT32_TERMS)
        part = a[:, chunk].astype(np.float32) @ w[:, chunk].astype(np.float32).T
        acc += part.astype(np.int32)
    return acc


def _torch_matmul(a: Array, w: Array) -> Array:
    torch = namespace(a)
    if a.shape[1] == 1:  # torch._int_mm misreads a [1, N] operand whose two strides are equal
        return cast(a, "int32") * cast(w, "int32").t()
    if 0 in (*a.shape, w.shape[0]):
        return torch.zeros((a.shape[0], w.shape[0]), dtype=torch.int32)
    if int_mm_is_exact(torch):
        return torch._int_mm(_dense(a), _dense(w).t())
    exact = cast(a, "float64") @ cast(w, "float64").t()
    return cast(cast(exact, "int64"), "int32")  # a float beyond int32 would not wrap


def _dense(x: Array) -> Array:
    """``x`` with the strides of its shape, copied only if its elements do not lie so.

    torch._int_mm misreads rows that overlap, as the patches of a convolution may, and a single row whose
    (meaningless) row stride is below its length, which ``contiguous()`` lets pass.
    """
    return x.reshape(-1).view(x.shape)


@cache
def int_mm_is_exact(torch: Any) -> bool:
    """Whether ``torch._int_mm`` on this CPU is exact on worst-case values (some int8 paths saturate in 16 bits)."""
    shapes = ((1, 2, 1), (1, 64, 8), (5, 3, 7), (16, 33, 16), (17, 257, 33), (64, 4608, 48))
    pairs = ((-128, -128), (-128, -127), (-128, 127), (127, -128), (127, 127))
    for m, k, n in shapes:
        for high, low in pairs:
            a = torch.full((m, k), high, dtype=torch.int8)
            w = torch.full((n, k), low, dtype=torch.int8)
            w[::2, ::3] = 127  # neighbours of unlike sign and size, so that pairwise sums saturate unevenly
            want = (a.double() @ w.double().t()).to(torch.int32)
            try:
                got = torch._int_mm(a, w.t())
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
