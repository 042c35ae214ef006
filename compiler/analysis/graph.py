"""The kern level as the planner sees it: kernels in program order, and the storage behind every value.

Views and concatenations are names for bytes of other storage: each value is a (storage, byte offset,
strides). A storage is alive from the kernel that first writes it to the last that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from xdsl.dialects.builtin import IntegerType, ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue

from compiler.backend.kernel_spec import lower_kernel
from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import shape_of, tensor
from compiler.ir.kernel import KernelSpec, Shape4
from compiler.ir.layout import Alias, Factor, Walk, nhwc
from compiler.ir.location import blamed, origins
from compiler.ir.place import ELEMENT_BYTES, packed_strides, planar_strides, stored
from compiler.ir.signature import main_function
from compiler.ir.tiling import Range
from isa.errors import UnsupportedError
from isa.instructions import DType, Region


@dataclass(eq=False)
class Storage:
    """Bytes that one or more values share. ``region`` is fixed for graph inputs, outputs and constants."""

    index: int
    bytes: int
    region: Region | None = None
    argument: int = -1
    """Index of the graph input or output, or of nothing."""
    first: int = 1 << 30
    last: int = -1
    readers: int = 0

    def touch(self, step: int) -> None:
        """Record an access by kernel ``step``."""
        self.first, self.last = min(self.first, step), max(self.last, step)


@dataclass(frozen=True, eq=False)
class Placed:
    """A value as bytes of a storage: offset and strides in bytes over (n, h, w, c)."""

    storage: Storage
    offset: int
    strides: Shape4
    shape: Shape4
    element: int

    @property
    def packed(self) -> bool:
        """Whether the value lies NHWC without gaps."""
        strides = packed_strides(self.shape, self.element)
        return all(n == 1 or s == p for n, s, p in zip(self.shape, self.strides, strides, strict=True))

    @property
    def gaps(self) -> Shape4 | None:
        """The strides, unless the value is packed."""
        return None if self.packed else self.strides

    def seen_as(self, shape: Shape4) -> Placed:
        """The same bytes as another shape of (n, h, w, c), whose dimensions must split or join evenly strided ones."""
        if shape == self.shape:
            return self
        strides = (walk := self._walk.reshaped(shape)) and walk.strides()
        assert strides is not None, f"bytes with gaps cannot be seen as {shape}: materialize-copies must come first"
        n, h, w, c = strides
        return Placed(self.storage, self.offset, (n, h, w, c), shape, self.element)

    @property
    def _walk(self) -> Walk:
        return Walk(tuple((Factor(n, s),) for n, s in zip(self.shape, self.strides, strict=True)))

    def walked(self, shape: Shape4, strides: Shape4, offset: int = 0, dtype: DType = DType.I8) -> Placed:
        """The same bytes, without gaps, as loops of ``shape`` over ``strides`` from ``offset`` on (elements)."""
        assert self.packed, f"bytes with gaps cannot be walked as {shape}: materialize-copies must come first"
        if dtype is DType.I4:  # strides are in codes, and channels are pairs
            offset, strides = offset // 2, (strides[0] // 2, strides[1] // 2, strides[2] // 2, 1)
        n, h, w, c = (s * self.element for s in strides)
        lies, _ = stored(shape, dtype)
        return Placed(self.storage, self.offset + offset * self.element, (n, h, w, c), lies, self.element)

    def aliased(self, alias: Alias, shape: Shape4) -> Placed:
        """A tensor of ``shape`` whose elements are some of these."""
        n, h, w, c = (s * self.element for s in alias.strides)
        return Placed(self.storage, self.offset + alias.offset * self.element, (n, h, w, c), shape, self.element)

    @property
    def steps(self) -> Shape4:
        """Strides in elements."""
        n, h, w, c = (s // self.element for s in self.strides)
        return (n, h, w, c)


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel in program order."""

    index: int
    op: kern.FusedOp
    spec: KernelSpec
    values: tuple[SSAValue | None, ...]
    """What each operand of the spec stands for; None for constants that the kernel makes itself."""
    nodes: tuple[str, ...]


