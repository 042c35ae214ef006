"""How much the result loses when a single layer is quantized, for every layer and width.

A layer is whatever a recipe's override can name: all weighted operators and products of one module path. One capture
and one calibration serve all of them, so the cost is a forward pass per layer and width, or by Fisher information a
backward pass for all; a recipe's stages add a run over the calibration batches each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite, log10
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isa.errors import InputError, QuantizationError
from isa.instructions import Mode
from quantizer.batches import Batch, as_tuple, checked
from quantizer.batches import samples as parts_of
from quantizer.flow import calibrate, prepare, rescale
from quantizer.probe import Metric, Progress, first_pieces, fisher, layers_of, one_by_one, operand_bits
from quantizer.recipe import Recipe
from quantizer.scaling import scaling_of
from quantizer.staged import add_twins, compensated

SQNR, METRIC, FISHER = "sqnr", "metric", "fisher"
MEASURES = (SQNR, METRIC, FISHER)
WIDTHS = tuple(mode.name.lower() for mode in (Mode.W4A4, Mode.W4A8, Mode.W8A8, Mode.W8A16, Mode.W16A16))
"""Widths of weights and activations that a layer may have, by the names of the matrix unit's modes."""
LEARNED = ("round", "train")
"""Stages that take no part: they would have to learn anew for every layer and width."""


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: all weighted operators and products of one module path."""

    module: str
    """Path of the module; "" is the root."""
    nodes: tuple[str, ...]
    """Names of its FX nodes."""
    product: bool
    """Whether any of them multiplies two activations."""
    weights: int
    """Number of its weights."""
    losses: Mapping[str, float]
    """The loss by width, as ``w4a8``."""

    def sqnr_db(self, width: str) -> float:
        """The loss at ``width`` in decibels, where it is by "sqnr"; inf where nothing was lost."""
        loss = self.losses[width]
        return -10 * log10(loss) if loss > 0 else inf


@dataclass(frozen=True)
class Sensitivity:
    """Losses of the layers of a model."""

    by: str
    """What a loss is. "sqnr": noise power over signal power of the outputs (independent errors add up); "metric": the
    metric less that of the float model; "fisher": sum over the elements of (error * gradient)^2."""
    recipe: str
    """Title of the recipe that ranges and stages are of."""
    layers: tuple[LayerSensitivity, ...]
    """In the graph's order."""
    left_out: tuple[str, ...] = ()
    """The recipe's stages that took no part."""

    @property
    def widths(self) -> tuple[str, ...]:
        """All widths that any layer has, the narrowest first."""
        return tuple(width for width in WIDTHS if any(width in layer.losses for layer in self.layers))

    def ranked(self, width: str) -> tuple[LayerSensitivity, ...]:
        """The layers that have this ``width``, those that lose most by it first."""
        having = [layer for layer in self.layers if width in layer.losses]
        return tuple(sorted(having, key=lambda layer: -layer.losses[width]))

    def to_json(self) -> str:
        """Text that ``from_json`` reads back as an equal value."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "<sensitivity>") -> Sensitivity:
        """The value of the ``text`` of ``to_json``; ``source`` names it in errors. Raises InputError."""
        try:
            found = json.loads(text)
            layers = tuple(
                LayerSensitivity(
                    str(row["module"]),
                    tuple(map(str, row["nodes"])),
                    bool(row["product"]),
                    int(row["weights"]),
                    {width: float(loss) for width, loss in row["losses"].items()},
                )
                for row in found["layers"]
            )
            if wrong := [layer.module for layer in layers if not all(map(isfinite, layer.losses.values()))]:
                raise InputError(f"{source}: layer {wrong[0]!r} has a loss that is not finite; measure it again")
            unknown = [width for layer in layers for width in layer.losses if width not in WIDTHS]
            if found["by"] not in MEASURES:
                raise InputError(f"{source}: by = {found['by']!r}: must be one of {', '.join(map(repr, MEASURES))}")
            if unknown:
                raise InputError(f"{source}: unknown width {unknown[0]!r}; known are {', '.join(WIDTHS)}")
            return cls(str(found["by"]), str(found["recipe"]), layers, tuple(map(str, found.get("left_out", ()))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"{source}: not a table of sensitivities ({reason}); write one with quartic sensitivity --json"
            ) from None


def sensitivity(
    model: nn.Module,
    example_inputs: Batch,
    calibration_batches: Iterable[Batch],
    recipe: str | Path | Recipe = "w8a8",
    *,
    by: str = SQNR,
    widths: Sequence[str] | None = None,
    samples: int = 8,
    targets: Iterable[Any] | None = None,
    metric: Metric | None = None,
    loss: Metric | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """What the outputs of ``model`` lose when one layer alone is quantized, for every layer and each of ``widths``.

    ``recipe`` says how ranges are found and which codes are affine, and its stages take part: channels are scaled once,
    as at the recipe's own widths; 4-bit operands of [polish] and [log2] have their codebooks; and weights are
    compensated at each width of their operand, but by "fisher", which does not see errors cancel. Stages that learn,
    [round] and [train], are left out. All batches calibrate; the losses are of the first ``samples`` samples, in the
    example inputs' batch size. A product has no weights, and so no widths that differ.

    * ``by="sqnr"``: noise over signal power of the outputs, summed over several outputs.
    * ``by="metric"``: ``metric(outputs, target)`` less that of the float model, averaged over the batches.
    * ``by="fisher"``: the diagonal of the empirical Fisher information (arXiv 2503.16709, eq. 13), sum of
      (error * gradient)^2 over the elements of the layer's weights and inputs. Gradients are of
      ``loss(outputs, target)``; without a loss, of half the squared distance to the float outputs at the point where
      everything is quantized by ``recipe``, since they are 0 at the float point.

    ``widths`` are all without any; ``targets`` holds one per batch. Raises QuantizationError.
    """
    _check_measure(by, targets, metric, loss)
    check_samples(samples)
    wanted = WIDTHS if widths is None else _checked_widths(widths)
    batches = [as_tuple(batch) for batch in checked(calibration_batches)]
    targets = None if targets is None else list(targets)
    if targets is not None and len(targets) != len(batches):
        raise QuantizationError(f"{len(targets)} targets for {len(batches)} batches: give one per batch")
    given = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    left_out = tuple(name for name in given.stages if name in LEARNED or (by == FISHER and name == "compensate"))
    plain = replace(given, **dict.fromkeys(left_out))
    scaled = rescale(model, example_inputs, batches, plain) if scaling_of(plain) else model
    graph = prepare(scaled, example_inputs, plain)
    add_twins(graph, plain)
    calibrate(graph, batches)
    layers = layers_of(graph, [width for width in WIDTHS if width in wanted])
    if not layers:
        raise QuantizationError(
            f"no layers: recipe {given.title} quantizes no convolution, linear layer or product of the model"
        )
    pieces = first_pieces(batches, targets, example_inputs, samples)
    if by == FISHER:
        losses = fisher(graph, layers, pieces, loss, progress)
    else:
        weights = None
        if plain.compensate is not None:
            inputs, _ = parts_of(graph, batches)
            with torch.no_grad():
                weights = compensated(graph, operand_bits(graph, layers), inputs, plain.compensate.damping)
        losses = one_by_one(graph, layers, pieces, metric if by == METRIC else None, progress, weights)
    if wrong := [key for key, lost in losses.items() if not isfinite(lost)]:
        (module, width), lost = wrong[0], losses[wrong[0]]
        raise QuantizationError(
            f"layer {module!r} loses {lost} at {width}: look for overflow or NaN in the model, or in what measures"
        )
    rows = (
        LayerSensitivity(
            layer.module,
            tuple(node.name for node in layer.nodes),
            layer.product,
            layer.weights(graph),
            {width: losses[layer.module, width] for width in layer.widths},
        )
        for layer in layers
    )
    return Sensitivity(by, given.title, tuple(rows), left_out)


def _check_measure(by: str, targets: Iterable[Any] | None, metric: Metric | None, loss: Metric | None) -> None:
    """Raise QuantizationError for a measure that lacks what it reads, or is given what it does not."""
    if by not in MEASURES:
        raise QuantizationError(f"by = {by!r}: must be one of {', '.join(map(repr, MEASURES))}")
    for name, given, reader in (("metric", metric, METRIC), ("loss", loss, FISHER)):
        if given is not None and not callable(given):
            raise QuantizationError(f"the {name} is a {type(given).__name__}: give a function of outputs and target")
        if given is not None and by != reader:
            raise QuantizationError(f"by = {by!r} reads no {name}: say by = {reader!r}, or leave the {name} out")
    if by == METRIC and (metric is None or targets is None):
        raise QuantizationError("by = 'metric' needs a metric of outputs and targets, and targets, one per batch")
    if by == FISHER and loss is not None and targets is None:
        raise QuantizationError("by = 'fisher': the loss needs targets, one per batch, or as many None")
    if targets is not None and metric is None and loss is None:
        given = "a metric, and say by = 'metric'" if by == SQNR else "the loss that reads them"
        raise QuantizationError(f"by = {by!r} alone reads no targets: give {given}, or leave them out")


def check_samples(samples: int) -> None:
    """Raise QuantizationError for no number of samples to measure on."""
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise QuantizationError(f"samples = {samples!r}: must be a whole number, at least 1")


def _checked_widths(widths: Sequence[str]) -> tuple[str, ...]:
    if isinstance(widths, str) or not isinstance(widths, Iterable) or not (found := tuple(widths)):
        raise QuantizationError(f"widths = {widths!r}: must be a list of some of {', '.join(WIDTHS)}")
    if bad := [width for width in found if width not in WIDTHS]:
        raise QuantizationError(f"width {bad[0]!r}: must be one of {', '.join(WIDTHS)}")
    return found
