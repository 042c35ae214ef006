"""The verbs. Each imports its part when called, so that ``import quartic`` stays fast."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isa.errors import InputError, ScheduleError
from quartic.executable import Executable
from quartic.version import __version__

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from compiler.ir.schedule import Schedule
    from compiler.validate import Validator
    from isa.container import Binary
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

    ``example_inputs`` fixes the shapes, batch included; each batch is a tuple like it. ``recipe`` is a preset's name,
    a TOML file or a value. Where its stages take gradients they are of ``loss(output, target)``, one of ``targets``
    per batch, or else of the squared error against the float model. They work on ``device``, are the same for the same
    ``seed``, keep what is decided in the folder ``resume``, for a second run to go on from, and tell ``progress`` of
    every part. Raises QuantizationError, and DescriptionError for a file that breaks the schema.
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
    of the recipe's [train]; in eval mode it computes what the converted graph will. Raises QuantizationError.
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
    """The steps of [train] on what ``prepare_qat`` made, which is returned, in eval mode.

    ``loss`` of output and target; ``targets`` one per batch, and both begin anew when they end. Without targets the
    float model's outputs are the targets, without a loss the squared error. ``optimizer`` makes one of groups of
    parameters, in place of SGD. Raises QuantizationError.
    """
    from quantizer.train.loop import train

    return train(trainable, batches, loss, targets=targets, optimizer=optimizer, device=device, progress=progress)


def convert(trainable: Trainable | GraphModule) -> GraphModule:
    """What was trained, or a graph of the quantizer's ``prepare`` that was calibrated, as a graph with q/dq ops."""
    from quantizer import convert

    return convert(trainable)


def recipe(name_or_path: str | Path) -> Recipe:
    """How a model is to be quantized: a preset (``quartic recipes`` lists them) or a TOML file, as a value.

    Raises QuantizationError for an unknown preset, DescriptionError for a file that breaks the schema.
    """
    from quantizer.recipe import Recipe

    return Recipe.load(name_or_path)


def sensitivity(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    recipe: str | Path | Recipe = "w8a8",
    **options: Any,
) -> Sensitivity:
    """What the outputs lose when one layer alone is quantized, for every layer and width.

    Options are those of ``quantizer.sensitivity.sensitivity``: ``by`` "sqnr", "metric" or "fisher", ``widths``,
    ``samples``, ``targets``, ``metric``, ``loss``, ``progress``. Raises QuantizationError.
    """
    from quantizer.sensitivity import sensitivity

    return sensitivity(model, example_inputs, calibration_batches, recipe, **options)


def assign(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    machine: str | Path | Machine = "edge28",
    recipe: str | Path | Recipe = "w8a8",
    **options: Any,
) -> Assignment:
    """A width for every layer within a budget: ``latency_seconds`` or ``energy_joules`` of the simulated machine at the
    least loss, or ``sqnr_db`` of the outputs at the least latency or energy (``minimise``).

    Gives a recipe, the quantized graph and the binary, with what was predicted and what was simulated; further options
    are those of ``quartic.assignment.assign``, whose ``assigner`` serves many budgets. Raises AssignmentError.
    """
    from quartic.assignment import assign

    return assign(model, example_inputs, calibration_batches, machine, recipe, **options)


def export(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> GraphModule:
    """Float ``model`` as a float graph in operators that the machine has, for quantizers other than Quartic's.

    Composite operators are said in others: attention becomes two products and a softmax, so that each can be annotated.
    ``prepare_pt2e`` takes the graph; what ``convert_pt2e`` makes of it compiles. ``example_inputs`` fixes the shapes,
    batch included. Raises QuantizationError.
    """
    from quantizer import export

    return export(model, example_inputs)


def reference(q: GraphModule) -> nn.Module:
    """The quantized graph in device numerics: its outputs (a tuple) are the chip's, bit for bit."""
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
    """Quantized graph (or its ``.pt2``) to a binary for ``machine`` (name, TOML path or value).

    ``fuse``, ``double_buffer`` and ``share_loops`` (kernels that feed each other run stripe by stripe) cost time or
    traffic where they are off, never bits. ``schedule`` gives back what an earlier compilation decided, edited or not;
    ``validate`` executes every level of the compiler and the binary and compares bits. Raises UnsupportedError,
    ScheduleError, DescriptionError or, from ``validate``, ValidationError.
    """
    from compiler.pipeline import Options, compile_graph
    from isa.energy import EnergyTable
    from isa.machine import Machine
    from quartic.models import load_schedule, quantized_graph

    target = machine if isinstance(machine, Machine) else Machine.load(machine)
    EnergyTable.load(target.energy)  # a binary carries its machine: one that names no table could never be priced
    decided = load_schedule(schedule) if isinstance(schedule, str | Path) else schedule
    options = Options(fuse, double_buffer, share_loops, decided, validate)
    try:
        compiled = compile_graph(quantized_graph(q), target, options)
    except ScheduleError as error:
        if not isinstance(schedule, str | Path):
            raise
        raise ScheduleError(f"{schedule}: {error}") from error
    if compiled.validator is not None:
        _validate_binary(compiled.binary, compiled.validator)
    made = {
        "quartic": __version__,
        "schedule_sha256": hashlib.sha256(compiled.schedule.to_toml().encode()).hexdigest(),
    }
    binary = replace(compiled.binary, provenance={**compiled.binary.provenance, **made})
    return Executable(binary, compiled.schedule, compiled.seconds, compiled.memory.sram_peak_bytes)


def _validate_binary(binary: Binary, validator: Validator) -> None:
    """The last level: the simulator's outputs against those of the graph as imported. Raises ValidationError."""
    import torch

    from runtime.session import run

    for probe in validator.probes:
        outputs = run(binary, [torch.from_numpy(array) for array in probe.inputs]).outputs
        validator.compare("the binary on the simulator", probe, [o.numpy() for o in outputs])


def load(path: str | Path) -> Executable:
    """The executable in a ``.qbin`` file. Raises ContainerError."""
    return Executable.load(path)


def simulate(exe: Executable, *inputs: torch.Tensor) -> Run:
    """Run ``exe`` on the simulator: outputs, cycles, seconds, joules and the profile behind them.

    Raises InputError where the inputs are not the executable's, SimulationError where the program breaks a rule.
    """
    from runtime.session import run

    return run(_executable(exe).binary, inputs)


def timing(exe: Executable) -> Run:
    """Time and energy of ``exe`` without data: what ``simulate`` gives but for the outputs, much sooner."""
    from runtime.session import run_timing

    return run_timing(_executable(exe).binary)


def _executable(exe: object) -> Executable:
    if not isinstance(exe, Executable):
        raise InputError(f"what runs is a quartic.Executable, not {type(exe).__name__}; compile or load one first")
    return exe