@dataclass(eq=False)
class KernelGraph:
    """All kernels, the storages, and where each SSA value lies."""

    steps: list[Step] = field(default_factory=list[Step])
    storages: list[Storage] = field(default_factory=list[Storage])
    placed: dict[SSAValue, Placed] = field(default_factory=dict[SSAValue, Placed])
    outputs: tuple[SSAValue, ...] = ()
    inputs: tuple[SSAValue, ...] = ()
    rows_needed: dict[tuple[int, int, tuple[int, ...]], tuple[Range | None, ...]] = field(
        default_factory=dict[tuple[int, int, tuple[int, ...]], tuple[Range | None, ...]]
    )
    """What ``compiler.analysis.stripes`` found: the rows of an operand that stripes of a kernel read, by their ends."""

    def read(self, step: Step, operand: int) -> Placed:
        """Where the boxes lie that ``step`` reads of an operand, which must be a value, in the shape of the spec."""
        spec, value = step.spec, step.values[operand]
        assert value is not None
        placed, shape, dtype = self.placed[value], spec.operands[operand], spec.dtypes[operand]
        if spec.movement:
            return placed.walked(shape, spec.movement.input_strides, spec.movement.input_offset, dtype)
        return placed.seen_as(stored(shape, dtype)[0])

    def written(self, step: Step) -> Placed:
        """Where the boxes lie that ``step`` writes, in the shape of the spec."""
        spec, placed, dtype = step.spec, self.placed[step.op.output], step.spec.stored.output
        strides = spec.movement.output_strides if spec.movement else None
        if strides:
            return placed.walked(spec.output, strides, 0, dtype)
        return placed.seen_as(stored(spec.output, dtype)[0])

    @cached_property
    def sources(self) -> tuple[dict[int, int], ...]:
        """Of each kernel: the storage of every operand that it reads as boxes and that is no constant of it."""
        return tuple(dict(self._sources(step)) for step in self.steps)

    def _sources(self, step: Step) -> Iterator[tuple[int, int]]:
        for _, operand in step.spec.reads:
            value = step.values[operand]
            if value is not None and operand not in step.spec.constants:
                yield operand, self.placed[value].storage.index

    @cached_property
    def gaps(self) -> tuple[tuple[Shape4 | None, ...], ...]:
        """Of each kernel: byte strides of what it reads, and last of what it writes; None where that is packed."""
        return tuple((*self._gaps(step), self.written(step).gaps) for step in self.steps)

    def _gaps(self, step: Step) -> Iterator[Shape4 | None]:
        boxes = {operand for _, operand in step.spec.reads}.difference(step.spec.constants)
        for i in range(len(step.values)):
            yield self.read(step, i).gaps if i in boxes else None

    def storage(self, size: int, region: Region | None = None, argument: int = -1) -> Storage:
        """A new storage of ``size`` bytes."""
        self.storages.append(Storage(len(self.storages), size, region, argument))
        return self.storages[-1]


def element_bytes(value: SSAValue) -> int:
    """Bytes of one stored element of a tensor value."""
    return ELEMENT_BYTES[dtype_of(value)]


def dtype_of(value: SSAValue) -> DType:
    """Storage type of a tensor value."""
    element: Attribute = tensor(value).element_type
    if isinstance(element, IntType):
        return _WIDTHS[element.width.data]
    return next((dtype for width, dtype in _WIDTHS.items() if element == IntegerType(width)), DType.F32)


_WIDTHS = {4: DType.I4, 8: DType.I8, 16: DType.I16, 32: DType.I32}


def concat_slice(op: kern.ConcatOp, index: int) -> tuple[int, int]:
    """(axis over (n, h, w, c), first index) of operand ``index`` in the joined tensor."""
    rank = len(shape_of(op.output))
    axis = op.axis.value.data % rank
    places = {4: (0, 3, 1, 2), 3: (0, 2, 3), 2: (2, 3), 1: (3,)}[rank]
    return places[axis], sum(shape_of(v)[axis] for v in op.inputs[:index])


