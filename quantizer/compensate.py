"""Weights that make up for the loss of quantized inputs, in closed form (QuartDepth, arXiv 2503.16709, eqs 8-10).

Of a layer that reads x_hat for x, the least squares of W x - (W + dW) x_hat are at
dW = + W (x - x_hat) x_hat^T (x_hat x_hat^T)^-1. The paper prints it with a minus, which adds to the error.
"""

from __future__ import annotations

import torch

from quantizer.second_order import damped, factored

DAMPING = 0.01
"""Share of the mean of the diagonal: the paper damps but does not say by how much; this is its driver's figure."""


def compensate(
    weight: torch.Tensor, cross: torch.Tensor, gram: torch.Tensor, *, damping: float = DAMPING
) -> torch.Tensor:
    """W + dW, of the shape and type of ``weight`` [..., out, in]; leading dimensions are groups of a convolution.

    ``cross`` and ``gram``, [..., in, in], are the sums of x x_hat^T and x_hat x_hat^T over the columns that a filter
    sees (tokens, or patches of an image). dW minimises |W x - (W + dW) x_hat|^2 + lambda |dW|^2 with lambda =
    ``damping`` * mean(diag(gram)), so with any damping the error on these columns is at most that of W. Weights of
    inputs that are always 0 stay as they are. Raises QuantizationError for sums that are singular or not finite.
    """
    lost = weight.double() @ (cross.double() - gram.double())
    change = torch.cholesky_solve(lost.mT, factored(damped(gram, damping))).mT
    return (weight.double() + change).to(weight.dtype)
