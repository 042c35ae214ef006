"""What ``fuse-kernels`` may fuse, and the limits of the machine that it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isa.instructions import Mode


@dataclass(frozen=True)
class Options:
    """What may be fused: nothing, chains, trailing pools; ``groups`` fixes kernels by the FX nodes of their ops."""

    fuse: bool = True
    pool: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    pool_taps: int | None = None
    """The largest window that a trailing pool may have: accumulators must hold all that one of its outputs reads."""
    row_elements: int | None = None
    """The longest row of a product that a softmax may follow: accumulators must hold whole rows."""
    factor_bytes: int | None = None
    """The most that one image's second factors of a kernel's products may take: whole rows of scores need all keys."""
    fill_bytes: int | None = None
    """The most that a tensor of binary32 may take beside what it pads: a fill needs both whole in SRAM."""
    lanes: Mapping[Mode, int] | None = None
    """Channels that the matrix unit makes at once, by mode: products are split only into pieces that fill it."""
