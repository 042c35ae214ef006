"""From a kern op to what the back end tiles: NHWC shapes, an anchor, vector programs and constant arrays.

Operands of the spec are those that are read as tensors: scales, biases and what became parameters or immediates are
in the programs. An uneven adaptive pool becomes a matrix product with a constant 0/1 matrix: the same exact sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import f32
from xdsl.ir import BlockArgument, Operation, SSAValue

from compiler.backend.vectorize import Leaves, ProgramError, Seed, vectorize
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of, tensor
from compiler.interpreter.windows import Windows, adaptive_ranges, tap_counts
from compiler.ir.kernel import (
    Anchor,
    CopyAnchor,
    KernelSpec,
    MatrixAnchor,
    PoolAnchor,
    Shape4,
    Stream,
    VectorProgram,
    Window,
)
from compiler.ir.layout import Walk, nhwc, storage_order, storage_strides
from isa import numerics
from isa.errors import UnsupportedError
from isa.instructions import DType, Reduce

Array = NDArray[Any]
ACCUMULATORS = Stream(None, DType.I32)


@dataclass(frozen=True, eq=False)
class Lowered:
    """A spec with the value behind each of its operands; None for constants that the lowering made."""

    spec: KernelSpec
    values: tuple[SSAValue | None, ...]


@dataclass(eq=False)
class _Stage:
    """An anchor and how its result enters the vector program."""

    anchor: Anchor = None
    seed: Seed | None = None
    macs: int = 0
    output: Shape4 | None = None


@dataclass(eq=False)
class _Operands:
    """Operands numbered as in the op, then those that the lowering adds; shapes as (n, h, w, c)."""

    values: list[SSAValue | None]
    shapes: list[Shape4]
    dtypes: list[DType]
    constants: dict[int, Array] = field(default_factory=dict[int, Array])

    def add(self, array: Array) -> int:
        """A constant of the lowering, given as (n, h, w, c)."""
        self.values.append(None)
        n, h, w, c = array.shape
        self.shapes.append((n, h, w, c))
        self.dtypes.append(DType.F32 if array.dtype == np.float32 else DType.I8)
        self.constants[len(self.values) - 1] = array
        return len(self.values) - 1

    def set(self, index: int, shape: Shape4, array: Array | None = None) -> None:
        """Give operand ``index`` the shape, and for a constant the array, that its reader wants."""
        self.shapes[index] = shape
        if array is not None:
            self.constants[index] = array


def constant_of(value: SSAValue) -> Array | None:
    """The array of a value known at compile time; a kernel's block argument stands for its operand."""
    if isinstance(value, BlockArgument):
        parent = value.block.parent_op()
        if not isinstance(parent, kern.BodyOp):
            return None
        value = parent.inputs[value.index]
    return qnn.constant_array(value.owner) if isinstance(value.owner, qnn.ConstantOp) else None


def dtype_of(value: SSAValue) -> DType:
    """Storage type of a tensor."""
    return DType.F32 if tensor(value).element_type == f32 else DType.I8


def stored(array: Array) -> Array:
    """A constant in the storage layout, as (n, h, w, c)."""
    order = storage_order(array.ndim)
    return np.ascontiguousarray(array.transpose(order)).reshape(nhwc(array.shape))


def kernel_spec(op: kern.KernelOp) -> KernelSpec:
    """The spec of a kernel; UnsupportedError (mostly a ProgramError) when one kernel cannot compute the body."""
    return lower_kernel(op).spec


