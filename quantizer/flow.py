"""The PT2E verbs: prepare, calibrate, convert, and quantize for all three."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from isa.errors import QuantizationError, QuarticError
from quantizer import pools
from quantizer.annotate import QuarticQuantizer
from quantizer.batches import Batch, as_tuple, checked, count_of, inputs_of, pieces_of, samples, shapes_of
from quantizer.checks import Named, check_graph, check_model, first_line, unforeseen
from quantizer.functionalize import functional
from quantizer.observers import Observer
from quantizer.plan import APPLIED, told
from quantizer.progress import Meter, Watch
from quantizer.recipe import Recipe
from quantizer.reconstruct.engine import reconstruct
from quantizer.reconstruct.fisher import Loss, check_loss
from quantizer.report import RECIPE
from quantizer.rewrite import rewrite
from quantizer.scaling import SCALED, scale, scaling_of
from quantizer.train.module import Trainable
from quantizer.train.norms import NORMS, norms_of
from quantizer.train.options import FROZEN

CAPTURED = "quartic_captured"
"""Key of a graph's metadata that holds the shapes of the inputs for which ``capture`` made it."""


def prepare(model: nn.Module, example_inputs: Batch, recipe: str | Path | Recipe = "w8a8") -> GraphModule:
    """Export ``model`` for inputs of these shapes, fold batch norms and insert the observers of ``recipe``: for
    ``calibrate`` and ``convert``.

    Raises QuantizationError for a model in training mode, one that torch.export cannot capture, an unknown recipe or
    one of whose overrides matches nothing; DescriptionError for a recipe's file that breaks the schema.
    """
    quantizer = QuarticQuantizer(recipe)
    if (stages := scaling_of(quantizer.recipe)) and not (isinstance(model, GraphModule) and SCALED in model.meta):
        raise QuantizationError(
            f"recipe {quantizer.recipe.title}: [{next(iter(stages))}] scales channels by what calibration batches say: "
            "prepare what rescale(model, example_inputs, batches, recipe) gives, or call quantize for all of it"
        )
    graph = capture(model, example_inputs)
    del graph.meta[CAPTURED]
    norms = norms_of(graph)
    prepared = _quietly(prepare_pt2e, graph, quantizer)
    prepared.meta[NORMS] = norms
    prepared.meta[RECIPE] = "f32" if quantizer.recipe.is_float else quantizer.recipe.title
    prepared.meta[APPLIED] = [told(override) for override in quantizer.recipe.overrides]
    return prepared


