"""``legalize-linear``: a linear over a flattened image becomes a convolution that reads the image as it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from xdsl.context import Context
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp, TensorType
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.transforms.dead_code_elimination import dce

from compiler.dialects import qnn
from compiler.dialects.qnn_base import Tensor, shape_of, tensor
from compiler.ir.location import fuse


class FlattenedLinear(RewritePattern):
    """``linear(flatten(x), w)`` with H*W > 1 is a convolution whose kernel covers the image.

    Images lie in memory with channels last, so the flattening would have to reorder them; the weights can be
    reordered at compile time instead. The sum is an exact integer: its order does not matter.
    """

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: qnn.LinearOp, rewriter: PatternRewriter, /) -> None:
        flatten, weight = op.x.owner, op.w.owner
        if not isinstance(flatten, qnn.ReshapeOp) or not isinstance(weight, qnn.ConstantOp):
            return
        image = shape_of(flatten.input)
        if len(image) != 4 or image[2:] == (1, 1) or shape_of(op.x) != (image[0], image[1] * image[2] * image[3]):
            return
        kernel = _with_shape(weight, (shape_of(op.w)[0], *image[1:]))
        kernel.location = weight.location
        zeros = None if op.weight_zeros is None else op.weight_zeros.data
        conv = qnn.Conv2dOp(flatten.input, kernel, op.scale, op.bias, weight_zeros=zeros)
        conv.location = fuse([op, flatten])
        rewriter.insert(kernel)
        rewriter.insert(conv)
        result = qnn.ReshapeOp(conv, shape_of(op.output))
        result.location = op.location
        rewriter.replace(op, result)


def _with_shape(weight: qnn.ConstantOp, shape: tuple[int, ...]) -> qnn.ConstantOp:
    """The same bytes as a tensor of another shape, without a copy."""
    held = TensorType(cast(Tensor, weight.value.type).element_type, shape)
    value = cast(DenseIntOrFPElementsAttr, DenseIntOrFPElementsAttr(cast(Any, held), weight.value.data))
    result = TensorType(tensor(weight.output).element_type, shape)
    return qnn.ConstantOp.create(properties={"value": value}, result_types=[result])


@dataclass(frozen=True)
class LegalizeLinearPass(ModulePass):
    """Turn linears over flattened images into convolutions, so that no image is reordered."""

    name = "legalize-linear"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(FlattenedLinear()).rewrite_module(op)
        dce(op)
