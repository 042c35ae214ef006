"""Rounding of weights column by column, each error made up for by the columns behind it.

GPTQ (Frantar et al., arXiv 2210.17323), which is optimal brain surgeon (OBS, OBC: arXiv 2208.11580) with one order of
the columns for all rows: the errors that it leaves are those of the nearest plane on the lattice of the codes.
"""

from __future__ import annotations

import torch

from quantizer.compensate import DAMPING
from quantizer.quantizers import Grid, dequantize, quantize
from quantizer.second_order import damped, factored

BLOCK = 128
"""Columns after which what they owe the rest is paid at once, in a matrix product."""


def gptq(
    weight: torch.Tensor,
    gram: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    grid: Grid,
    *,
    damping: float = DAMPING,
    ordered: bool = False,
) -> torch.Tensor:
    """Codes of ``weight`` [..., out, in] (leading dimensions are groups) that keep the layer's output.

    ``gram`` [..., in, in] is the sum of x x^T over the layer's inputs, H = gram + ``damping`` * mean(diag(gram));
    ``scale`` and ``zero`` are of the output channels, [..., out], or [1] for all. ``ordered`` takes the columns by
    falling diagonal instead of as they come.

    Where no code saturates, the error tr(D H D^T), D = W - W_hat, is at most tr(H) / 4 * sum(scale^2), which is also
    what rounding to nearest is bound by where inputs do not correlate; there the codes are the nearest. Where they do,
    it is less than nearest rounding's on average, though not for every weight. Raises QuantizationError for a gram
    matrix that is singular or not finite.
    """
    order = gram.diagonal(dim1=-2, dim2=-1).argsort(stable=True, dim=-1, descending=True)
    if not ordered:
        order = torch.arange(gram.shape[-1], device=gram.device).expand_as(order)
    rows = torch.take_along_dim(damped(gram, damping), order.unsqueeze(-1), -2)
    hessian = torch.take_along_dim(rows, order.unsqueeze(-2), -1)
    columns = torch.take_along_dim(weight.double(), order.unsqueeze(-2), -1)
    codes = _codes(columns, _upper(hessian), scale.unsqueeze(-1), zero.unsqueeze(-1), grid)
    return torch.take_along_dim(codes, order.argsort(-1).unsqueeze(-2), -1)


def _upper(hessian: torch.Tensor) -> torch.Tensor:
    """U with U^T U = H^-1, whose row i says what an error of column i is to those behind it."""
    return factored(torch.cholesky_inverse(factored(hessian))).mT


def _codes(
    left: torch.Tensor, upper: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid
) -> torch.Tensor:
    """Codes of the columns ``left`` [..., out, in], which it changes."""
    codes = torch.empty(left.shape, dtype=grid.dtype, device=left.device)
    errors = torch.empty_like(left)
    for first in range(0, left.shape[-1], BLOCK):
        end = min(first + BLOCK, left.shape[-1])
        for i in range(first, end):
            column = left[..., i : i + 1].float()
            codes[..., i : i + 1] = quantize(column, scale, zero, grid)
            lost = left[..., i : i + 1] - dequantize(codes[..., i : i + 1], scale, zero)
            errors[..., i : i + 1] = lost / upper[..., i : i + 1, i : i + 1]
            left[..., i + 1 : end] -= errors[..., i : i + 1] * upper[..., i : i + 1, i + 1 : end]
        left[..., end:] -= errors[..., first:end] @ upper[..., first:end, end:]
    return codes
