"""Reference semantics of the ``kern`` dialect: bodies run through the implementations of their qnn ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    impl,
    impl_terminator,
    register_impls,
)

from compiler.dialects import kern
from compiler.interpreter.func import FuncFunctions
from compiler.interpreter.qnn import QnnFunctions, check_inputs


@register_impls
class KernFunctions(InterpreterFunctions):
    """Kernels and views run their bodies; a concat joins."""

    @impl(kern.KernelOp)
    def run_kernel(
        self, interpreter: Interpreter, op: kern.KernelOp, args: tuple[Any, ...]
    ) -> PythonValues:
        return interpreter.run_ssacfg_region(op.body, args, op.kernel.data)

    @impl(kern.ViewOp)
    def run_view(self, interpreter: Interpreter, op: kern.ViewOp, args: tuple[Any, ...]) -> PythonValues:
        return interpreter.run_ssacfg_region(op.body, args, op.kernel.data)

    @impl(kern.ConcatOp)
    def run_concat(self, interpreter: Interpreter, op: kern.ConcatOp, args: tuple[Any, ...]) -> PythonValues:
        return (np.concatenate(args, op.axis.value.data),)

    @impl_terminator(kern.YieldOp)
    def run_yield(self, interpreter: Interpreter, op: kern.YieldOp, args: tuple[Any, ...]):
        return ReturnedValues(args), ()


def run_kern(module: ModuleOp, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Outputs of ``@main`` at kern level for ``inputs`` in its order; InputError when they are not its arguments."""
    interpreter = Interpreter(module, listeners=())
    for functions in (QnnFunctions(), KernFunctions(), FuncFunctions()):
        interpreter.register_implementations(functions)
    main = interpreter.get_op_for_symbol("main")
    check_inputs(main.regions[0].block.args, inputs)
    return interpreter.call_op("main", tuple(inputs))
