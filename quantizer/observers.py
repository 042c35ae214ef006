"""Range estimators: min/max for weights, moving average of min/max for activations (arXiv 1806.08342, section 3.1)."""

from __future__ import annotations

import torch
from torchao.quantization.pt2e.observer import MinMaxObserver, PerChannelMinMaxObserver

from isa.errors import QuantizationError

SLOWEST = 0.01
"""Weight of a new batch once 100 batches were seen; before that all batches weigh the same."""


class AverageMinMaxObserver(MinMaxObserver):
    """Average of the batches' minima and maxima, exponential after 1/SLOWEST batches.

    The plain moving average starts at the first batch with weight 0.01 for each further one, so a short
    calibration would only ever see its first batch.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.batches = 0

    def forward(self, x_orig: torch.Tensor) -> torch.Tensor:
        """Observe ``x_orig`` (any shape) and return it unchanged."""
        if x_orig.numel() == 0:
            return x_orig
        low, high = torch.aminmax(x_orig.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise QuantizationError(
                f"a calibration batch made an activation of shape {tuple(x_orig.shape)} that spans [{low}, {high}]: "
                "ranges must be finite; check the batch and the model for overflow or NaN"
            )
        self.batches += 1
        if self.batches == 1:
            self.min_val.copy_(low)
            self.max_val.copy_(high)
            return x_orig
        weight = max(1.0 / self.batches, SLOWEST)
        self.min_val += weight * (low - self.min_val)
        self.max_val += weight * (high - self.max_val)
        return x_orig


WeightObserver = PerChannelMinMaxObserver
