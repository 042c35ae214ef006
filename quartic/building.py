"""What ``quartic.compile`` does: the compiler, its record in the binary, and the last level of its validation."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compiler.pipeline import Options, compile_graph
from compiler.validate import Validator
from isa.container import Binary
from isa.energy import EnergyTable
from isa.errors import InputError, ScheduleError
from isa.machine import Machine
from quartic.executable import Executable
from quartic.models import load_schedule, quantized_graph
from quartic.version import __version__

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from compiler.ir.schedule import Schedule


def build(
    q: GraphModule | ExportedProgram | str | Path,
    machine: str | Path | Machine,
    fuse: bool,
    double_buffer: bool,
    share_loops: bool,
    schedule: Schedule | str | Path | None,
    validate: bool,
) -> Executable:
    """Parameters, result and errors are those of ``quartic.compile``."""
    target = machine if isinstance(machine, Machine) else Machine.load(machine)
    EnergyTable.load(target.energy)  # a binary carries its machine: one that names no table could never be priced
    decided = None if schedule is None else load_schedule(schedule)
    if decided is not None and not (fuse and double_buffer and share_loops):
        raise InputError(
            "a schedule says itself what is fused, double-buffered and shared: leave out the options that turn these "
            "off, or the schedule"
        )
    options = Options(fuse, double_buffer, share_loops, decided, validate)
    try:
        with _older_objects_at_rest():
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


@contextmanager
def _older_objects_at_rest() -> Generator[None]:
    """Collections do not visit what was there before: PyTorch's million objects, a tenth of a compilation's time."""
    if gc.get_freeze_count():  # the user's own, or an outer compilation's: not ours to thaw
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _validate_binary(binary: Binary, validator: Validator) -> None:
    """The last level: the simulator's outputs against those of the graph as imported. Raises ValidationError."""
    from runtime.session import run

    for probe in validator.probes:
        outputs = run(binary, [torch.from_numpy(array) for array in probe.inputs]).outputs
        validator.compare("the binary on the simulator", probe, [o.numpy() for o in outputs])
