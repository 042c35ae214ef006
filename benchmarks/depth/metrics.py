"""Errors of depth maps as in QuartDepth's Table 1 (arXiv 2503.16709), after Eigen et al. 2014."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Metrics:
    """Of predicted p against true g, over all pixels: mean |p - g| / g; shares of max(p/g, g/p) < 1.25^i; and so on."""

    abs_rel: float
    delta1: float
    delta2: float
    delta3: float
    rmse: float
    """Metres."""
    silog: float
    """100 * standard deviation of log p - log g."""

    @classmethod
    def of(cls, predicted: torch.Tensor, truth: torch.Tensor) -> Metrics:
        """Of tensors of one shape; depths are positive."""
        p, g = predicted.double().clamp_min(1e-6).flatten(), truth.double().flatten()
        ratio, error = torch.maximum(p / g, g / p), p.log() - g.log()
        within = [float((ratio < 1.25**i).double().mean()) for i in (1, 2, 3)]
        return cls(
            float(((p - g).abs() / g).mean()),
            within[0],
            within[1],
            within[2],
            float((p - g).square().mean().sqrt()),
            float(100 * (error.square().mean() - error.mean() ** 2).clamp_min(0).sqrt()),
        )
