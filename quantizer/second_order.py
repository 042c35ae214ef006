"""Sums of products of a layer's inputs, damped, as compensation and GPTQ solve with them."""

from __future__ import annotations

import torch

from isa.errors import QuantizationError


def damped(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """``gram`` [..., n, n] + ``damping`` * mean of its diagonal, in binary64; dead inputs get 1 on the diagonal.

    An input is dead if it was 0 in all of the calibration data: nothing is known of it, and it couples with none.
    Raises QuantizationError for a negative damping, or a matrix that is not finite.
    """
    if not damping >= 0:
        raise QuantizationError(f"damping = {damping}: must be 0 or more, as a share of the mean of the diagonal")
    gram = gram.double()
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    if not gram.isfinite().all():
        raise QuantizationError(
            "the sums over the layer's inputs are not finite: look for overflow or NaN in the model"
        )
    added = damping * diagonal.mean(-1, keepdim=True) + (diagonal == 0)
    return gram + torch.diag_embed(added)


def factored(matrix: torch.Tensor) -> torch.Tensor:
    """The lower Cholesky factor of ``matrix`` [..., n, n]. Raises QuantizationError where it is singular."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        raise QuantizationError(
            f"the sums over the layer's {matrix.shape[-1]} inputs are singular: give a damping above 0, or more images"
        )
    return factor
