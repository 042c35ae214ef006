"""``canonicalize-qnn``: remove and move operations where no bit of the result can change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.transforms.dead_code_elimination import dce

from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntsAttr
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.ir.location import fuse
from isa import numerics

LARGEST_PADDING = 255
"""What the 8 bits of ``mmu.window`` say; more stays a pad of its own."""


def _replace(rewriter: PatternRewriter, op: Operation, new: Operation, *absorbed: Operation) -> None:
    """Replace ``op`` by ``new``, which takes its origins and those of ``absorbed``."""
    new.location = fuse([op, *absorbed])
    rewriter.replace(op, new)


def _bypass(rewriter: PatternRewriter, op: Operation, value: SSAValue) -> None:
    """Let users of ``op`` read ``value``; if ``op`` was all that used it, its maker takes the origin."""
    if isinstance(maker := value.owner, Operation) and value.has_one_use():
        maker.location = fuse([maker, op])
    rewriter.replace(op, (), (value,))


class MergeReshapes(RewritePattern):
    """A reshape of a reshape is one; a reshape to the same shape is none."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.ReshapeOp, rewriter: PatternRewriter, /) -> None:
        if op.input.type == op.output.type:
            return _bypass(rewriter, op, op.input)
        if isinstance(inner := op.input.owner, qnn.ReshapeOp):
            _replace(rewriter, op, qnn.ReshapeOp(inner.input, shape_of(op.output)), inner)


class MergePermutes(RewritePattern):
    """A permute of a permute is one; the identity is none."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.PermuteOp, rewriter: PatternRewriter, /) -> None:
        order = op.order.data
        if order == tuple(range(len(order))):
            return _bypass(rewriter, op, op.input)
        if isinstance(inner := op.input.owner, qnn.PermuteOp):
            merged = [inner.order.data[i] for i in order]
            _replace(rewriter, op, qnn.PermuteOp(inner.input, merged), inner)


def _quantize(op: qnn.QuantizeOp, value: SSAValue) -> qnn.QuantizeOp:
    """The same quantize of another value."""
    thresholds = None if op.thresholds is None else [t.data for t in op.thresholds.data]
    return qnn.QuantizeOp(value, int_type(op.output), (op.lo, op.hi), thresholds)


class QuantizeBeforeMoving(RewritePattern):
    """Quantize, then move: a quarter of the bytes move."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.QuantizeOp, rewriter: PatternRewriter, /) -> None:
        move = op.input.owner
        if not isinstance(move, kern.MOVES) or not op.input.has_one_use():
            return
        if isinstance(move, qnn.SliceOp) and not move.input.has_one_use():
            return  # several parts of one tensor would each quantize all of it
        codes = _quantize(op, move.input)
        codes.location = op.location
        rewriter.insert(codes)
        new = type(move).create(
            operands=[codes.output],
            result_types=[TensorType(int_type(op.output), shape_of(move.output))],
            properties=dict(move.properties),
        )
        new.location = move.location
        rewriter.replace(op, new)


class DropRequantize(RewritePattern):
    """Quantizing a dequantized tensor to the type that it had gives its codes back.

    ``(q - z) * fp32(s) * fp32(1/s)`` is within 2^-6 of an integer of at most 16 bits, so it rounds to that integer.
    """

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.QuantizeOp, rewriter: PatternRewriter, /) -> None:
        source = op.input.owner
        if not isinstance(source, qnn.DequantizeOp) or source.input.type != op.output.type:
            return
        codes = int_type(op.output)
        normal = 2.0**-100 < codes.scale.data < 2.0**100 and not codes.codebook.data
        if normal and (op.lo, op.hi) == (codes.low, codes.high):
            _bypass(rewriter, op, source.input)


def _bounds(op: Operation) -> tuple[float, float] | None:
    if isinstance(op, qnn.ReluOp):
        return 0.0, math.inf
    return (op.min.data, op.max.data) if isinstance(op, qnn.ClampOp) else None


class DropSaturatedClamp(RewritePattern):
    """A relu or clamp before a quantize that saturates at the same codes, or at tighter ones, changes nothing."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.QuantizeOp, rewriter: PatternRewriter, /) -> None:
        clamp = op.input.owner
        bounds = _bounds(clamp) if isinstance(clamp, Operation) else None
        if bounds is None or not isinstance(clamp, (qnn.ReluOp, qnn.ClampOp)) or not op.input.has_one_use():
            return
        if op.thresholds is not None:
            return
        codes = int_type(op.output)
        inverse = np.float32(numerics.inverse_scale(codes.scale.data))
        with np.errstate(over="ignore"):
            low, high = (float(np.rint(np.float32(bound) * inverse)) + codes.zero.data for bound in bounds)
        if low <= op.lo and high >= op.hi:
            _replace(rewriter, op, qnn.QuantizeOp(clamp.input, codes, (op.lo, op.hi)), clamp)


class DropRepeatedClamp(RewritePattern):
    """A relu or clamp whose input already lies within its bounds."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.ReluOp | qnn.ClampOp, rewriter: PatternRewriter, /) -> None:
        inner = op.input.owner
        have, want = _bounds(inner) if isinstance(inner, Operation) else None, _bounds(op)
        if have is None or want is None or have[0] > have[1] or have[1] == 0:
            return
        if want[0] <= have[0] and have[1] <= want[1]:
            _bypass(rewriter, op, op.input)


class FoldPadIntoConv(RewritePattern):
    """Padding of H and W with the zero point is what a convolution's own padding does."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.Conv2dOp, rewriter: PatternRewriter, /) -> None:
        pad = op.x.owner
        if not isinstance(pad, qnn.PadOp) or not is_int(pad.input) or any(pad.padding.data[:4]):
            return
        if pad.code != int_type(pad.input).zero.data:
            return
        top, bottom, left, right = pad.padding.data[4:]
        own = op.padding.data
        padding = (own[0] + top, own[1] + left, own[2] + bottom, own[3] + right)
        if max(padding) > LARGEST_PADDING:
            return
        op.padding = IntsAttr(padding)
        op.location = fuse([op, pad])
        op.operands[0] = pad.input
        rewriter.notify_op_modified(op)


class DropEmptyPad(RewritePattern):
    """A pad by nothing."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.PadOp, rewriter: PatternRewriter, /) -> None:
        if not any(op.padding.data):
            _bypass(rewriter, op, op.input)


class DropSingleConcat(RewritePattern):
    """A concat of one tensor."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.ConcatOp, rewriter: PatternRewriter, /) -> None:
        if len(op.inputs) == 1:
            _bypass(rewriter, op, op.inputs[0])


PATTERNS: tuple[RewritePattern, ...] = (
    MergeReshapes(),
    MergePermutes(),
    QuantizeBeforeMoving(),
    DropRequantize(),
    DropSaturatedClamp(),
    DropRepeatedClamp(),
    FoldPadIntoConv(),
    DropEmptyPad(),
    DropSingleConcat(),
)


@dataclass(frozen=True)
class CanonicalizeQnnPass(ModulePass):
    """Remove redundant qnn operations, move quantizes before movement, drop dead code; the bits stay."""

    name = "canonicalize-qnn"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(GreedyRewritePatternApplier(list(PATTERNS))).rewrite_module(op)
        dce(op)
