"""``qnn`` operations that only move elements: reshape, permute, slice and expand."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import IntsAttr
from compiler.dialects.qnn_base import ANY, QnnOp, Value, shape_of, tensor


@irdl_op_definition
class ReshapeOp(QnnOp):
    """The same elements, row-major, in another shape."""

    name = "qnn.reshape"
    input = operand_def(ANY)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, shape: Sequence[int]):
        super().__init__(operands=[value], result_types=[TensorType(tensor(value).element_type, shape)])

    def infer(self) -> Attribute:
        kind, shape = tensor(self.input), shape_of(self.output)
        if prod(kind.get_shape()) != prod(shape):
            raise VerifyException(f"{kind.get_shape()} and {shape} differ in their number of elements")
        return TensorType(kind.element_type, shape)


@irdl_op_definition
class PermuteOp(QnnOp):
    """Dimension i of the result is dimension ``order[i]`` of the input."""

    name = "qnn.permute"
    input = operand_def(ANY)
    order = prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input `order` $order attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, order: Sequence[int]):
        kind = tensor(value)
        shape = [kind.get_shape()[i] for i in order]
        super().__init__(
            operands=[value],
            result_types=[TensorType(kind.element_type, shape)],
            properties={"order": IntsAttr(tuple(order))},
        )

    def infer(self) -> Attribute:
        kind, order = tensor(self.input), self.order.data
        if sorted(order) != list(range(len(kind.get_shape()))):
            raise VerifyException(f"order {order} is not a permutation of {len(kind.get_shape())} dimensions")
        return TensorType(kind.element_type, [kind.get_shape()[i] for i in order])


@irdl_op_definition
class SliceOp(QnnOp):
    """``sizes[i]`` indices of dimension i, from ``starts[i]`` on, ``steps[i]`` apart."""

    name = "qnn.slice"
    input = operand_def(ANY)
    starts = prop_def(IntsAttr)
    sizes = prop_def(IntsAttr)
    steps = prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$input `from` $starts `size` $sizes `step` $steps attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(self, value: Value, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int] | None = None):
        steps = (1,) * len(sizes) if steps is None else steps
        super().__init__(
            operands=[value],
            result_types=[TensorType(tensor(value).element_type, sizes)],
            properties={
                "starts": IntsAttr(tuple(starts)),
                "sizes": IntsAttr(tuple(sizes)),
                "steps": IntsAttr(tuple(steps)),
            },
        )

    def infer(self) -> Attribute:
        kind = tensor(self.input)
        shape = kind.get_shape()
        starts, sizes, steps = self.starts.data, self.sizes.data, self.steps.data
        if not len(starts) == len(sizes) == len(steps) == len(shape):
            raise VerifyException(f"slice of rank {len(shape)} needs as many starts, sizes and steps")
        for axis, (n, start, size, step) in enumerate(zip(shape, starts, sizes, steps, strict=True)):
            if start < 0 or size < 1 or step < 1 or start + (size - 1) * step >= n:
                raise VerifyException(f"{size} indices from {start}, {step} apart, leave dimension {axis} of size {n}")
        return TensorType(kind.element_type, sizes)


@irdl_op_definition
class ExpandOp(QnnOp):
    """Repeat dimensions of size 1, and add dimensions in front, as numpy broadcasts."""

    name = "qnn.expand"
    input = operand_def(ANY)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, shape: Sequence[int]):
        super().__init__(operands=[value], result_types=[TensorType(tensor(value).element_type, shape)])

    def infer(self) -> Attribute:
        kind, shape = tensor(self.input), shape_of(self.output)
        given = (1,) * (len(shape) - len(kind.get_shape())) + kind.get_shape()
        if len(given) != len(shape) or any(n not in (1, size) for n, size in zip(given, shape, strict=True)):
            raise VerifyException(f"{kind.get_shape()} does not expand to {shape}")
        return TensorType(kind.element_type, shape)
