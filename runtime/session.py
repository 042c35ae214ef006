"""Run a binary: function, then time, then energy, under the checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from isa.access import Memory
from isa.container import Binary, TensorInfo
from isa.energy import EnergyModel
from isa.errors import InputError
from runtime.checks import Names, check_binary
from runtime.energy import account_energy
from runtime.functional import Context, execute
from runtime.memory import TORCH_TYPES, Memories
from runtime.profile import Profile, make_profile
from runtime.report import write_report
from runtime.timing import simulate_time
from runtime.trace import write_trace


@dataclass(frozen=True)
class Run:
    """What one run of a binary gave: no outputs if only time was asked for, no profile if it was not."""

    outputs: tuple[torch.Tensor, ...]
    timed: Profile | None

    @property
    def profile(self) -> Profile:
        """Cycles and energy by instruction, kernel, node and module. Raises InputError if the run was not timed."""
        if self.timed is None:
            raise InputError("this run was made with timing=False: it has no cycles and no energy")
        return self.timed

    @property
    def cycles(self) -> int:
        """Cycles of the whole program."""
        return self.profile.cycles

    @property
    def seconds(self) -> float:
        """Cycles at the machine's clock."""
        return self.profile.seconds

    @property
    def joules(self) -> float:
        """Nominal energy."""
        return self.profile.joules

    def report(self, path: str | Path) -> None:
        """Write the profile as one self-contained HTML page, whole or not at all."""
        write_report(self.profile, path)

    def trace(self, path: str | Path) -> None:
        """Write the time line for https://ui.perfetto.dev, whole or not at all."""
        write_trace(self.profile.binary, self.profile.timeline, path)


def run(binary: Binary, inputs: Sequence[torch.Tensor], *, checks: bool = True, timing: bool = True) -> Run:
    """Simulate ``binary`` on ``inputs``, tensors of the shapes and types of ``binary.inputs``, in that order.

    ``checks`` also proves the program free of races, deadlocks and uninitialised reads, once per binary; accesses
    outside a space are always errors. Raises InputError for inputs that do not fit, SimulationError for
    programs that break a rule.
    """
    check_inputs(binary.inputs, inputs)
    if checks:
        check_binary(binary)
    outputs = compute(binary, inputs)
    return Run(outputs, profile(binary) if timing else None)


def run_timing(binary: Binary, *, checks: bool = False) -> Run:
    """Time and energy of ``binary`` alone, which depend on no data. Raises SimulationError."""
    if checks:
        check_binary(binary)
    return Run((), profile(binary))


def profile(binary: Binary) -> Profile:
    """The profile of a run of ``binary``."""
    model = EnergyModel.of(binary.machine)
    timeline = simulate_time(binary.instructions, binary.machine)
    return make_profile(binary, timeline, account_energy(timeline, model), model.table)


def check_inputs(expected: Sequence[TensorInfo], inputs: Sequence[torch.Tensor]) -> None:
    """Raise InputError unless ``inputs`` fit ``expected`` in number, shape and type."""
    if len(inputs) != len(expected):
        names = ", ".join(info.name for info in expected)
        raise InputError(f"{len(inputs)} inputs given: must be {len(expected)} ({names})")
    for info, tensor in zip(expected, inputs, strict=True):
        if not isinstance(tensor, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"input {info.name!r} is a {type(tensor).__name__}: must be a torch.Tensor")
        if tuple(tensor.shape) != info.shape:
            raise InputError(f"input {info.name!r} has shape {tuple(tensor.shape)}: must be {info.shape}")
        if tensor.dtype != TORCH_TYPES[info.dtype]:
            raise InputError(
                f"input {info.name!r} is {tensor.dtype}: must be {TORCH_TYPES[info.dtype]}; convert it with .to()"
            )


def compute(binary: Binary, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The outputs of ``binary`` for inputs that fit, in program order. Raises SimulationError."""
    regions = {
        Memory.CODE: _region(binary.code),
        Memory.CONSTANTS: _region(binary.constants),
        Memory.INPUT: torch.zeros(binary.input_bytes, dtype=torch.uint8),
        Memory.OUTPUT: torch.zeros(binary.output_bytes, dtype=torch.uint8),
        Memory.ARENA: torch.zeros(binary.arena_bytes, dtype=torch.uint8),
    }
    for info, tensor in zip(binary.inputs, inputs, strict=True):
        _tensor(regions[Memory.INPUT], info).copy_(tensor.detach())
    context = Context(binary.machine, Memories(binary.machine, regions))
    with torch.no_grad():
        execute(binary.instructions, context, Names(binary).source)
    return tuple(_tensor(regions[Memory.OUTPUT], info).clone() for info in binary.outputs)


def _region(data: bytes) -> torch.Tensor:
    """A copy of ``data``, since torch takes no read-only memory."""
    region = torch.empty(len(data), dtype=torch.uint8)
    region.numpy()[:] = np.frombuffer(data, dtype=np.uint8)
    return region


def _tensor(region: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    """The tensor ``info`` as a view of its region."""
    return region[info.offset : info.offset + info.size_bytes].view(TORCH_TYPES[info.dtype]).view(info.shape)
