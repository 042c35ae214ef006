"""A planned module to a binary: instructions, semaphores, constants, locations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from compiler.analysis.graph import KernelGraph, Step
from compiler.analysis.memory import MemoryPlan
from compiler.analysis.stripes import on_matrix_unit
from compiler.backend.dependences import dependences
from compiler.backend.emit_kernel import KernelEmitter
from compiler.backend.emitter import Emitter
from compiler.backend.interleave import interleave
from compiler.backend.pack import ConstantPool, packed
from compiler.backend.synchronize import synchronize
from compiler.backend.widths import dtype_of
from compiler.dialects.qnn_base import shape_of
from compiler.dialects.tile import KernelOp
from compiler.ir.kernel import KernelSpec
from compiler.ir.location import blamed, origin
from compiler.ir.tiling import Tiling, Turn
from isa.container import Binary, Location, TensorInfo
from isa.errors import UnsupportedError
from isa.instructions import DType, Halt, Region
from isa.machine import Machine
from isa.program import encode

END = Location("", "overhead:end of program", "", "")


@dataclass
class _Locations:
    """Each distinct (kernel, node) once; the anchor's carries the kernel's multiply-accumulates."""

    rows: list[Location] = field(default_factory=list[Location])
    _index: dict[tuple[str, str, str, str], int] = field(default_factory=dict[tuple[str, str, str, str], int])

    def of(self, kernel: str, op: Operation) -> int:
        """Index of the location of a step."""
        found = origin(op)
        key = (kernel, f"overhead:{kernel}", "", "")
        if found is not None:
            key = (kernel, found.node, found.module, found.source)
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(Location(*key))
        return self._index[key]

    def credit(self, kernel: str, op: Operation, macs: int) -> None:
        """Add useful multiply-accumulates to the location of ``op``."""
        index = self.of(kernel, op)
        self.rows[index] = replace(self.rows[index], macs=self.rows[index].macs + macs)


def emit(
    module: ModuleOp,
    graph: KernelGraph,
    plan: MemoryPlan,
    machine: Machine,
    names: tuple[Sequence[str], Sequence[str]],
    provenance: Mapping[str, str],
) -> Binary:
    """The binary of a module whose memory is planned; ``names`` are those of inputs and outputs."""
    emitter, pool, locations = Emitter(), ConstantPool(), _Locations()
    kernels = [(s, s.op) for s in graph.steps if isinstance(s.op, KernelOp)]
    for step, kernel in kernels:
        _stream_constants(step, kernel, pool)
    for loop, delays in _loops(kernels, plan):
        _emit_loop(loop, delays, machine, pool, emitter, locations)
    waits = dependences(emitter.instructions)
    order = interleave(emitter.instructions, waits, machine)
    synchronized = synchronize(emitter.instructions, order, waits, machine)
    spans = _spans([emitter.locations[i] for i in synchronized.origin])
    end = len(locations.rows)
    return Binary(
        machine=machine,
        code=encode([*synchronized.instructions, Halt()]),
        constants=bytes(pool.data),
        inputs=_tensors(graph, plan, graph.inputs, names[0], Region.INPUT),
        outputs=_tensors(graph, plan, graph.outputs, names[1], Region.OUTPUT),
        input_bytes=plan.input_bytes,
        output_bytes=plan.output_bytes,
        arena_bytes=plan.arena_bytes,
        locations=(*locations.rows, END),
        spans=(*spans, (1, end)),
        provenance=provenance,
    )


def _stream_constants(step: Step, kernel: KernelOp, pool: ConstantPool) -> None:
    """Constants that ``plan-memory`` gave an offset come first, in the same order."""
    assert kernel.places is not None
    for i in sorted({operand for _, operand in step.spec.reads}):
        if i in step.spec.constants:
            offset = pool.add(packed(step.spec.constants[i], step.spec.dtypes[i]))
            assert offset == kernel.places.data[i].data.offset


Loop = list[tuple[Step, KernelOp]]


def _loops(kernels: Sequence[tuple[Step, KernelOp]], plan: MemoryPlan) -> Iterator[tuple[Loop, list[int]]]:
    """Kernels that share a loop, in program order, and by how many stripes each is behind."""
    behind = {i: delay for loop in plan.loops for i, delay in loop.delays.items()}
    loop: Loop = []
    for step, kernel in kernels:
        loop.append((step, kernel))
        if not kernel.schedule.data.shares:
            yield loop, [behind.get(member.index, 0) for member, _ in loop]
            loop = []


def _emit_loop(
    loop: Loop, delays: list[int], machine: Machine, pool: ConstantPool, emitter: Emitter, locations: _Locations
) -> None:
    """The kernels of a loop in turn, stripe by stripe; most loops are of one kernel in one turn."""
    emitters: list[KernelEmitter] = []
    for step, kernel in loop:
        assert kernel.places is not None
        places = tuple(p.data for p in kernel.places.data)
        tiling = Tiling(step.spec, kernel.schedule.data)
        locate = partial(locations.of, step.spec.name)
        with blamed(kernel):
            _check_vector_unit(step.spec, machine)
        emitters.append(KernelEmitter(kernel, tiling, places, machine, pool, emitter, locate))
    turns = [each.tiling.turns() for each in emitters]
    for time in range(len(turns[0]) + max(delays)):
        streams: dict[bool, list[Iterator[None]]] = {True: [], False: []}
        sizes = {True: 0, False: 0}
        for (step, _), each, all_turns, delay in zip(loop, emitters, turns, delays, strict=True):
            if 0 <= time - delay < len(all_turns):
                turn, kind = all_turns[time - delay], on_matrix_unit(step)
                streams[kind].append(_blamed_tiles(each, turn))
                sizes[kind] += 1 if turn is None else each.tiling.tiles_of(turn)
        _side_by_side(chain(*streams[True]), sizes[True], chain(*streams[False]), sizes[False])
    for step, kernel in loop:
        if step.spec.macs:
            locations.credit(step.spec.name, kernel, step.spec.macs)


def _blamed_tiles(emitter: KernelEmitter, turn: Turn | None) -> Iterator[None]:
    """The tiles of a turn, one by one."""
    with blamed(emitter.kernel):
        yield from emitter.emit(turn)
    yield


def _side_by_side(one: Iterator[None], many: int, other: Iterator[None], few: int) -> None:
    """Advance two streams of ``many`` and ``few`` tiles so that both end together."""
    done = 0
    for tile, _ in enumerate(one, 1):
        while done < tile * few // max(many, 1):
            next(other, None)
            done += 1
    for _ in other:
        pass


def _check_vector_unit(spec: KernelSpec, machine: Machine) -> None:
    """UnsupportedError where a kernel's vector programs, which lie one behind the other, exceed the machine's unit."""
    ops = [op for program in (spec.program, spec.pool_program) if program is not None for op in program.ops]
    registers = max((max(op.dst, op.a) + 1 for op in ops), default=0)
    vcu = machine.vcu
    for what, needed, found in (("slots", len(ops), vcu.slots), ("registers", registers, vcu.registers)):
        if needed > found:
            raise UnsupportedError(
                f"its vector program needs {needed} {what}, {machine.name} has [vcu] {what} = {found}: "
                "give the machine more, or compile without fusion"
            )


def _spans(indices: list[int]) -> tuple[tuple[int, int], ...]:
    """Run-length code."""
    spans: list[tuple[int, int]] = []
    for index in indices:
        if spans and spans[-1][1] == index:
            spans[-1] = (spans[-1][0] + 1, index)
        else:
            spans.append((1, index))
    return tuple(spans)


def _tensors(
    graph: KernelGraph, plan: MemoryPlan, values: Sequence[SSAValue], names: Sequence[str], region: Region
) -> tuple[TensorInfo, ...]:
    infos: list[TensorInfo] = []
    for name, value in zip(names, values, strict=True):
        placed = graph.placed[value]
        assert placed.storage.region is region
        dtype = dtype_of(value)
        if dtype is DType.I4:
            raise UnsupportedError(
                f"{name!r} is a 4-bit {region.name.lower()} of the graph: quantize it inside, or to 8 bits"
            )
        infos.append(TensorInfo(name, shape_of(value), dtype, plan.storages[placed.storage.index] + placed.offset))
    return tuple(infos)