def build_graph(module: ModuleOp) -> KernelGraph:
    """Read a kern module whose views and concatenations alias (see ``materialize-copies``)."""
    graph, function = KernelGraph(), main_function(module)
    block = function.body.block
    graph.inputs = tuple(block.args)
    for i, argument in enumerate(block.args):
        _root(graph, argument, Region.INPUT, i)
    last = block.last_op
    assert isinstance(last, ReturnOp)
    graph.outputs = tuple(last.operands)
    for i, value in enumerate(graph.outputs):
        _root(graph, value, Region.OUTPUT, i)
    for op in reversed(list(block.ops)):
        if isinstance(op, kern.ConcatOp):
            _place_concat(graph, op)
        elif isinstance(op, kern.ViewOp):
            _place_operand(graph, op)
    for op in block.ops:
        _visit(graph, op)
    return graph


def _root(graph: KernelGraph, value: SSAValue, region: Region | None, argument: int = -1) -> None:
    shape, element = stored(nhwc(shape_of(value)), dtype_of(value))
    storage = graph.storage(prod(shape) * element, region, argument)
    by_channel = region in (Region.INPUT, Region.OUTPUT) and len(shape_of(value)) == 4
    strides = (planar_strides if by_channel else packed_strides)(shape, element)
    graph.placed[value] = Placed(storage, 0, strides, shape, element)


def _place_concat(graph: KernelGraph, op: kern.ConcatOp) -> None:
    """Operands become slices of the result."""
    if op.output not in graph.placed:
        _root(graph, op.output, None)
    whole = graph.placed[op.output]
    for i, value in enumerate(op.inputs):
        axis, start = concat_slice(op, i)
        shape, _ = stored(nhwc(shape_of(value)), dtype_of(value))
        if axis == 3 and dtype_of(value) is DType.I4:
            start //= 2  # even, or the join has been widened
        offset = whole.offset + start * whole.strides[axis]
        graph.placed[value] = Placed(whole.storage, offset, whole.strides, shape, whole.element)


def _place_operand(graph: KernelGraph, op: kern.ViewOp) -> None:
    """Where the result has a place, or cannot be read where its operand lies, the operand is written into it."""
    if op.output not in graph.placed:
        if kern.read_alias(op.members) is not None:
            return
        _root(graph, op.output, None)
    whole = graph.placed[op.output]
    alias = kern.written_alias(op.members, whole.steps)
    assert alias is not None, f"view {op.kernel.data!r} cannot be written: materialize-copies must come first"
    graph.placed[op.inputs[0]] = whole.aliased(alias, stored(nhwc(shape_of(op.inputs[0])), dtype_of(op.inputs[0]))[0])


def _read_alias(graph: KernelGraph, op: kern.ViewOp) -> None:
    source = graph.placed[op.inputs[0]]
    alias = kern.read_alias(op.members, source.steps)
    assert alias is not None, f"view {op.kernel.data!r} cannot be read: materialize-copies must come first"
    graph.placed[op.output] = source.aliased(alias, stored(nhwc(shape_of(op.output)), dtype_of(op.output))[0])


def _visit(graph: KernelGraph, op: Operation) -> None:
    if isinstance(op, qnn.ConstantOp):
        _root(graph, op.output, Region.CONSTANTS)
    elif isinstance(op, kern.ViewOp):
        if op.output not in graph.placed:
            _read_alias(graph, op)
    elif isinstance(op, kern.FusedOp):
        _visit_kernel(graph, op)
    elif not isinstance(op, kern.ConcatOp | ReturnOp):
        raise UnsupportedError(f"{op.name} stands outside of a kernel: run fuse-kernels first")


def _visit_kernel(graph: KernelGraph, op: kern.FusedOp) -> None:
    if op.output not in graph.placed:
        _root(graph, op.output, None)
    with blamed(op):
        lowered = lower_kernel(op)
    index = len(graph.steps)
    for value in lowered.values:
        if value is not None:
            graph.placed[value].storage.touch(index)
            graph.placed[value].storage.readers += 1
    graph.placed[op.output].storage.touch(index)
    # Copies that the compiler put in come from no node, whatever they are located at.
    inserted = not any(origins(member) for member in op.members)
    nodes = () if inserted else tuple(dict.fromkeys(o.node for o in origins(op)))
    graph.steps.append(Step(index, op, lowered.spec, lowered.values, nodes))


