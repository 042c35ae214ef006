"""The training loop: stochastic gradient descent on a module to train, by the table ``[train]`` of a recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from isa.errors import QuantizationError
from quantizer.batches import Batch, as_tuple
from quantizer.flow import calibrate, prepare, rescale
from quantizer.progress import Progress
from quantizer.recipe import Recipe
from quantizer.reconstruct.fisher import Loss, check_loss, scalar, squared_error
from quantizer.scaling import scaling_of
from quantizer.train.module import Trainable, floating
from quantizer.train.options import COSINE, Train

Optimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Of groups of parameters."""


@dataclass(frozen=True)
class Step(Progress):
    """Said after each step of a training."""

    loss: float = math.nan
    """Of the step's batch."""


def prepare_qat(
    model: nn.Module,
    example_inputs: Batch,
    batches: Iterable[Batch],
    recipe: str | Path | Recipe = "qat-w8a8",
    seed: int = 0,
) -> Trainable:
    """``model`` as a module to train in a loop of one's own, in batches as ``example_inputs``, and then to ``convert``.

    Activations start at the ranges of ``batches``, as of ``calibrate``. What changes in the course of a training does
    so by the ``steps`` that the recipe's [train] says, a forward pass in training mode each. Raises QuantizationError
    as ``prepare`` and ``calibrate`` do, and for a recipe without [train].
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if recipe.train is None:
        raise QuantizationError(f"recipe {recipe.title} does not train: give it a table [train], or take 'qat-w8a8'")
    if scaling_of(recipe):
        batches = list(batches)
        model = rescale(model, example_inputs, batches, recipe)
    return Trainable(calibrate(prepare(model, example_inputs, recipe), batches), recipe.train, seed)


def train(
    prepared: GraphModule | Trainable,
    batches: Iterable[Batch],
    loss: Loss | None = None,
    *,
    targets: Iterable[Any] | None = None,
    stage: Train | None = None,
    optimizer: Optimizer | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[Step], None] | None = None,
) -> Trainable:
    """Train a calibrated graph, or a module of ``prepare_qat``, with simulated quantization; for ``convert``.

    ``batches`` are of exactly the shapes that were prepared, ``targets`` one per batch, for ``loss(output, target)``.
    Both begin anew when they end: a list is taken in its order, an iterable may shuffle and draw. Without ``targets``
    the target is the float model's output, without ``loss`` it is the ``squared_error``. ``optimizer`` makes the
    optimizer of groups of parameters, which ``stage`` still schedules; SGD otherwise. Raises QuantizationError for
    batches that do not fit, that end early, or whose loss is not finite.
    """
    _check(prepared, batches, loss, optimizer)
    module = prepared if isinstance(prepared, Trainable) else Trainable(prepared, stage or Train(), seed)
    if isinstance(prepared, Trainable) and stage is not None and stage != module.clock.stage:
        raise QuantizationError("the module to train has its stage already: give the stage to prepare_qat, or neither")
    stage = module.clock.stage
    teacher = None if targets is not None else floating(module.prepared).to(device)
    loss = loss or squared_error
    module.to(device).train()
    optimiser = (optimizer or _descent(stage))(_groups(module, stage))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _share(stage))
    average = [value.detach().clone() for value in module.parameters()] if stage.average else []
    start = time.monotonic()
    for number, (inputs, target) in enumerate(_pairs(batches, targets, stage.steps, module), 1):
        inputs = tuple(value.to(device) for value in inputs)
        if teacher is not None:
            with torch.no_grad():
                target = teacher(*inputs)
        optimiser.zero_grad()
        value = scalar(loss(module(*inputs), _moved(target, device)))
        if not math.isfinite(value.item()):
            raise QuantizationError(
                f"the loss of step {number} is {value.item()}: lower rate = {stage.rate} of [train], or look at the "
                "batch"
            )
        value.backward()
        optimiser.step()
        schedule.step()
        _follow(average, module, stage)
        if progress is not None:
            told = "training", f"loss {value.item():.4g}", number, stage.steps
            progress(Step(*told, time.monotonic() - start, value.item()))
    with torch.no_grad():
        for parameter, mean in zip(module.parameters(), average or module.parameters(), strict=True):
            parameter.copy_(mean)
    return module.to("cpu").eval()


def fine_tuned(
    model: nn.Module, graph: GraphModule, batches: Sequence[Batch], recipe: Recipe, loss: Loss | None, **rest: Any
) -> GraphModule:
    """``graph``, calibrated of ``model``, after [train] of ``recipe`` in batches as they are, whatever its own size."""
    assert recipe.train is not None, "asked for where it is"
    first = as_tuple(batches[0])
    sizes = [tuple(node.meta["val"].shape) for node in graph.graph.nodes if node.op == "placeholder"]
    same = [tuple(value.shape) for value in first] == sizes
    whole = graph if same else prepare_qat(model, first, batches, recipe, rest["seed"])
    module = train(whole, batches, loss, stage=recipe.train, **rest)
    return module.finish(None if same else graph)


def _check(prepared: object, batches: object, loss: object, optimizer: object) -> None:
    if not isinstance(prepared, Trainable | GraphModule):
        raise QuantizationError(f"a {type(prepared).__name__} cannot be trained: give what quartic.prepare_qat returns")
    if isinstance(batches, torch.Tensor) or not isinstance(batches, Iterable):
        raise QuantizationError(f"the batches to train on are a {type(batches).__name__}: give a list of them, as [x]")
    check_loss(loss)
    if optimizer is not None and not callable(optimizer):
        kind = type(optimizer).__name__
        raise QuantizationError(f"the optimizer is a {kind}: give a function that makes one of groups of parameters")


def _descent(stage: Train) -> Optimizer:
    return lambda groups: torch.optim.SGD(groups, stage.rate, momentum=stage.momentum)


def _groups(module: nn.Module, stage: Train) -> list[dict[str, Any]]:
    """Decay is of weights: norms, biases and scales are no larger for it."""
    learning = [value for value in module.parameters() if value.requires_grad]
    if not learning:
        raise QuantizationError("the model has no parameters to train: quantize it without [train]")
    weights, rest = ([v for v in learning if (v.dim() > 1) is wanted] for wanted in (True, False))
    groups = [{"params": weights, "weight_decay": stage.decay}, {"params": rest, "weight_decay": 0.0}]
    return [{**group, "lr": stage.rate} for group in groups if group["params"]]


def _share(stage: Train) -> Callable[[int], float]:
    """The rate of a step, as a share of the first."""
    if stage.schedule != COSINE:
        return lambda _: 1.0
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step / max(stage.steps, 1), 1)))


@torch.no_grad()
def _follow(average: list[torch.Tensor], module: nn.Module, stage: Train) -> None:
    for mean, value in zip(average, module.parameters(), strict=False):
        mean.lerp_(value, 1 - stage.average)


def _pairs(
    batches: Iterable[Batch], targets: Iterable[Any] | None, steps: int, module: Trainable
) -> Iterator[tuple[tuple[torch.Tensor, ...], Any]]:
    """Batch and target of every step."""
    expected, number = module.shapes, 0
    while number < steps:
        before = number
        pairs = ((batch, None) for batch in batches) if targets is None else _zipped(batches, targets)
        for batch, target in pairs:
            inputs = as_tuple(batch)
            if (shapes := [tuple(x.shape) for x in inputs]) != expected:
                raise QuantizationError(
                    f"training batch {number + 1} has shapes {shapes}, but the model was prepared for {expected}: "
                    "prepare it for the batch, and leave out a last one that is smaller"
                )
            if (types := [x.dtype for x in inputs]) != module.types:
                raise QuantizationError(
                    f"training batch {number + 1} is of {types}, but the model was prepared for {module.types}: "
                    "convert it with .to()"
                )
            yield inputs, target
            number += 1
            if number == steps:
                return
        if number == before:
            raise QuantizationError(
                f"the batches ended after {number} of {steps} steps: give a list, or an iterable that begins anew"
            )


def _zipped(batches: Iterable[Batch], targets: Iterable[Any]) -> Iterator[tuple[Batch, Any]]:
    try:
        yield from zip(batches, targets, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise QuantizationError("there are not as many targets as batches: give one target per batch") from None


def _moved(target: Any, device: str | torch.device) -> Any:
    return target.to(device) if isinstance(target, torch.Tensor) else target
