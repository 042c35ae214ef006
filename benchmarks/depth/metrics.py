"""Errors of depth maps as in QuartDepth's Table 1 (arXiv 2503.16709), after Eigen et al. 2014."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Metrics:
    """Of predicted p against true g: over the pixels of each image, then averaged over the images."""

    abs_rel: float
    """Mean of |p - g| / g."""
    delta1: float
    """Share of pixels with max(p/g, g/p) < 1.25; delta2 and delta3: < 1.25^2 and < 1.25^3."""
    delta2: float
    delta3: float
    rmse: float
    """Metres."""
    silog: float
    """100 * standard deviation of log p - log g."""

    @classmethod
    def of(cls, predicted: torch.Tensor, truth: torch.Tensor) -> Metrics:
        """Of tensors [B, ...] of one shape; depths are positive. Raises ValueError for different shapes."""
        if predicted.shape != truth.shape:
            raise ValueError(f"shapes differ: {tuple(predicted.shape)} against {tuple(truth.shape)}")
        p, g = predicted.double().clamp_min(1e-6).flatten(1), truth.double().flatten(1)
        ratio, error = torch.maximum(p / g, g / p), p.log() - g.log()
        variance = error.square().mean(1) - error.mean(1) ** 2
        deltas = [float((ratio < 1.25**i).double().mean()) for i in (1, 2, 3)]
        return cls(
            float(((p - g).abs() / g).mean()),
            deltas[0],
            deltas[1],
            deltas[2],
            float((p - g).square().mean(1).sqrt().mean()),
            float(100 * variance.clamp_min(0).sqrt().mean()),
        )

    def short(self) -> str:
        """The two that tables of depth models lead with."""
        return f"AbsRel {self.abs_rel:.4f}, delta1 {self.delta1:.4f}"
