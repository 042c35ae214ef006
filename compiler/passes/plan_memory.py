"""Pass ``plan-memory``: addresses for every tensor and ring of a tiled module."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from compiler.analysis.graph import KernelGraph, Step, build_graph
from compiler.analysis.memory import MemoryPlan, plan_memory
from compiler.backend.pack import ConstantPool, packed
from compiler.dialects.tile import ChannelOp, KernelOp, PlaceAttr
from compiler.ir.place import Place, packed_strides, stored
from compiler.ir.schedule import Schedule
from isa.errors import ScheduleError
from isa.instructions import Region
from isa.machine import Machine


@dataclass(frozen=True)
class PlanMemoryPass(ModulePass):
    """Place tensors in SRAM or DRAM as the schedules say, and rings in SRAM and accumulators."""

    name = "plan-memory"

    machine: str = "edge28"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        plan_module(op, Machine.load(self.machine))


def plan_module(module: ModuleOp, machine: Machine) -> tuple[KernelGraph, MemoryPlan]:
    """Set ``places`` of every tile.kernel and ``address`` of every ring. Raises ScheduleError."""
    graph, kernels, plan = computed_plan(module, machine)
    pool = ConstantPool()
    for step, kernel in zip(graph.steps, kernels, strict=True):
        kernel.places = ArrayAttr([PlaceAttr(p) for p in _places(graph, step, plan, pool)])
        for op in kernel.steps.block.ops:
            if isinstance(op, ChannelOp):
                key = (step.index, op.role.data, op.operand.value.data)
                op.address = IntegerAttr(plan.rings[key], i64)
    return graph, plan


def computed_plan(module: ModuleOp, machine: Machine) -> tuple[KernelGraph, list[KernelOp], MemoryPlan]:
    """What :func:`plan_module` would write into the module, and its tiled kernels in program order."""
    graph = build_graph(module)
    kernels = [k for k in (s.op for s in graph.steps) if isinstance(k, KernelOp)]
    if len(kernels) < len(graph.steps):
        name = next(s.spec.name for s in graph.steps if not isinstance(s.op, KernelOp))
        raise ScheduleError(f"kernel {name!r} has no schedule: run tile-kernels first")
    schedule = Schedule(machine.name, tuple(k.schedule.data for k in kernels))
    return graph, kernels, plan_memory(graph, schedule, machine)


def _places(graph: KernelGraph, step: Step, plan: MemoryPlan, pool: ConstantPool) -> list[Place]:
    """Places of the spec's operands, then of the result. Operands that no box is read of need no real one."""
    spec = step.spec
    boxes = {operand for _, operand in spec.reads}
    places: list[Place] = []
    for i, dtype in enumerate(spec.dtypes):
        lies, element = stored(spec.operands[i], dtype)
        strides = packed_strides(lies, element)
        if i in boxes and i in spec.constants:
            offset = pool.add(packed(spec.constants[i], dtype))
            places.append(Place(Region.CONSTANTS, offset, strides, element))
        elif i in boxes:
            value = graph.read(step, i)
            places.append(plan.place(value.storage, value.offset, value.strides, value.element))
        else:
            places.append(Place(Region.CONSTANTS, 0, strides, element))
    result = graph.written(step)
    return [*places, plan.place(result.storage, result.offset, result.strides, result.element)]
