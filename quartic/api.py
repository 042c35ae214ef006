"""The verbs. Each imports its part when called, so that ``import quartic`` stays fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isa.errors import InputError
from quartic.executable import Executable

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from compiler.ir.schedule import Schedule
    from isa.machine import Machine
    from quantizer.progress import Progress
    from quantizer.recipe import Recipe
    from quantizer.sensitivity import Sensitivity
    from quantizer.train.loop import Step
    from quantizer.train.module import Trainable
    from quartic.assigned import Assignment
    from runtime.session import Run


def quantize(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    recipe: str | Path | Recipe = "w8a8",
    *,
    targets: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    resume: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> GraphModule:
    """Float ``model`` to an FX graph with quantize and dequantize ops, calibrated on the batches.

    * ``model``: in eval mode, parameters of binary32; or a graph that ``quantizer.capture`` made for the same shapes.
    * ``example_inputs``: a tensor of binary32 for each input of the model; they fix the shapes, batch included.
    * ``calibration_batches``: representative inputs, each a tuple like the example, or a whole number of times its
      batch. They are run through once, or again where the recipe has stages.
    * ``recipe``: a preset's name, the path of a TOML file, or a value.
    * ``targets``: one per batch, for ``loss``, where a stage takes gradients ([round] by "fisher" or "kfac", [train]);
      None takes the float model's outputs.
    * ``loss``: of output and target, a tensor of one number; None is the mean squared error.
    * ``seed``: of whatever the stages draw; the same inputs and seed give the same bits.
    * ``device``: where the work is done, as "cpu" or "cuda"; the result is on the CPU.
    * ``resume``: a folder that keeps what [compensate] and [round] decided, for a second run to go on from.
    * ``progress``: told after every input, layer, block and step of what goes on, with the time that is left; what
      it raises ends the call. Inputs are counted where the batches are a list.

    Raises QuantizationError for what cannot be quantized, DescriptionError for a recipe that breaks the schema.

    >>> small = quartic.quantize(model, example, batches, recipe="w4a8")
    >>> print(type(small).__name__, tuple(small(*example).shape))
    GraphModule (1, 4)
    """
    from quantizer import quantize

    return quantize(
        model,
        example_inputs,
        calibration_batches,
        recipe,
        targets=targets,
        loss=loss,
        seed=seed,
        device=device,
        resume=resume,
        progress=progress,
    )


def prepare_qat(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    recipe: str | Path | Recipe = "qat-w8a8",
    *,
    seed: int = 0,
) -> Trainable:
    """Float ``model`` as a module to train with simulated quantization, in batches shaped as ``example_inputs``.

    Train it as any other, or by ``train``, and then ``convert`` it. A forward pass in training mode is one of the steps
    of the recipe's [train]; in eval mode it computes what the converted graph will, to the bit.

    * ``example_inputs``: of the training's batch; ``Trainable.finish`` gives a graph for inputs of another size.
    * ``calibration_batches``: as of ``quantize``; ranges of activations start at theirs.
    * ``recipe``: one with a table [train].
    * ``seed``: of [train] with ``stochastic``.

    Raises QuantizationError, also for a recipe without [train], and DescriptionError for one that breaks the schema.

    >>> trainable = quartic.prepare_qat(model, (images,), batches, "qat-w8a8")
    >>> print(trainable.shapes)
    [(16, 3, 8, 8)]
    """
    from quantizer.train.loop import prepare_qat

    return prepare_qat(model, example_inputs, calibration_batches, recipe, seed)


def train(
    trainable: Trainable,
    batches: Iterable[torch.Tensor | tuple[torch.Tensor, ...]],
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    *,
    targets: Iterable[Any] | None = None,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[Step], None] | None = None,
) -> Trainable:
    """The steps of [train] on what ``prepare_qat`` made, which is returned, in eval mode and on the CPU.

    * ``trainable``: its master weights are binary32, and its parameters.
    * ``batches``: tensors, or tuples of them, of exactly the shapes that were prepared, one a step; they begin anew
      when they end, so that a list is taken in its order, and an iterable may shuffle.
    * ``loss``: of output and target, a tensor of one number; None is the mean squared error.
    * ``targets``: one per batch; None takes the float model's outputs.
    * ``optimizer``: makes one of groups of parameters, each with its ``lr`` and ``weight_decay``, in place of SGD; the
      schedule of [train] moves their ``lr``.
    * ``device``: where the steps are done.
    * ``progress``: told after every step, with its loss.

    Raises QuantizationError for batches that do not fit, that end early, or whose loss is not finite.

    >>> trainable = quartic.prepare_qat(model, (images,), batches, changed)
    >>> trained = quartic.train(trainable, [images])
    >>> print(torch.equal(trained(images), quartic.convert(trained)(images)))
    True
    """
    from quantizer.train.loop import train

    return train(trainable, batches, loss, targets=targets, optimizer=optimizer, device=device, progress=progress)


def convert(trainable: Trainable | GraphModule) -> GraphModule:
    """What was trained, or calibrated, as a graph with q/dq ops, as ``quantize`` gives it.

    * ``trainable``: of ``prepare_qat`` or ``train``, which can go on afterwards; or a graph of the quantizer's
      ``prepare`` that was calibrated.

    Raises QuantizationError for a graph without calibration.
    """
    from quantizer import convert

    return convert(trainable)


def recipe(name_or_path: str | Path) -> Recipe:
    """How a model is to be quantized, as a value.

    * ``name_or_path``: a preset (``quartic recipes`` lists them) or a TOML file.

    Raises QuantizationError for an unknown preset, DescriptionError for a file that breaks the schema.

    >>> from dataclasses import replace
    >>> from quantizer.train.options import Train
    >>> changed = replace(quartic.recipe("w8a8"), name="mine", train=Train(steps=2))
    >>> print(changed.roles().weight.bits, changed.train.steps, changed.compiles)
    8 2 True
    """
    from quantizer.recipe import Recipe

    return Recipe.load(name_or_path)


def sensitivity(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    recipe: str | Path | Recipe = "w8a8",
    *,
    by: str = "sqnr",
    widths: Sequence[str] | None = None,
    samples: int = 8,
    targets: Iterable[Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Sensitivity:
    """What the outputs lose when one layer alone is quantized, for every layer and width.

    * ``recipe``: how ranges are found, and stages but for those that learn ([round], [train]; by "fisher" also
      [compensate]).
    * ``by``: "sqnr", noise over signal power of the outputs; "metric", what ``metric`` loses against the float model;
      or "fisher", the empirical Fisher information of a layer's weights and inputs (arXiv 2503.16709, eq 13), by one
      backward pass.
    * ``widths``: as ``("w4a4", "w4a8")``; None takes w4a4, w4a8, w8a8, w8a16 and w16a16.
    * ``samples``: of the calibration batches, to measure on; all of them calibrate.
    * ``targets``: one per batch, for ``metric`` or ``loss``.
    * ``metric``: of outputs and target, a number, smaller where the result is better; for "metric" alone.
    * ``loss``: of outputs and target, a tensor of one number, for "fisher"; None takes half the squared distance to the
      float outputs where everything is quantized.
    * ``progress``: told how many trials are done, and of how many.

    Raises QuantizationError, and DescriptionError for a recipe that breaks the schema.

    >>> losses = quartic.sensitivity(model, example, batches, widths=["w4a4", "w8a8"], samples=2)
    >>> print([layer.module for layer in losses.ranked("w4a4")])
    ['0', '3']
    """
    from quantizer.sensitivity import sensitivity

    given = model, example_inputs, calibration_batches, recipe
    options: dict[str, Any] = dict(by=by, widths=widths, samples=samples, progress=progress)
    return sensitivity(*given, targets=targets, metric=metric, loss=loss, **options)


def assign(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    machine: str | Path | Machine = "edge28",
    recipe: str | Path | Recipe = "w8a8",
    *,
    latency_seconds: float | None = None,
    energy_joules: float | None = None,
    sqnr_db: float | None = None,
    minimise: str = "latency",
    sensitivity: Sensitivity | None = None,
    samples: int = 8,
    progress: Callable[[str], object] | None = None,
) -> Assignment:
    """A width for every layer within a budget of the simulated machine, as a recipe, a graph and a binary.

    Give one budget. The cost model predicts, the simulator confirms; ``quartic.assignment.assigner`` does the same for
    many budgets of one model, or for its front.

    * ``machine``: a name, the path of a TOML file, or a value.
    * ``recipe``: where everything but the widths comes from.
    * ``latency_seconds``: the longest run, at the least loss.
    * ``energy_joules``: the most energy of a run, at the least loss.
    * ``sqnr_db``: the least SQNR of the outputs in decibels, at the least cost.
    * ``minimise``: with ``sqnr_db``, "latency" or "energy".
    * ``sensitivity``: losses of the same model; measured by SQNR where they are not given.
    * ``samples``: of the calibration batches, to measure on; all of them calibrate.
    * ``progress``: told what is going on, in words.

    Raises AssignmentError for a budget out of reach, QuantizationError, UnsupportedError, and DescriptionError for a
    machine or a recipe that breaks the schema.

    >>> made = quartic.assign(model, example, batches, "tiny", latency_seconds=1e-3, samples=2)
    >>> print(made.widths, made.simulated.latency_seconds <= 1e-3)
    {'0': 'w16a16', '3': 'w16a16'} True
    """
    from quartic.assignment import assign

    given = model, example_inputs, calibration_batches, machine, recipe
    budget: dict[str, Any] = dict(latency_seconds=latency_seconds, energy_joules=energy_joules, sqnr_db=sqnr_db)
    options: dict[str, Any] = dict(minimise=minimise, samples=samples, progress=progress)
    return assign(*given, sensitivity=sensitivity, **budget, **options)


def export(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> GraphModule:
    """Float ``model`` as a float graph in operators that the machine has, for quantizers other than Quartic's.

    Composite operators are said in others: attention becomes two products and a softmax, so that each can be annotated.
    ``prepare_pt2e`` takes the graph; what ``convert_pt2e`` makes of it compiles. Raises QuantizationError.

    >>> graph = quartic.export(model, example)
    >>> print(sum(node.op == "call_function" for node in graph.graph.nodes))
    4
    """
    from quantizer import export

    return export(model, example_inputs)


def reference(q: GraphModule) -> nn.Module:
    """The quantized graph in device numerics: a module whose outputs, a tuple, are the chip's, bit for bit.

    * ``q``: a graph with q/dq ops, Quartic's or another quantizer's.

    The module takes the graph's inputs, of the types and shapes that it was made for, and runs at PyTorch's speed.
    Raises InputError for another model or other inputs, UnsupportedError that lists every node that the machine cannot
    compute.

    >>> (logits,) = quartic.reference(q)(*example)
    >>> print(tuple(logits.shape), logits.dtype)
    (1, 4) torch.float32
    """
    from quantizer.reference import reference

    return reference(q)


def compile(
    q: GraphModule | torch.export.ExportedProgram | str | Path,
    machine: str | Path | Machine = "edge28",
    *,
    fuse: bool = True,
    double_buffer: bool = True,
    share_loops: bool = True,
    schedule: Schedule | str | Path | None = None,
    validate: bool = False,
) -> Executable:
    """Quantized graph to a binary.

    * ``q``: the graph, an exported program, or the path of its ``.pt2``; Quartic's or another quantizer's.
    * ``machine``: a name (``quartic machines`` lists them), the path of a TOML file, or a value.
    * ``fuse``: put elementwise operators into the kernels in front of them; off costs time, never bits, as the next
      two.
    * ``double_buffer``: transfer the next tile while one is worked on.
    * ``share_loops``: run kernels that feed each other stripe by stripe, so that what is between them stays on chip.
    * ``schedule``: what an earlier compilation decided, edited or not, as a value or a TOML file.
    * ``validate``: execute every level of the compiler and the binary, and compare bits.

    Raises UnsupportedError that lists every operator that is refused, ScheduleError, DescriptionError for a machine,
    InputError for what is no quantized graph, and for a ``schedule`` beside options that turn off what it decides,
    and, from ``validate``, ValidationError.

    >>> exe = quartic.compile(q, "tiny", validate=True)
    >>> again = quartic.compile(q, "tiny", schedule=exe.schedule)
    >>> print(exe.machine, again.binary == exe.binary)
    tiny True
    """
    from quartic.building import build

    return build(q, machine, fuse, double_buffer, share_loops, schedule, validate)


def load(path: str | Path) -> Executable:
    """The executable in a ``.qbin`` file, to simulate or to inspect. Raises ContainerError.

    * ``path``: of the file that ``Executable.save`` or ``quartic compile`` wrote.

    >>> exe.save("model.qbin")
    >>> print(quartic.load("model.qbin").binary == exe.binary)
    True
    """
    return Executable.load(path)


def simulate(exe: Executable, *inputs: torch.Tensor) -> Run:
    """Run ``exe`` on the simulator: outputs, cycles, seconds, joules and the profile behind them.

    * ``exe``: what ``compile`` or ``load`` gives.
    * ``inputs``: a tensor for each input, of the types and shapes of ``exe.binary.inputs``.

    The program is proved free of races, deadlocks and uninitialised reads, once. Raises InputError where the inputs are
    not the executable's, SimulationError where the program breaks a rule.

    >>> run = quartic.simulate(exe, *example)
    >>> print(torch.equal(run.outputs[0], quartic.reference(q)(*example)[0]))
    True
    >>> print(run.cycles == sum(row.cycles for row in run.profile.rows("kernel")))
    True
    """
    from runtime.session import run

    return run(_executable(exe).binary, inputs)


def timing(exe: Executable) -> Run:
    """Time and energy of ``exe`` without data: what ``simulate`` gives but for the outputs, much sooner.

    * ``exe``: what ``compile`` or ``load`` gives.

    Raises InputError for anything else; a program that can never end, SimulationError where its figures are read.

    >>> print(quartic.timing(exe).cycles == run.cycles)
    True
    """
    from runtime.session import run_timing

    return run_timing(_executable(exe).binary)


def _executable(exe: object) -> Executable:
    if not isinstance(exe, Executable):
        raise InputError(f"what runs is a quartic.Executable, not {type(exe).__name__}; compile or load one first")
    return exe
