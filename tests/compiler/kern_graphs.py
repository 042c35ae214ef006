"""Small qnn graphs that the kern level's tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.builder import ImplicitBuilder
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import float_tensor, shape_of
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.ir.location import Origin
from tests.bits import assert_same

RNG = np.random.default_rng(7)
CODES = IntType(8, 0.05, -3)
POSITIVE = IntType(8, 0.04, -128)


def graph(shapes: Sequence[tuple[int, ...]], body: Callable[..., SSAValue | Sequence[SSAValue]]) -> ModuleOp:
    """``@main`` over f32 inputs; ops are built by ``body`` and located at nodes n0, n1, ..."""
    function = func.FuncOp("main", ([float_tensor(s) for s in shapes], []))
    with ImplicitBuilder(function.body) as arguments:
        result = body(*arguments)
        results = [result] if isinstance(result, SSAValue) else list(result)
        func.ReturnOp(*results)
    function.update_function_type()
    named = [op for op in function.body.block.ops if not isinstance(op, qnn.ConstantOp)]
    for i, op in enumerate(named):
        op.location = Origin(f"n{i}", f"m.{i}", "model.py", i + 1).attribute
    module = ModuleOp([function])
    module.verify()
    return module


def inputs(module: ModuleOp, scale: float = 1.0) -> list[np.ndarray]:
    """Random float inputs of ``@main``."""
    main = next(op for op in module.ops if isinstance(op, func.FuncOp))
    return [(RNG.normal(size=shape_of(a)) * scale).astype(np.float32) for a in main.body.block.args]


def checked(module: ModuleOp, *passes: Callable[[ModuleOp], object]) -> ModuleOp:
    """The module after ``passes`` to the kern level, which leave it whole and its bits as they are."""
    arrays = inputs(module)
    want = run_qnn(module, arrays)
    for each in passes:
        each(module)
    module.verify()
    assert_same(run_kern(module, arrays), want)
    return module


def bodies(module: ModuleOp) -> list[str]:
    """The operations of each kernel, in order."""
    found = [op for op in module.walk() if isinstance(op, kern.KernelOp)]
    return ["+".join(m.name.removeprefix("qnn.") for m in op.members) for op in found]


def q(x: SSAValue, codes: IntType = CODES, bounds: tuple[int, int] | None = None) -> SSAValue:
    return qnn.QuantizeOp(x, codes, bounds).output


def dq(x: SSAValue) -> SSAValue:
    return qnn.DequantizeOp(x).output


def const(*shape: int, scale: float = 1.0) -> SSAValue:
    return qnn.ConstantOp((RNG.normal(size=shape) * scale).astype(np.float32)).output


def weights(*shape: int) -> SSAValue:
    return qnn.ConstantOp(RNG.integers(-127, 128, shape).astype(np.int8)).output


def scales(count: int) -> SSAValue:
    return qnn.ConstantOp((RNG.random(count) * 1e-4 + 1e-4).astype(np.float32)).output


def conv(x: SSAValue, out: int, kernel: int = 1, groups: int = 1, **options) -> SSAValue:
    pad = options.pop("pad", kernel // 2)
    padding = pad if isinstance(pad, tuple) else (pad,) * 4
    w = weights(out, shape_of(x)[1] // groups, kernel, kernel)
    return qnn.Conv2dOp(x, w, scales(out), const(out), padding=padding, groups=groups, **options).output


def linear(x: SSAValue, out: int) -> SSAValue:
    return qnn.LinearOp(x, weights(out, shape_of(x)[-1]), scales(out), const(out)).output


def relu(x: SSAValue) -> SSAValue:
    return qnn.ReluOp(x).output


def add(a: SSAValue, b: SSAValue) -> SSAValue:
    return qnn.AddOp(a, b).output


def residual(x: SSAValue) -> SSAValue:
    """Two convolutions and a residual add, with q/dq between convolution and add as XNNPACK puts them."""
    a = q(x)
    h = q(relu(conv(a, 8, 3)), POSITIVE)
    skip = q(conv(h, 8, 3))
    main = q(conv(q(qnn.HardswishOp(conv(h, 8, 3, groups=8)).output), 8))
    return q(relu(add(dq(main), dq(skip))), POSITIVE)


def zoo(x: SSAValue) -> SSAValue:
    """Residual block, concat, SiLU, pad, max, average and uneven adaptive pools, flatten and a classifier."""
    h = residual(x)
    low = qnn.MaxPool2dOp(h, (3, 3), (2, 2), (1, 1, 1, 1)).output
    both = qnn.ConcatOp([low, q(conv(low, 4), POSITIVE)], 1).output
    y = conv(both, 12, 3, groups=2, strides=(1, 2), pad=(0, 2, 1, 1))
    y = qnn.PadOp(q(qnn.MulOp(y, qnn.SigmoidOp(y)).output), (0, 0, 0, 0, 1, 2, 0, 1), 0.0).output
    y = q(qnn.AdaptiveAvgPool2dOp(y, (4, 3)).output)
    y = q(qnn.AvgPool2dOp(y, (2, 2), (1, 1), (1, 1, 1, 1), False).output)
    y = qnn.ReshapeOp(y, (shape_of(y)[0], 12 * 5 * 4)).output
    return linear(y, 10)


def attention(x: SSAValue) -> SSAValue:
    """[B, T, C] tokens: linear, two heads by reshape and permute, two matrix products."""
    b, t, c = shape_of(x)
    y = q(linear(q(x), c))
    heads = qnn.PermuteOp(qnn.ReshapeOp(y, (b, t, 2, c // 2)).output, (0, 2, 1, 3)).output
    keys = qnn.PermuteOp(heads, (0, 1, 3, 2)).output
    scores = q(qnn.SigmoidOp(qnn.MatmulOp(heads, keys).output).output, IntType(8, 1 / 255, -128))
    mixed = q(qnn.MatmulOp(scores, heads).output)
    joined = qnn.ReshapeOp(qnn.PermuteOp(mixed, (0, 2, 1, 3)).output, (b, t, c)).output
    return add(linear(joined, c), x)


GRAPHS = {
    "residual": ([(2, 3, 9, 8)], residual),
    "zoo": ([(1, 3, 9, 8)], zoo),
    "attention": ([(2, 5, 8)], attention),
}