def capture(model: nn.Module, example_inputs: Batch) -> GraphModule:
    """``model`` as an aten graph by torch.export: capture once to quantize at several recipes.

    A graph that this made for the same shapes is copied. Raises QuantizationError with advice where that fails.
    """
    check_model(model)
    inputs = as_tuple(example_inputs)
    for i, value in enumerate(inputs):
        if value.dtype != torch.float32:
            raise QuantizationError(f"example input {i} is {value.dtype}: must be torch.float32; convert it first")
        if value.numel() == 0:
            raise QuantizationError(
                f"example input {i} has shape {tuple(value.shape)}, which holds nothing: give at least one sample"
            )
    if isinstance(model, GraphModule) and model.meta.get(CAPTURED) == shapes_of(inputs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own tree of arguments
            return copy.deepcopy(model)
    try:
        with torch.no_grad():
            # Clones, since one tensor given twice would become one input.
            program = torch.export.export(model, tuple(x.clone() for x in inputs))
    except Exception as error:
        raise QuantizationError(
            f"torch.export cannot capture {type(model).__name__} for inputs of shapes {shapes_of(inputs)}: "
            f"{first_line(error)}. Check the shapes; where control flow depends on tensor values, use torch.where, "
            "or quantize the part of the model that has none"
        ) from error
    graph = functional(program)
    if any("quantized_decomposed" in str(node.target) for node in graph.graph.nodes):
        raise QuantizationError("the model is quantized already: compile it, or quantize the float model")
    check_graph(graph)
    graph.meta[CAPTURED] = shapes_of(inputs)
    return graph


def export(model: nn.Module, example_inputs: Batch) -> GraphModule:
    """``model`` as a float graph in operators that the machine has, for another quantizer to annotate.

    Raises QuantizationError as ``prepare`` does.
    """
    graph = capture(model, example_inputs)
    del graph.meta[CAPTURED]
    _fuse_conv_bn_(graph)  # before batch norms become products and sums: prepare_pt2e would find none
    return rewrite(graph)


def rescale(
    model: nn.Module,
    example_inputs: Batch,
    batches: Iterable[Batch],
    recipe: str | Path | Recipe,
    progress: Watch | None = None,
) -> GraphModule:
    """The float graph of ``model`` with channels scaled by the stages [smooth], [fold] and [polish] of ``recipe``.

    It computes the same but for rounding, and ``prepare`` takes it, with the same recipe.

    * ``batches``: representative inputs, as of ``calibrate``.
    * ``progress``: told after every input, if ``batches`` are a list, and after every layer that is tried.

    Raises QuantizationError as ``prepare`` and ``calibrate`` do, and for batch norms that are to be trained otherwise
    than folded.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    graph = capture(model, example_inputs)
    _check_norms(graph, recipe)
    _fuse_conv_bn_(graph)
    rewrite(graph, pools.definitions(recipe))
    expected = inputs_of(graph)
    count = None if progress is None else count_of(batches, expected)
    pieces = (
        piece for i, batch in enumerate(checked(batches), 1) for piece in pieces_of(as_tuple(batch), expected, i)
    )
    scale(graph, pieces, recipe, count, progress).meta[SCALED] = True
    return graph


def _check_norms(graph: GraphModule, recipe: Recipe) -> None:
    """Factors go into weights that batch norms are folded into, for good: what trains behind has none to correct."""
    norms = norms_of(graph)
    if recipe.train is not None and recipe.train.norms != FROZEN and norms:
        stage = next(iter(scaling_of(recipe)))
        raise QuantizationError(
            f"recipe {recipe.title}: [{stage}] folds the model's {len(norms)} batch norms, the first into "
            f"{next(iter(norms))}, before [train] could have norms = {recipe.train.norms!r}: say norms = {FROZEN!r}, "
            f"which trains the folded weights, or leave out [{stage}]"
        )


def calibrate(
    prepared: GraphModule, batches: Iterable[Batch], progress: Watch | None = None
) -> GraphModule:
    """Run ``batches`` through the observers of ``prepared`` and return it.

    * ``prepared``: what ``prepare`` gave, which is changed; calibrating again adds to what it saw.
    * ``batches``: of a tensor, or a sequence of tensors, one per input, each; one that is larger than the example
      inputs is split into pieces of their size, and counts once.
    * ``progress``: told after every piece, if ``batches`` are a list.

    Raises QuantizationError for no batches or shapes that do not fit.
    """
    expected = inputs_of(prepared)
    count = 0
    meter = Meter("calibrating", None if progress is None else count_of(batches, expected), progress)
    with torch.no_grad():
        for count, batch in enumerate(checked(batches), 1):
            for piece in pieces_of(as_tuple(batch), expected, count):
                _observe(prepared, piece)
                meter.done("inputs")
            for observer in _observers(prepared):
                observer.close_batch()
    if count == 0:
        raise QuantizationError("the calibration set is empty: give at least one batch of representative inputs")
    return prepared


def _observe(prepared: GraphModule, inputs: tuple[torch.Tensor, ...]) -> None:
    try:
        prepared(*inputs)
    except Exception:
        named = Named(prepared)
        named.extra_traceback = False  # torch would append its own to the message
        named.run(*inputs)  # raises the same, with a name
        raise


def transfer(calibrated: GraphModule, prepared: GraphModule) -> GraphModule:
    """Give ``prepared`` the ranges of ``calibrated``, the same model prepared for inputs of another size; returns it.

    For models whose ranges do not depend on the size, where a calibration at full size costs too much.

    * ``calibrated``: a prepared graph that was calibrated.
    * ``prepared``: by the same recipe, not yet calibrated.

    Raises QuantizationError where the two graphs do not observe the same tensors.
    """
    sources, targets = _observers(calibrated), _observers(prepared)
    if len(sources) != len(targets) or not all(map(Observer.like, sources, targets)):
        raise QuantizationError(
            f"ranges of {len(sources)} tensors do not fit a graph that observes {len(targets)}: prepare one model "
            "with the same recipe for both sizes"
        )
    for source, target in zip(sources, targets, strict=True):
        target.adopt(source)
    return prepared


def convert(prepared: GraphModule | Trainable) -> GraphModule:
    """The calibrated graph with q/dq ops (``quantized_decomposed``), weights as codes.

    * ``prepared``: a graph that was calibrated, which becomes the result, or a trained module, which stays as it is.

    Raises QuantizationError if an observer has seen no data.
    """
    if isinstance(prepared, Trainable):
        prepared = prepared.finish()
    _check_graph(prepared)
    if not all(observer.seen for observer in _observers(prepared)):
        raise QuantizationError("the prepared model was not calibrated: run calibrate(prepared, batches) first")
    said = {RECIPE: prepared.meta.get(RECIPE, ""), APPLIED: prepared.meta.get(APPLIED, [])}
    converted = _quietly(convert_pt2e, prepared)
    converted.meta.update(said)
    converted.meta["custom"] = {**converted.meta.get("custom", {}), **said}  # the part that torch.export.save keeps
    return converted


def quantize(
    model: nn.Module,
    example_inputs: Batch,
    calibration_batches: Iterable[Batch],
    recipe: str | Path | Recipe = "w8a8",
    *,
    targets: Iterable[Any] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    resume: str | Path | None = None,
    progress: Watch | None = None,
) -> GraphModule:
    """prepare, calibrate and convert ``model``, with the recipe's stages between: an FX graph with q/dq ops.

    Parameters are as of ``quartic.quantize``, and inputs and batches may be tensors alone. Raises QuantizationError,
    DescriptionError.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    _check_device(device)
    check_loss(loss)
    if resume is not None and not (recipe.compensate or recipe.round):
        raise QuantizationError(
            f"resume = {str(resume)!r}: recipe {recipe.title} has no [round] or [compensate], whose work could go on; "
            "leave resume out"
        )
    example_inputs = _on(device, as_tuple(example_inputs))
    batches: Iterable[Batch] = (_on(device, as_tuple(batch)) for batch in checked(calibration_batches))
    if recipe.stages or scaling_of(recipe) or (progress is not None and isinstance(calibration_batches, list | tuple)):
        batches = list(batches)  # they are run through more than once, or counted
    if torch.device(device).type != "cpu":
        model = copy.deepcopy(model).to(device)
    scaled = rescale(model, example_inputs, batches, recipe, progress) if scaling_of(recipe) else model
    graph = calibrate(prepare(scaled, example_inputs, recipe), batches, progress)
    targets = None if targets is None else list(targets)
    if recipe.compensate or recipe.round:
        aims = None if targets is None else [_on(device, target) for target in targets]
        pieces, aims = samples(graph, list(batches), aims)
        reconstruct(graph, pieces, recipe, targets=aims, loss=loss, seed=seed, resume=resume, progress=progress)
    if recipe.train:
        from quantizer.train.loop import fine_tuned  # which imports this module

        options = dict(targets=targets, seed=seed, device=device, progress=progress)
        graph = fine_tuned(model, graph, list(batches), recipe, loss, **options)
    return convert(to_device(graph, "cpu"))


def _check_graph(prepared: object) -> None:
    if not isinstance(prepared, GraphModule):
        kind = type(prepared).__name__
        raise QuantizationError(f"convert takes a calibrated graph or a trained module, not {kind}: prepare it first")


def _check_device(device: str | torch.device) -> None:
    try:
        torch.zeros((), device=device).item()  # "meta" has no values
    except Exception as error:  # of whatever type its backend raises
        raise QuantizationError(
            f"device {str(device)!r}: {first_line(error)}; take 'cpu', or one that is there"
        ) from None


def _on(device: str | torch.device, value: Any) -> Any:
    return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, value)


