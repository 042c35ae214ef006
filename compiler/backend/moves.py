"""Kernels that only move values: copies of up to four loops, and padding."""

from __future__ import annotations

from dataclasses import replace

from xdsl.ir import Operation

from compiler.backend.widths import dtype_of
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import is_int, shape_of
from compiler.ir.kernel import Anchor, CopyAnchor, Movement, PoolAnchor, Shape4, Stream, VectorProgram, Window
from compiler.ir.layout import storage_order, storage_strides
from isa.instructions import DType, Reduce


def movement_shape(op: kern.FusedOp) -> tuple[Shape4, Movement] | None:
    """The loops of moves as (n, h, w, c) with both sides' strides; None beyond four loops."""
    walk = kern.movement(op) if isinstance(op.anchor, kern.MOVES) else None
    if walk is None or len(loops := walk.loops()) > 4:
        return None
    padded = [(1, 0, 0)] * (4 - len(loops)) + list(loops)
    sizes, source, target = ((a, b, c, d) for a, b, c, d in zip(*padded, strict=True))
    return sizes, Movement(source, target, walk.offset)


def copy_anchor(op: kern.FusedOp, first: Operation, dtype: DType) -> tuple[Anchor, VectorProgram]:
    """Anchor and program of a kernel that moves values."""
    identity = VectorProgram((Stream(None, dtype),), (), dtype)
    if isinstance(first, qnn.PadOp):
        return _pad(first, identity)
    walk = kern.movement(op)
    assert walk is not None, "the verifier has seen to this"
    sizes, source, target = zip(*walk.loops(), strict=True)
    return CopyAnchor(0, sizes, source, target, walk.offset), identity


def _pad(op: qnn.PadOp, identity: VectorProgram) -> tuple[Anchor, VectorProgram]:
    """No padding is a plain copy; codes padded in rows and columns are a window of one tap; else a fill and a copy."""
    low, high = op.padding.data[::2], op.padding.data[1::2]
    if not any((*low, *high)):
        return None, replace(identity, streams=(replace(identity.streams[0], operand=0),))
    if dtype_of(op.input) is DType.I8 and len(low) == 4 and not any((*low[:2], *high[:2])) and max(low) < 256:
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
