"""Second moments of a layer's inputs: all that its squared error, compensation and GPTQ need of the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Moments:
    """Sums over positions of columns x, of the float model, and x_hat, of the quantized one; [groups, in, in] each.

    Their size is that of the layer, whatever the number of images.
    """

    plain: torch.Tensor
    """x x^T."""
    cross: torch.Tensor
    """x x_hat^T."""
    gram: torch.Tensor
    """x_hat x_hat^T."""
    count: int = 0
    """Positions."""

    @classmethod
    def empty(cls, groups: int, width: int, device: torch.device) -> Moments:
        """Of no image."""
        plain, cross, gram = torch.zeros(3, groups, width, width, device=device)
        return cls(plain, cross, gram)

    def add(self, x: torch.Tensor, quantized: torch.Tensor) -> None:
        """One more image: columns [groups, in, positions] of both models."""
        self.plain.baddbmm_(x, x.mT)
        self.cross.baddbmm_(x, quantized.mT)
        self.gram.baddbmm_(quantized, quantized.mT)
        self.count += x.shape[-1]

    def mixed(self, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of x m^T and m m^T over positions, and over all ways to take each element of m from x_hat with the
        probability ``share`` and from x otherwise (QDrop, arXiv 2203.05740): exact, where training would draw.

        A single position's is share * x_hat + (1 - share) * x on average; on the diagonal the variance comes on top.
        """
        rest = 1.0 - share
        cross = share * self.cross + rest * self.plain
        gram = share**2 * self.gram + share * rest * (self.cross + self.cross.mT) + rest**2 * self.plain
        apart = (self.plain - 2 * self.cross + self.gram).diagonal(dim1=-2, dim2=-1).clamp(min=0)
        gram = gram + torch.diag_embed(share * rest * apart)
        return cross / self.count, gram / self.count
