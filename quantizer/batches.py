"""Calibration data: batches, which may be larger than the example inputs, and the pieces of their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_unflatten

from isa.errors import QuantizationError

Batch = torch.Tensor | Sequence[torch.Tensor]


def as_tuple(batch: Batch) -> tuple[torch.Tensor, ...]:
    """A batch as the tuple of the model's inputs; raises QuantizationError for anything but tensors."""
    if not isinstance(batch, torch.Tensor | Iterable):
        raise QuantizationError(f"inputs are a {type(batch).__name__}: give a torch.Tensor, or a tuple of them")
    values: tuple[Any, ...] = (batch,) if isinstance(batch, torch.Tensor) else tuple(batch)
    for i, value in enumerate(values):
        if not isinstance(value, torch.Tensor):
            raise QuantizationError(f"input {i} is a {type(value).__name__}, not a torch.Tensor")
        if value.is_meta:
            raise QuantizationError(f"input {i} is on the device 'meta', which holds no values; give it values")
    return values


def checked(batches: Iterable[Batch]) -> Iterable[Batch]:
    """``batches``; raises QuantizationError for one tensor, whose images would be taken for batches, or no iterable."""
    if isinstance(batches, torch.Tensor) or not isinstance(batches, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QuantizationError(f"the calibration set is a {type(batches).__name__}: give a list of batches, as [x]")
    return batches


def inputs_of(graph: GraphModule) -> list[torch.Tensor]:
    """Tensors of the shapes and types for which ``graph`` was made."""
    return [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]


def pieces_of(
    inputs: tuple[torch.Tensor, ...], expected: list[torch.Tensor], number: int
) -> Iterable[tuple[torch.Tensor, ...]]:
    """Batch ``number``, split along its first dimension.

    Raises QuantizationError where the shapes of ``expected`` do not come out, and for other types.
    """
    found, shapes = shapes_of(inputs), shapes_of(expected)
    if found != shapes:
        fits = len(inputs) == len(shapes) and all(
            x.shape[1:] == e[1:] and len(x.shape) == len(e) > 0 and x.shape[0] % e[0] == 0 and x.shape[0] > 0
            for x, e in zip(inputs, shapes, strict=True)
        )
        if not fits or len({x.shape[0] // e[0] for x, e in zip(inputs, shapes, strict=True)}) != 1:
            raise QuantizationError(
                f"calibration batch {number} has shapes {found}, but the model was prepared for "
                f"{shapes} (or whole multiples of the first dimension)"
            )
    for i, (x, e) in enumerate(zip(inputs, expected, strict=True)):
        if x.dtype != e.dtype:
            raise QuantizationError(
                f"input {i} of calibration batch {number} is {x.dtype}, but the model was prepared for {e.dtype}; "
                "convert it with .to()"
            )
    if found == shapes:
        return [inputs]
    return list(zip(*(x.split(e[0]) for x, e in zip(inputs, shapes, strict=True)), strict=True))


def shapes_of(inputs: Iterable[torch.Tensor]) -> list[tuple[int, ...]]:
    """As plain tuples."""
    return [tuple(x.shape) for x in inputs]


def count_of(batches: Iterable[Batch], expected: list[torch.Tensor]) -> int | None:
    """How many pieces there will be; None where only the end will show. Raises QuantizationError as ``pieces_of``."""
    if not isinstance(batches, list | tuple):
        return None
    return sum(sum(1 for _ in pieces_of(as_tuple(batch), expected, i)) for i, batch in enumerate(batches, 1))


def samples(
    prepared: GraphModule, batches: Sequence[Batch], targets: Sequence[Any] | None = None
) -> tuple[list[tuple[torch.Tensor, ...]], list[Any] | None]:
    """Batches, and targets along their first dimension, in pieces of the size for which ``prepared`` was made.

    Raises QuantizationError for shapes that do not fit, or another number of targets than of batches.
    """
    expected = inputs_of(prepared)
    pieces = [list(pieces_of(as_tuple(batch), expected, i)) for i, batch in enumerate(batches, 1)]
    inputs = [piece for part in pieces for piece in part]
    if targets is None:
        return inputs, None
    if len(targets) != len(batches):
        raise QuantizationError(f"{len(targets)} targets for {len(batches)} batches: give one for each batch")
    split = (_split(target, len(part), i) for i, (target, part) in enumerate(zip(targets, pieces, strict=True), 1))
    return inputs, [each for part in split for each in part]


def _split(target: Any, count: int, number: int) -> list[Any]:
    if count == 1:
        return [target]
    leaves, shape = tree_flatten(target)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or leaf.ndim == 0 or len(leaf) % count:
            what = tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise QuantizationError(
                f"target {number} ({what}) cannot be split into {count} pieces of the exported size, as its batch is: "
                "give tensors whose first dimension is the batch's"
            )
    parts = zip(*(leaf.split(len(leaf) // count) for leaf in leaves), strict=True)
    return [tree_unflatten(part, shape) for part in parts]
