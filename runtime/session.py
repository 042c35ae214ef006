"""Run a binary: function under the checks, and time and energy where they are asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from isa.access import Memory
from isa.container import Binary, TensorInfo
from isa.energy import EnergyModel
from isa.errors import InputError, SimulationError
from isa.numerics import canonical
from runtime.checks import Names, check_binary, identity, sizes
from runtime.energy import account_energy
from runtime.functional import Context, Step, bind
from runtime.memory import TORCH_TYPES, Memories
from runtime.profile import Profile, make_profile
from runtime.report import write_report
from runtime.timing import simulate_time
from runtime.trace import write_trace


@dataclass(frozen=True)
class Run:
    """What one run of a binary gave."""

    outputs: tuple[torch.Tensor, ...]
    """The tensors that the chip stored, of the shapes and types of ``binary.outputs``, in that order; none if only time
    was asked for."""
    binary: Binary
    """The program that ran."""

    @cached_property
    def profile(self) -> Profile:
        """Cycles and energy by instruction, kernel, node and module; time is simulated when first asked for.

        Raises SimulationError for runs far larger than any memory, and for deadlocks that no check has found.
        """
        model = EnergyModel.of(self.binary.machine)
        try:
            timeline = simulate_time(self.binary.code, self.binary.machine)
        except OverflowError:
            raise SimulationError(TOO_LARGE) from None
        if any(max(cost.cycles, *cost.counts) > LARGEST_COUNT for cost in timeline.prices.costs):
            raise SimulationError(TOO_LARGE)
        return make_profile(self.binary, timeline, account_energy(timeline, model), model.table)

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
        """Nominal energy of all of it, DRAM and leakage with it."""
        return self.profile.joules

    def report(self, path: str | Path) -> None:
        """Write the profile as one self-contained HTML page, whole or not at all.

        * ``path``: of the ``.html`` file.
        """
        write_report(self.profile, path)

    def trace(self, path: str | Path) -> None:
        """Write the time line for https://ui.perfetto.dev, whole or not at all.

        * ``path``: of the ``.json`` file.
        """
        write_trace(self.binary, self.profile.timeline, path)


def run(binary: Binary, inputs: Sequence[torch.Tensor], *, checks: bool = True) -> Run:
    """Simulate ``binary`` on ``inputs``, tensors of the shapes and types of ``binary.inputs``, in that order.

    ``checks`` also proves the program free of races, deadlocks and uninitialised reads, once per binary; accesses
    outside a space are always errors. Raises InputError for inputs that do not fit, SimulationError for
    programs that break a rule.
    """
    check_inputs(binary.inputs, inputs)
    if checks:
        check_binary(binary)
    return Run(compute(binary, inputs, clear=not checks), binary)


def run_timing(binary: Binary, *, checks: bool = False) -> Run:
    """Time and energy of ``binary`` alone, which depend on no data. Raises SimulationError."""
    if checks:
        check_binary(binary)
    return Run((), binary)


def check_inputs(expected: Sequence[TensorInfo], inputs: Sequence[torch.Tensor]) -> None:
    """Raise InputError unless ``inputs`` fit ``expected`` in number, shape and type."""
    if len(inputs) != len(expected):
        names = ", ".join(info.name for info in expected)
        raise InputError(f"{len(inputs)} inputs given: must be {len(expected)} ({names})")
    for info, tensor in zip(expected, inputs, strict=True):
        if not isinstance(tensor, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"input {info.name!r} is a {type(tensor).__name__}: must be a torch.Tensor")
        if tensor.is_meta:
            raise InputError(f"input {info.name!r} is on the device 'meta', which holds no values; give it values")
        if tuple(tensor.shape) != info.shape:
            found = f"input {info.name!r} has shape {tuple(tensor.shape)}"
            raise InputError(f"{found}: must be {info.shape}{_batch(tensor, info)}")
        if tensor.dtype != TORCH_TYPES[info.dtype]:
            raise InputError(
                f"input {info.name!r} is {tensor.dtype}: must be {TORCH_TYPES[info.dtype]}; convert it with .to()"
            )


def _batch(tensor: torch.Tensor, info: TensorInfo) -> str:
    """What to do where only the batch differs."""
    if not info.shape or tuple(tensor.shape[1:]) != info.shape[1:]:
        return ""
    return f"; give {info.shape[0]} at a time, or quantize with example inputs of that batch"


def compute(binary: Binary, inputs: Sequence[torch.Tensor], *, clear: bool = True) -> tuple[torch.Tensor, ...]:
    """The outputs of ``binary`` for inputs that fit, in program order. Raises SimulationError.

    Without ``clear``, bytes that nothing wrote hold what an earlier run left: for programs known to read none.
    """
    key = (identity(binary), binary.constants)
    # Taken out while it runs, so that two threads never share memories.
    prepared = _prepared.pop(key, None) or Prepared(binary)
    outputs = prepared.run(inputs, clear)
    while len(_prepared) >= KEPT_BINARIES:
        _prepared.pop(next(iter(_prepared)))
    _prepared[key] = prepared
    return outputs


class Prepared:
    """A binary bound to memories of its own: every later run skips decoding, checks and address arithmetic."""

    def __init__(self, binary: Binary) -> None:
        self.binary = binary
        regions = {space: torch.zeros(size, dtype=torch.uint8) for space, size in sizes(binary).items()}
        for space, data in ((Memory.CODE, binary.code), (Memory.CONSTANTS, binary.constants)):
            regions[space].numpy()[:] = np.frombuffer(data, dtype=np.uint8)
        self.memory = Memories(binary.machine, regions)
        self.steps: list[Step] | None = None

    def run(self, inputs: Sequence[torch.Tensor], clear: bool) -> tuple[torch.Tensor, ...]:
        """The outputs for ``inputs``. Raises SimulationError."""
        binary, flat = self.binary, self.memory.bytes
        for space in (Memory.SRAM, Memory.ACC, Memory.OUTPUT, Memory.ARENA) if clear else ():
            flat[space].zero_()
        for info, tensor in zip(binary.inputs, inputs, strict=True):
            _tensor(flat[Memory.INPUT], info).copy_(_canonical(tensor.detach()))
        with torch.no_grad(), _one_thread():
            for step in self._steps():
                step()
        return tuple(_tensor(flat[Memory.OUTPUT], info).clone() for info in binary.outputs)

    def _steps(self) -> Iterator[Step]:
        """The program's steps, made while they run the first time; kept unless they are very many."""
        if self.steps is not None:
            yield from self.steps
            return
        made: list[Step] = []
        keep = len(self.binary.instructions) <= KEPT_INSTRUCTIONS
        context = Context(self.binary.machine, self.memory)
        for step in bind(self.binary.instructions, context, Names(self.binary).source):
            if keep:
                made.append(step)
            yield step
        self.steps = made if keep else None


LARGEST_COUNT = 1 << 44
"""Cycles or events of one instruction: beyond every legal run, and femtojoules of it still fit 64 bits."""
TOO_LARGE = "an instruction's cycles or events pass 2^44, which no run within the memories does; run with checks"
KEPT_BINARIES = 2
KEPT_INSTRUCTIONS = 1 << 16
_prepared: dict[object, Prepared] = {}


@contextmanager
def _one_thread() -> Generator[None]:
    """Tiles are small: a second thread costs more than it saves, and on a busy machine a hundred times more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _canonical(x: torch.Tensor) -> torch.Tensor:
    """The machine has one NaN (decision 0014), so that a copy of an input has the bits of what is computed of it."""
    return canonical(x) if x.dtype == torch.float32 else x


def _tensor(region: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    """The tensor ``info`` as a view of its region."""
    return region[info.offset : info.offset + info.size_bytes].view(TORCH_TYPES[info.dtype]).view(info.shape)
