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
    calibration would only ever see its first batch. Calls of ``forward`` until ``close_batch`` are one batch,
    however it was cut to fit the exported shapes.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.batches = 0
        self.pending: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x_orig: torch.Tensor) -> torch.Tensor:
        """Observe ``x_orig`` (any shape) and return it unchanged; raises QuantizationError for NaN or infinities."""
        if x_orig.numel() == 0:
            return x_orig
        low, high = torch.aminmax(x_orig.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise QuantizationError(
                f"a calibration batch made an activation of shape {tuple(x_orig.shape)} that spans [{low}, {high}]: "
                "ranges must be finite; check the batch and the model for overflow or NaN"
            )
        if self.pending is not None:
            low, high = torch.minimum(low, self.pending[0]), torch.maximum(high, self.pending[1])
        self.pending = low, high
        return x_orig

    def close_batch(self) -> None:
        """Let what ``forward`` saw since the last call count as one batch."""
        if self.pending is None:
            return
        low, high = self.pending
        self.pending = None
        self.batches += 1
        if self.batches == 1:
            self.min_val.copy_(low)
            self.max_val.copy_(high)
            return
        weight = max(1.0 / self.batches, SLOWEST)
        self.min_val += weight * (low - self.min_val)
        self.max_val += weight * (high - self.max_val)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale (at least ``eps``) and zero point of the range, widened to hold 0."""
        self.close_batch()
        return super().calculate_qparams()


WeightObserver = PerChannelMinMaxObserver