def lower_kernel(op: kern.KernelOp) -> Lowered:
    """The spec of a kernel and the operand values that its operands stand for."""
    arguments = op.body.block.args
    operands = _Operands(
        list(op.inputs), [nhwc(shape_of(a)) for a in arguments], [dtype_of(a) for a in arguments]
    )
    leaves = Leaves({a: i for i, a in enumerate(arguments)}, constant_of)
    anchor, pool, output = op.anchor, op.pool, nhwc(shape_of(op.output))
    if isinstance(anchor, kern.COPIES):
        copy, program = _copy(op, anchor), _identity(operands.dtypes[0])
        if isinstance(anchor, qnn.PadOp):
            copy, program = _pad(anchor, program)
        return _compact(KernelSpec(op.kernel.data, (), (), output, copy, program), operands)
    members = [m for m in op.members if m is not anchor]
    stage = _stage(anchor, operands, leaves) if anchor is not None else _Stage()
    if pool is None:
        program = _program(members, op.result_value, leaves, stage, operands)
        spec = KernelSpec(
            op.kernel.data, (), (), stage.output or output, stage.anchor, program, macs=stage.macs
        )
        return _compact(spec, operands)
    cut = members.index(pool)
    inner = pool.operands[0]
    program = _program(members[:cut], inner, leaves, stage, operands)
    second = _stage(pool, operands, leaves)
    assert isinstance(second.anchor, PoolAnchor)
    pool_program = _program(members[cut + 1 :], op.result_value, leaves, second, operands)
    spec = KernelSpec(
        op.kernel.data,
        (),
        (),
        output,
        stage.anchor,
        program,
        second.anchor,
        nhwc(shape_of(inner)),
        pool_program,
        stage.macs,
    )
    return _compact(spec, operands)


def _identity(dtype: DType) -> VectorProgram:
    return VectorProgram((Stream(None, dtype),), (), dtype)


def _program(
    ops: Sequence[Operation], result: SSAValue, leaves: Leaves, stage: _Stage, operands: _Operands
) -> VectorProgram:
    program = vectorize(ops, result, leaves, stage.seed)
    for stream in program.streams:
        index = stream.operand
        if index is None or operands.values[index] is None:
            continue
        _align(index, shape_of(result), leaves, operands, stage.output)
    return program


def _align(
    index: int, result: tuple[int, ...], leaves: Leaves, operands: _Operands, folded: Shape4 | None
) -> None:
    """Give a stream's operand the shape that broadcasts against the result."""
    argument = next(a for a, i in leaves.operands.items() if i == index)
    shape, array = shape_of(argument), leaves.constant(argument)
    seen = stream_shape(shape, result, folded, array is not None)
    if array is not None:
        array = stored(array.reshape((1,) * (len(result) - len(shape)) + shape)).reshape(seen)
    operands.set(index, seen, array)


def stream_shape(
    shape: tuple[int, ...], result: tuple[int, ...], folded: Shape4 | None = None, movable: bool = False
) -> Shape4:
    """A stored tensor as the (n, h, w, c) that broadcasts against ``result``; ProgramError when its layout forbids.

    ``folded`` is the result's own view when that differs from the layout's; ``movable`` says that the elements
    may be rearranged (constants).
    """
    full = (1,) * (len(result) - len(shape)) + shape
    if not movable:
        walk = Walk.stored(shape).reshaped(full)
        if walk is None or not walk.is_view:
            raise ProgramError(f"shape {shape} does not broadcast against {result} as it lies; reshape it first")
    seen = nhwc(full)
    if len(result) > 4 and full != result and prod(full[:-1]) != 1:
        raise ProgramError(f"shape {shape} broadcasts inside a tensor of rank {len(result)}")
    if folded is None or seen[1:3] == (1, 1):
        return seen
    if full != result:
        raise ProgramError(f"shape {shape} broadcasts along rows or columns only")
    return folded


