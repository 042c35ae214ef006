"""The error of a layer as a quadratic form of its weight, which no image is needed for once it is known.

With D = W_hat - W, the mean over positions of (W_hat m - y)^T G (W_hat m - y) is, up to what no weight changes,
tr(G D H D^T) + 2 tr(G D R^T), H = mean(m m^T) and R = W H - mean(y m^T); vec(D)^T (G kron H) vec(D) is the first part.
G weighs the outputs: all the same (mean squared error, AdaRound), by the squared gradient (BRECQ's diagonal of the
Fisher information), or by second moments of the gradient (KFAC; QuartDepth, arXiv 2503.16709, eqs 13-17).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Quadratic:
    """G: [groups, out, out], [groups, out, 1] for a diagonal one, or None for the identity."""

    outputs: torch.Tensor | None
    inputs: torch.Tensor
    """H [groups, in, in]."""
    residual: torch.Tensor
    """R [groups, out, in]."""

    def value(self, change: torch.Tensor) -> float:
        """Of D [groups, out, in]; 0 at D = 0, and below where the weight makes up for its inputs."""
        return float((self._weighed(change @ self.inputs + 2 * self.residual) * change).sum(dtype=torch.float64))

    def of(self, change: torch.Tensor) -> float:
        """tr(G D H D^T): as if the inputs were exact, so never below 0."""
        return float((self._weighed(change @ self.inputs) * change).sum(dtype=torch.float64))

    def gradient(self, change: torch.Tensor) -> torch.Tensor:
        """By D."""
        return 2 * self._weighed(change @ self.inputs + self.residual)

    def _weighed(self, x: torch.Tensor) -> torch.Tensor:
        if self.outputs is None:
            return x
        return self.outputs * x if self.outputs.shape[-1] == 1 else self.outputs @ x
