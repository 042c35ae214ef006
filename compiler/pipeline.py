"""The stages, in order: FX graph -> qnn -> kern -> tile -> binary."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from compiler.analysis.cost import acc_pixel_bytes
from compiler.analysis.memory import MemoryPlan
from compiler.backend.emit import emit
from compiler.defects import naming
from compiler.ir.schedule import Schedule
from compiler.ir.signature import input_names, main_function, output_names
from compiler.passes.canonicalize_qnn import CanonicalizeQnnPass
from compiler.passes.delay_kernels import delay_kernels
from compiler.passes.fold_constants import FoldConstantsPass
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options as FuseOptions
from compiler.passes.legalize_linear import LegalizeLinearPass
from compiler.passes.legalize_rows import LegalizeRowsPass
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.plan_memory import plan_module
from compiler.passes.tile_kernels import tile_kernels
from compiler.validate import Validator
from isa.container import Binary
from isa.machine import Machine

LEGALIZE = (FoldConstantsPass(), LegalizeLinearPass(), LegalizeRowsPass(), CanonicalizeQnnPass())


@dataclass(frozen=True)
class Options:
    """What the compiler may do. Bits never depend on it.

    ``schedule`` fixes fusion, tilings, ring depths and placement; without it the cost model decides.
    """

    fuse: bool = True
    double_buffer: bool = True
    share_loops: bool = True
    schedule: Schedule | None = None
    validate: bool = False
    """Execute the module after every pass and compare bits: ValidationError names the pass and the operation."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A binary, the schedule that made it, seconds per stage and the memory plan."""

    binary: Binary
    schedule: Schedule
    seconds: dict[str, float]
    memory: MemoryPlan
    validator: Validator | None = None
    """What checked the levels, so that the face can check the binary; None unless asked for."""


@dataclass
class Stopwatch:
    """Seconds per stage, and what watches the module after each pass."""

    after: Callable[[str, ModuleOp], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the time of the block to the stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def step(self, stage: str, name: str) -> Generator[None]:
        """As ``stage``, and an exception that the block did not foresee says that it was in pass ``name``."""
        with self.stage(stage), naming(name):
            yield

    def passed(self, name: str, module: ModuleOp) -> None:
        """Show the module to the observer after pass ``name``."""
        if self.after is not None:
            with self.stage("validate"):
                self.after(name, module)


def compile_graph(graph: Any, machine: Machine, options: Options | None = None) -> Compiled:
    """Compile a quantized ``torch.fx.GraphModule`` or ``ExportedProgram``.

    Raises UnsupportedError naming every operator that cannot be compiled, or the pass and the operation at which the
    compiler itself failed, and ScheduleError.
    """
    from compiler.frontend.export import import_graph  # torch is imported only when there is a graph

    watch = Stopwatch()
    with watch.stage("frontend"):
        module = import_graph(graph)
    return compile_module(module, machine, options or Options(), watch)


def compile_module(
    module: ModuleOp, machine: Machine, options: Options, watch: Stopwatch | None = None
) -> Compiled:
    """Compile a qnn module; the module is rewritten in place."""
    watch = watch or Stopwatch()
    validator = _validator(module, watch) if options.validate else None
    form_kernels(module, machine, options, watch)
    with watch.step("tile", "tile-kernels"):
        slots = 2 if options.double_buffer else 1
        schedule = tile_kernels(module, machine, options.schedule, slots, options.share_loops)
    watch.passed("tile-kernels", module)
    with watch.step("plan", "plan-memory"):
        layout, plan = plan_module(module, machine)
    with watch.step("emit", "emit"):
        main = main_function(module)
        names = (input_names(main), output_names(main))
        binary = emit(module, layout, plan, machine, names, {})
    return Compiled(binary, schedule, watch.seconds, plan, validator)


def form_kernels(module: ModuleOp, machine: Machine, options: Options, watch: Stopwatch | None = None) -> None:
    """From operations to kernels without schedules, in the order in which they run (qnn -> kern); in place."""
    watch = watch or Stopwatch()
    for step in LEGALIZE:
        with watch.step("legalize", step.name):
            step.apply(Context(), module)
        watch.passed(step.name, module)
    groups = options.schedule.groups() if options.schedule else ()
    with watch.step("fuse", "fuse-kernels"):
        lanes = {mode: machine.mmu.shape(mode).n for mode in machine.mmu.modes}
        sram = machine.sram.bytes
        limits = (_pool_taps(machine), _row_elements(machine), sram * 3 // 4, sram // 2, lanes)
        fuse_kernels(module, FuseOptions(options.fuse, options.fuse, groups, *limits))
    watch.passed("fuse-kernels", module)
    with watch.step("fuse", "materialize-copies"):
        materialize_copies(module, machine.sram.bytes)
    watch.passed("materialize-copies", module)
    with watch.step("fuse", "delay-kernels"):
        delay_kernels(module)
    watch.passed("delay-kernels", module)


def _pool_taps(machine: Machine) -> int:
    """Pixels of the fewest channels that half of the accumulators hold."""
    return machine.acc.bytes // (2 * max(acc_pixel_bytes(1, machine, mode) for mode in machine.mmu.modes))


def _row_elements(machine: Machine) -> int:
    """Scores of one row that half of the accumulators hold beside a row of the second product."""
    return machine.acc.bytes // 4 // 4


def _validator(module: ModuleOp, watch: Stopwatch) -> Validator:
    with watch.stage("validate"):
        validator = Validator(module)
    watch.after = validator.check
    return validator