def _compact(spec: KernelSpec, operands: _Operands) -> Lowered:
    """Keep only the operands that the spec reads, in the order anchor, streams."""
    programs = (spec.program, spec.pool_program)
    streams = [s.operand for p in programs if p is not None for s in p.streams]
    anchor = spec.anchor
    first = [] if anchor is None else [anchor.act]
    if isinstance(anchor, MatrixAnchor):
        first.append(anchor.weight)
    used = list(dict.fromkeys(i for i in (*first, *streams) if i is not None))
    new = {old: i for i, old in enumerate(used)}
    for old in used:
        value = operands.values[old]
        if value is not None and old not in operands.constants and (array := constant_of(value)) is not None:
            operands.constants[old] = stored(array)
    return Lowered(
        replace(
            spec,
            operands=tuple(operands.shapes[i] for i in used),
            dtypes=tuple(operands.dtypes[i] for i in used),
            anchor=_renumbered(anchor, new),
            program=_restreamed(spec.program, new),
            pool_program=None if spec.pool_program is None else _restreamed(spec.pool_program, new),
            constants={new[i]: operands.constants[i] for i in used if i in operands.constants},
        ),
        tuple(operands.values[i] for i in used),
    )


def _renumbered(anchor: Anchor, new: dict[int, int]) -> Anchor:
    if isinstance(anchor, MatrixAnchor):
        return replace(anchor, act=new[anchor.act], weight=new[anchor.weight])
    return None if anchor is None else replace(anchor, act=new[anchor.act])


def _restreamed(program: VectorProgram, new: dict[int, int]) -> VectorProgram:
    streams = [s if s.operand is None else replace(s, operand=new[s.operand]) for s in program.streams]
    return replace(program, streams=tuple(streams))


def _stage(op: Operation, operands: _Operands, leaves: Leaves) -> _Stage:
    match op:
        case qnn.Conv2dOp():
            return _conv2d(op, operands, leaves)
        case qnn.LinearOp():
            return _linear(op, operands, leaves)
        case qnn.MatmulOp():
            return _matmul(op, operands, leaves)
        case qnn.MaxPool2dOp():
            return _max_pool(op, leaves)
        case qnn.AvgPool2dOp():
            return _avg_pool(op, operands, leaves)
        case qnn.AdaptiveAvgPool2dOp():
            return _adaptive(op, operands, leaves)
        case _:
            raise UnsupportedError(f"{op.name} is no anchor of a kernel")


def _required(value: SSAValue, leaves: Leaves, what: str) -> Array:
    array = leaves.constant(value)
    if array is None:
        raise UnsupportedError(f"{what} must be known at compile time; make it a constant of the graph")
    return array


def _scaled(op: qnn.Conv2dOp | qnn.LinearOp, leaves: Leaves) -> Seed:
    scale = _required(op.scale, leaves, f"scale of {op.name}")
    bias = None if op.bias is None else _required(op.bias, leaves, f"bias of {op.name}")
    return Seed(op.output, ACCUMULATORS, scale, bias)


def anchor_seed(op: Operation, leaves: Leaves) -> Seed | None:
    """How an anchor's result enters a program, as far as the program's size goes; None for a movement."""
    result = op.results[0]
    match op:
        case qnn.Conv2dOp() | qnn.LinearOp():
            return _scaled(op, leaves)
        case qnn.MatmulOp():
            return Seed(result, ACCUMULATORS, np.ones(1, np.float32))
        case qnn.MaxPool2dOp():
            return Seed(result, Stream(None, DType.I8))
        case qnn.AvgPool2dOp() | qnn.AdaptiveAvgPool2dOp():
            return Seed(result, ACCUMULATORS, np.ones(1, np.float32), factor=Stream(-1, DType.F32))
        case _:
            return None


def folded_shape(op: Operation | None) -> Shape4 | None:
    """The (n, h, w, c) of an anchor's result where it is not that of the layout."""
    if not isinstance(op, qnn.AdaptiveAvgPool2dOp):
        return None
    n, h, w, c = nhwc(shape_of(op.output))
    return (n, 1, h * w, c)


