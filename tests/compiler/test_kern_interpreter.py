"""The kern level gives the bits of the qnn level, kernel by kernel and as specs."""

from collections.abc import Iterator

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from compiler.backend.kernel_spec import lower_kernel
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import evaluate, run_qnn
from compiler.interpreter.spec import run_spec
from compiler.ir.layout import nhwc, storage_order
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options
from compiler.passes.legalize_rows import LegalizeRowsPass
from isa.errors import InputError
from tests.bits import assert_same
from tests.compiler.kern_graphs import GRAPHS, graph, inputs
from tests.compiler.view_graphs import VIEWS

ALL = {**GRAPHS, **VIEWS}
OPTIONS = {
    "fused": Options(),
    "alone": Options(fuse=False),
    "pools": Options(pool=True),
}


def lower(name: str, options: Options) -> tuple[ModuleOp, ModuleOp]:
    module = graph(*ALL[name])
    fused = module.clone()
    LegalizeRowsPass().apply(Context(), fused)  # rows of high rank become rows of a matrix
    fuse_kernels(fused, options)
    fused.verify()
    return module, fused


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ALL)
def test_kernels_give_the_bits_of_their_ops(name: str, options: str):
    module, fused = lower(name, OPTIONS[options])
    for scale in (1.0, 1e4):
        arrays = inputs(module, scale)
        assert_same(run_kern(fused, arrays), run_qnn(module, arrays))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ALL)
def test_specs_give_the_bits_of_their_kernels(name: str, options: str):
    _, fused = lower(name, OPTIONS[options])
    for op, got, want in _kernels(fused):
        assert_same([got], [want], op.kernel.data)


def to_storage(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(storage_order(array.ndim)))


def _check_view(op: kern.ViewOp, source: np.ndarray, result: np.ndarray) -> None:
    """One side really is the strided alias of the other that the view claims."""
    if (alias := kern.read_alias(op.members)) is None:
        source, result, alias = result, source, kern.written_alias(op.members)
    assert alias is not None
    shape = nhwc(shape_of(op.output if kern.read_alias(op.members) else op.inputs[0]))
    strides = [s * source.itemsize for s in alias.strides]
    seen = np.lib.stride_tricks.as_strided(source.ravel()[alias.offset :], shape, strides)
    assert np.array_equal(seen, result.reshape(shape))


def _kernels(module: ModuleOp) -> Iterator[tuple[kern.KernelOp, np.ndarray, np.ndarray]]:
    """Run by specs over stored bytes what the interpreter runs over logical arrays."""
    main = next(op for op in module.ops if isinstance(op, FuncOp))
    values: dict[SSAValue, np.ndarray] = dict(zip(main.body.block.args, inputs(module), strict=True))
    for op in main.body.block.ops:
        if isinstance(op, qnn.ConstantOp):
            values[op.output] = qnn.constant_array(op)
        if isinstance(op, kern.ConcatOp):
            values[op.output] = np.concatenate([values[v] for v in op.inputs], op.axis.value.data)
        if isinstance(op, kern.BodyOp):
            values[op.output] = _body(op, [values[v] for v in op.inputs])
        if isinstance(op, kern.ViewOp):
            _check_view(op, to_storage(values[op.inputs[0]]), to_storage(values[op.output]))
        if isinstance(op, kern.KernelOp):
            lowered = lower_kernel(op)
            constants = lowered.spec.constants
            operands = [
                None if v is None or i in constants else to_storage(values[v]) for i, v in enumerate(lowered.values)
            ]
            want = to_storage(values[op.output]).reshape(lowered.spec.output)
            yield op, run_spec(lowered.spec, operands), want


def _body(op: kern.BodyOp, arguments: list[np.ndarray]) -> np.ndarray:
    values = dict(zip(op.body.block.args, arguments, strict=True))
    for member in op.members:
        values[member.results[0]] = evaluate(member, *(values[v] for v in member.operands))
    return values[op.result_value]


def test_wrong_inputs_are_refused():
    _, fused = lower("residual", Options())
    with pytest.raises(InputError, match=r"input 0 must be float32\[2, 3, 9, 8\], got float32\[1\]"):
        run_kern(fused, [np.zeros(1, np.float32)])


def test_macs_are_those_of_the_convolutions():
    module, fused = lower("residual", Options())
    total = sum(lower_kernel(op).spec.macs for op in fused.walk() if isinstance(op, kern.KernelOp))
    convs = [op for op in module.walk() if isinstance(op, qnn.Conv2dOp)]
    assert total == sum(int(np.prod(shape_of(c.output)) * np.prod(shape_of(c.w)[1:])) for c in convs)
