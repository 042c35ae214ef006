"""``fold-constants``: compute at compile time what depends on constants alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerType, ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.transforms.dead_code_elimination import dce

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, tensor
from compiler.interpreter.qnn import SEMANTICS, evaluate
from compiler.ir.location import fuse


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """Replace operations on constants by their value, computed with the qnn interpreter."""

    name = "fold-constants"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for inner in list(op.walk()):  # operands come first, so chains fold in one walk
            _fold(inner)
        dce(op)


def _fold(op: Operation) -> None:
    if type(op) not in SEMANTICS or isinstance(op, qnn.ConstantOp):
        return
    sources = [value.owner for value in op.operands]
    constants = [source for source in sources if isinstance(source, qnn.ConstantOp)]
    if not sources or len(constants) != len(sources):
        return
    result = op.results[0]
    if isinstance(tensor(result).element_type, IntegerType):
        return  # positions are no constants of this level
    array = np.asarray(evaluate(op, *map(qnn.constant_array, constants)), order="C")
    new = qnn.ConstantOp(array, int_type(result) if is_int(result) else None)
    new.location = fuse([op])
    Rewriter.replace_op(op, new)