def _conv2d(op: qnn.Conv2dOp, operands: _Operands, leaves: Leaves) -> _Stage:
    weight = _required(op.w, leaves, "weight of qnn.conv2d")
    o, c, kh, kw = weight.shape
    groups = op.groups.value.data
    depthwise = groups > 1 and groups == o and c == 1
    window = Window((kh, kw), _pair(op.strides.data), _pair(op.dilation.data), _pair(op.padding.data))
    lhs, rhs = leaves.operands[op.x], leaves.operands[op.w]
    if depthwise:
        operands.set(rhs, (1, kh, kw, o), np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0)))
    else:
        operands.set(rhs, (o, kh, kw, c), np.ascontiguousarray(weight.transpose(0, 2, 3, 1)))
    anchor = MatrixAnchor(lhs, rhs, window, groups, int_type(op.x).zero.data, depthwise=depthwise)
    return _Stage(anchor, _scaled(op, leaves), prod(shape_of(op.output)) * c * kh * kw)


def _linear(op: qnn.LinearOp, operands: _Operands, leaves: Leaves) -> _Stage:
    weight = _required(op.w, leaves, "weight of qnn.linear")
    o, k = weight.shape
    lhs, rhs = leaves.operands[op.x], leaves.operands[op.w]
    if len(shape_of(op.x)) == 4:
        raise UnsupportedError("qnn.linear of rank 4 does not lie with its features innermost; reshape it first")
    operands.set(rhs, (o, 1, 1, k), weight.reshape(o, 1, 1, k))
    anchor = MatrixAnchor(lhs, rhs, Window(), 1, int_type(op.x).zero.data)
    return _Stage(anchor, _scaled(op, leaves), prod(shape_of(op.output)) * k)


def _matmul(op: qnn.MatmulOp, operands: _Operands, leaves: Leaves) -> _Stage:
    a, b = int_type(op.a), int_type(op.b)
    lhs, rhs = leaves.operands[op.a], leaves.operands[op.b]
    rows, columns = matrix_shape(shape_of(op.a)), matrix_shape(shape_of(op.b))
    if rows[0] != columns[0]:
        raise UnsupportedError(f"qnn.matmul of {rows[0]} by {columns[0]} matrices; repeat the smaller batch")
    for value, index, shape in ((op.a, lhs, rows), (op.b, rhs, columns)):
        array = leaves.constant(value)
        operands.set(index, shape, None if array is None else array.reshape(shape))
    anchor = MatrixAnchor(lhs, rhs, Window(), 1, a.zero.data, b.zero.data, dynamic_weight=True)
    scale = np.array([numerics.product_scale(a.scale.data, b.scale.data)], np.float32)
    return _Stage(anchor, Seed(op.output, ACCUMULATORS, scale), prod(shape_of(op.output)) * rows[3])


def matrix_shape(shape: tuple[int, ...]) -> Shape4:
    """A batch of matrices of rank 2 or 3 as (batch, 1, rows, columns)."""
    if len(shape) > 3:
        raise UnsupportedError(f"a matrix product of rank {len(shape)} must be reshaped to rank 3 first")
    batch, rows, columns = (1,) * (3 - len(shape)) + shape
    return (batch, 1, rows, columns)


def _max_pool(op: qnn.MaxPool2dOp, leaves: Leaves) -> _Stage:
    zero = int_type(op.input).zero.data
    window = Window(*(_pair(v.data) for v in (op.kernel, op.strides, op.dilation, op.padding)))
    anchor = PoolAnchor(leaves.operands.get(op.input, -1), window, Reduce.MAX, zero, 0.0)
    return _Stage(anchor, Seed(op.output, Stream(None, DType.I8, zero)))


def _avg_pool(op: qnn.AvgPool2dOp, operands: _Operands, leaves: Leaves) -> _Stage:
    codes, window = int_type(op.input), Window(_pair(op.kernel.data), _pair(op.strides.data), (1, 1),
                                               _pair(op.padding.data))  # fmt: skip
    scale = numerics.fp32(codes.scale.data)
    anchor = PoolAnchor(leaves.operands.get(op.input, -1), window, Reduce.SUM, codes.zero.data, scale)
    stream = Stream(None, DType.I8, codes.zero.data, scale)
    if op.divisor is not None or op.count_include_pad.value.data:
        count = window.taps if op.divisor is None else op.divisor.value.data
        return _Stage(anchor, Seed(op.output, stream, _inverse(np.array([count]))))
    windows = Windows(op.kernel.data, op.strides.data, op.padding.data)
    inverse = _inverse(tap_counts(shape_of(op.input)[2:], windows))
    if (inverse == inverse.flat[0]).all():
        return _Stage(anchor, Seed(op.output, stream, inverse.reshape(-1)[:1]))
    factor = Stream(operands.add(stored(inverse)), DType.F32)
    return _Stage(anchor, Seed(op.output, stream, factor=factor))


