"""Second moments of the loss's gradient at what units compute: how much an error there matters.

The gradient is that at the quantized activations: at the float point, the float model's own output as target, it would
be 0 everywhere, and every metric made from it the mean squared error. It goes back unit by unit: one image's values at
the units' borders are held, and one unit's graph of gradients at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_map

from isa.errors import QuantizationError
from quantizer.observers import Observer, WeightObserver
from quantizer.progress import Meter, Watch
from quantizer.reconstruct.options import KFAC
from quantizer.reconstruct.units import Unit, results
from quantizer.reconstruct.walk import Values, Walk, plain, quantized

Loss = Callable[[Any, Any], torch.Tensor]
Piece = tuple[torch.Tensor, ...]
Gradients = dict[Node, list[torch.Tensor | None]]
"""Of every tensor that a node's value consists of."""


def activations(observer: Observer, x: torch.Tensor) -> torch.Tensor:
    """Activations quantized, weights not."""
    return x if isinstance(observer, WeightObserver) else quantized(observer, x)


def squared_error(output: Any, target: Any) -> torch.Tensor:
    """Sum over a model's outputs of their mean squared errors. Raises QuantizationError for targets of other shapes."""
    found, wanted = ([getattr(leaf, "shape", None) for leaf in tree_leaves(each)] for each in (output, target))
    if found != wanted:
        told = [[tuple(shape or ()) for shape in shapes] for shapes in (wanted, found)]
        raise QuantizationError(
            f"a target of shapes {told[0]} for outputs of shapes {told[1]}: give targets as the outputs, or a loss"
        )
    pairs = zip(tree_leaves(output), tree_leaves(target), strict=True)
    return torch.stack([(y - t).square().mean() for y, t in pairs]).sum()


def check_loss(loss: object) -> None:
    """Raise QuantizationError for what is no function."""
    if loss is not None and not callable(loss):
        raise QuantizationError(f"the loss is a {type(loss).__name__}: give a function of output and target, or None")


def scalar(value: Any) -> torch.Tensor:
    """What a loss gave; raises QuantizationError unless it is one number that depends on the output."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.requires_grad:
        return value
    what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    how = ", with a gradient" if isinstance(value, torch.Tensor) and value.requires_grad else ", without a gradient"
    raise QuantizationError(f"the loss gives {what}{how}: must be a tensor of one number that depends on the output")


def second_moments(
    walk: Walk,
    units: Sequence[Unit],
    pieces: Sequence[Piece],
    metric: str,
    scratch: Path,
    targets: Iterable[Any] | None = None,
    loss: Loss | None = None,
    progress: Watch | None = None,
) -> list[dict[Node, torch.Tensor]]:
    """Of every unit, by the node of what it computes, the mean over images; scaled so that the mean weight is 1.

    They are mapped from files in the folder ``scratch``, so that memory holds those of the unit at work: all layers'
    together grow with the model.

    Of a unit that is one layer: [groups, out, out] for ``metric`` "kfac", [groups, out, 1], its diagonal, for "fisher".
    Of a block: of the result's shape. Raises QuantizationError where no gradient arrives.
    """
    sums: list[dict[Node, torch.Tensor]] = [{} for _ in units]
    files = (scratch / f"moment{i}" for i in count())
    aims = iter(targets) if targets is not None else None
    meter = Meter("taking gradients", len(pieces), progress)
    for piece in pieces:
        aim = _float_output(walk, piece) if aims is None else next(aims)
        found_here = _gradients(walk, units, piece, aim, loss or squared_error)
        for unit, found, gradients in zip(units, sums, found_here, strict=True):
            for node, gradient in gradients.items():
                moment = _moment(unit, gradient, metric)
                if node not in found:
                    found[node] = _mapped(next(files), moment)
                found[node] += moment.cpu()
        meter.done("inputs")
    return [_scaled(unit, found) for unit, found in zip(units, sums, strict=True)]


def _mapped(file: Path, like: torch.Tensor) -> torch.Tensor:
    """Zeros of a tensor's shape, on the CPU, that the file holds."""
    return torch.from_file(str(file), shared=True, size=like.numel(), dtype=like.dtype).view(like.shape)


def _moment(unit: Unit, gradient: torch.Tensor, metric: str) -> torch.Tensor:
    if unit.layer is None:
        return gradient.square()
    columns = unit.layer.outputs(gradient, unit.layer.held.meta["val"].ndim)
    return columns @ columns.mT if metric == KFAC else columns.square().sum(-1, keepdim=True)


def _scaled(unit: Unit, found: dict[Node, torch.Tensor]) -> dict[Node, torch.Tensor]:
    full = unit.layer is not None and all(moment.shape[-1] > 1 for moment in found.values())
    weights = [moment.diagonal(dim1=-2, dim2=-1) if full else moment for moment in found.values()]
    total, number = sum(float(each.sum()) for each in weights), sum(each.numel() for each in weights)
    if not total > 0:
        raise QuantizationError(
            f"{unit.name}: the gradient of the loss is 0 there in every calibration image: give targets and a loss "
            "that depends on it, or say metric = 'mse'"
        )
    return {node: moment.mul_(number / total) for node, moment in found.items()}


def _float_output(walk: Walk, piece: Piece) -> Any:
    with torch.no_grad():
        values = walk.start(piece)
        walk.run(values, 0, len(walk.nodes), plain)
        return walk.outputs(values)


def _gradients(
    walk: Walk, units: Sequence[Unit], piece: Piece, aim: Any, loss: Loss
) -> Iterable[dict[Node, torch.Tensor]]:
    """The gradients at the units' results, for one piece."""
    ends = [unit.end for unit in units[:-1]] + [len(walk.nodes)]
    starts = [0, *ends[:-1]]
    borders: list[Values] = []
    values = walk.start(piece)
    with torch.no_grad():
        for first, end in zip(starts, ends, strict=True):
            borders.append(dict(values))
            walk.run(values, first, end, activations)
    behind: Gradients | None = None
    found: list[dict[Node, torch.Tensor]] = []
    for unit, first, end, border in reversed(list(zip(units, starts, ends, borders, strict=True))):
        inside = tree_map(_leaf, border)
        local = dict(inside)
        wanted = results(walk, unit)
        with torch.enable_grad():
            walk.run(local, first, end, activations, keep=wanted)
            for node in wanted:
                if local[node].requires_grad:
                    local[node].retain_grad()
            _backward(walk, local, behind, aim, loss)
        found.append({node: _gradient(local[node]) for node in wanted})
        behind = {node: [leaf.grad for leaf in tree_leaves(value)] for node, value in inside.items()}
    return reversed(found)


def _backward(walk: Walk, local: Values, behind: Gradients | None, aim: Any, loss: Loss) -> None:
    """From the gradients of what comes behind, or, where nothing does, from the loss."""
    if behind is None:
        scalar(loss(walk.outputs(local), aim)).backward()
        return
    pairs = [
        (leaf, gradient)
        for node, gradients in behind.items()
        if node in local
        for leaf, gradient in zip(tree_leaves(local[node]), gradients, strict=True)
        if gradient is not None and leaf.requires_grad
    ]
    torch.autograd.backward([leaf for leaf, _ in pairs], [gradient for _, gradient in pairs])


def _leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().requires_grad_(x.is_floating_point())


def _gradient(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x) if not x.requires_grad or x.grad is None else x.grad
