"""What both depth networks end in."""

from __future__ import annotations

import torch

NEAREST, FARTHEST = 1.0, 12.0
"""Metres between which a depth lies."""


def metres(y: torch.Tensor) -> torch.Tensor:
    """Depth of any real numbers: inverse depth is a sigmoid, so near and far both stay in range."""
    return 1.0 / (torch.sigmoid(y) * (1.0 / NEAREST - 1.0 / FARTHEST) + 1.0 / FARTHEST)