def _inverse(count: Array) -> NDArray[np.float32]:
    return (1.0 / count.astype(np.float64)).astype(np.float32)


def _adaptive(op: qnn.AdaptiveAvgPool2dOp, operands: _Operands, leaves: Leaves) -> _Stage:
    """Row m of the constant matrix holds ones where window m lies; x [H*W, C] is the other factor."""
    codes = int_type(op.input)
    n, c, height, width = shape_of(op.input)
    oh, ow = op.output_size.data
    rows = _membership(height, oh)[:, None, :, None] * _membership(width, ow)[None, :, None, :]
    rows = rows.reshape(oh * ow, height * width)
    matrix = operands.add(np.ascontiguousarray(np.broadcast_to(rows, (n, 1, *rows.shape))))
    act = leaves.operands[op.input]
    operands.set(act, (n, 1, height * width, c))
    counts = rows.sum(1, dtype=np.int32)
    factor = Stream(operands.add(_inverse(counts).reshape(1, 1, -1, 1)), DType.F32)
    anchor = MatrixAnchor(matrix, act, Window(), 1, 0, codes.zero.data, dynamic_weight=True)
    scale = np.array([codes.scale.data], np.float32)
    seed = Seed(op.output, ACCUMULATORS, scale, factor=factor)
    return _Stage(anchor, seed, n * c * int(counts.sum()), folded_shape(op))


def _membership(size: int, count: int) -> NDArray[np.int8]:
    result = np.zeros((count, size), np.int8)
    for i, (start, stop) in enumerate(adaptive_ranges(size, count)):
        result[i, start:stop] = 1
    return result


def _pair(data: tuple[int, ...]) -> tuple[int, int]:
    return data[0], data[1]


def _copy(op: kern.FusedOp, first: Operation) -> CopyAnchor | None:
    if isinstance(first, qnn.PadOp):
        return None
    walk = kern.movement(op)
    assert walk is not None, "the verifier has seen to this"
    sizes, source, target = zip(*walk.loops(), strict=True)
    return CopyAnchor(0, sizes, source, target)


def _pad(op: qnn.PadOp, identity: VectorProgram) -> tuple[Anchor, VectorProgram]:
    """No padding is a plain copy; codes padded in rows and columns are a window of one tap; else a fill and a copy."""
    low, high = op.padding.data[::2], op.padding.data[1::2]
    if not any((*low, *high)):
        return None, replace(identity, streams=(replace(identity.streams[0], operand=0),))
    if is_int(op.input) and len(low) == 4 and not any((*low[:2], *high[:2])) and max(low) < 256:
        # Taps outside the tile add 0 to the sum of (q - code): stored plus code, they become the padding.
        window = Window(pad=(low[2], low[3]))
        seed = Stream(None, DType.I8, op.code)
        return PoolAnchor(0, window, Reduce.SUM, op.code, 0.0), VectorProgram((seed,), (), DType.I8, op.code)
    return _fill(op), identity


def _fill(op: qnn.PadOp) -> CopyAnchor:
    shape, low = shape_of(op.input), op.padding.data[::2]
    source, target = storage_strides(shape), storage_strides(shape_of(op.output))
    order = storage_order(len(shape))
    fill = op.code if is_int(op.input) else op.value.data
    return CopyAnchor(
        0,
        tuple(shape[i] for i in order),
        tuple(source[i] for i in order),
        tuple(target[i] for i in order),
        output_offset=sum(n * s for n, s in zip(low, target, strict=True)),
        fill=float(fill),
    )
