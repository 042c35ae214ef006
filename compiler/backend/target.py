"""Target ``npu``: the assembly of a planned module, for ``quartic opt -t npu``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.target import Target

from compiler.backend.emit import emit
from compiler.dialects.tile import ChannelOp, KernelOp
from compiler.ir.signature import input_names, main_function, output_names
from compiler.passes.plan_memory import computed_plan
from isa.assembler import disassemble_binary
from isa.container import Binary
from isa.errors import ScheduleError
from isa.machine import Machine


@dataclass(frozen=True)
class NpuTarget(Target):
    """Assembly for ``machine``, with the kernel and node of each group of instructions."""

    name = "npu"

    machine: str = "edge28"

    def emit(self, ctx: Context, module: ModuleOp, output: IO[str]) -> None:
        """Write the text; ScheduleError when ``plan-memory`` has not run."""
        output.write(disassemble_binary(planned_binary(module, Machine.load(self.machine))))


def planned_binary(module: ModuleOp, machine: Machine) -> Binary:
    """The binary of a module with addresses, which stay as they are."""
    graph, kernels, plan = computed_plan(module, machine)
    for kernel in kernels:
        if not _has_addresses(kernel):
            raise ScheduleError(f"kernel {kernel.kernel.data!r} has no addresses: run plan-memory first")
    main = main_function(module)
    return emit(module, graph, plan, machine, (input_names(main), output_names(main)), {})


def _has_addresses(kernel: KernelOp) -> bool:
    rings = (op for op in kernel.steps.block.ops if isinstance(op, ChannelOp))
    return kernel.places is not None and all(ring.address is not None for ring in rings)