def to_device(prepared: GraphModule, device: str | torch.device) -> GraphModule:
    """``prepared`` with its constants, ranges and the tensors that its nodes make on ``device``; returns it."""
    prepared.to(device)
    for node in prepared.graph.nodes:
        if "device" in node.kwargs:
            node.update_kwarg("device", torch.device(device))
    prepared.recompile()
    for observer in _observers(prepared):
        if observer.frozen is not None:
            observer.freeze(*_on(device, observer.frozen))
    return prepared


def _quietly(step: Callable[..., GraphModule], *args: object) -> GraphModule:
    """A step of torchao, which warns of its own deprecations. Raises QuantizationError for whatever it raises."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return step(*args)
    except QuarticError:
        raise
    except Exception as error:
        raise QuantizationError(unforeseen(f"{step.__name__} of torchao", error)) from error


def _observers(prepared: GraphModule) -> list[Observer]:
    return [module for module in prepared.modules() if isinstance(module, Observer)]


def is_float(program: torch.export.ExportedProgram) -> bool:
    """Whether nothing in the program says that it was quantized: no codes, and no mark of the binary32 recipe."""
    if (program.graph_module.meta.get("custom") or {}).get(RECIPE):
        return False
    names = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return not any(name.startswith(("quantized_decomposed.", "quartic.")) for name in names)
