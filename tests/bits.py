"""How results are compared: in every bit, also those of NaN and of zeros, which == does not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.probes import bits, same_bits

Results = Sequence[torch.Tensor] | Sequence[np.ndarray[Any, Any]]


def assert_same(found: Results, expected: Results, where: str = "") -> None:
    """As many tensors or arrays of the same types, shapes and bits; else says ``where``, and what differs."""
    some, others = _tensors(found), _tensors(expected)
    assert same_bits(some, others), f"{where}: {_difference(some, others)}".removeprefix(": ")


def _tensors(results: Results) -> list[torch.Tensor]:
    return [torch.as_tensor(result) for result in results]


def _difference(some: list[torch.Tensor], others: list[torch.Tensor]) -> str:
    if len(some) != len(others):
        return f"number of results: {len(some)}, not {len(others)}"
    number = next(i for i, pair in enumerate(zip(some, others, strict=True)) if not same_bits(pair[:1], pair[1:]))
    one, other = some[number], others[number]
    kinds = [f"{tuple(x.shape)} of {x.dtype}" for x in (one, other)]
    if kinds[0] != kinds[1]:
        return f"result {number} is {kinds[0]}, not {kinds[1]}"
    places = (bits(one) != bits(other)).nonzero()
    first = tuple(places[0].tolist())
    values = " is not ".join(f"{x[first].item()} ({bits(x)[first].item() & 0xFFFFFFFF:#x})" for x in (one, other))
    return f"result {number} differs in {len(places)} of {one.numel()} elements, first at {first}: {values}"
