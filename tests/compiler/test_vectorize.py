"""Vector programs store the bits of the qnn ops they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.builder import ImplicitBuilder
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, SSAValue

from compiler.analysis.magnitude import Magnitudes
from compiler.backend.registers import ProgramError
from compiler.backend.vectorize import Leaves, Seed, vectorize
from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import float_tensor, is_int
from compiler.interpreter.qnn import evaluate as run_op
from compiler.interpreter.vector import evaluate
from compiler.ir.kernel import Stream, VectorProgram
from isa.instructions import DType, Func, Operand
from tests.compiler.kern_graphs import CODES, POSITIVE, add, dq, q, relu
from tests.thinning import examples

SHAPE = (2, 3, 4)
"""Rank 3 lies row-major with channels innermost: logical and stored arrays are the same."""
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3e38, -3e38, 0.5, 1.5, 2.5], np.float32)


class Chain:
    """A block of qnn ops over two int8 and two f32 arguments, the seed included."""

    def __init__(self, count: int = 4) -> None:
        types = [TensorType(CODES, SHAPE), TensorType(POSITIVE, SHAPE), float_tensor(SHAPE), float_tensor(SHAPE)]
        self.block = Block(arg_types=types[:count])

    def program(self, result: SSAValue, seed: Seed | None = None) -> VectorProgram:
        ops = [op for op in self.block.ops if not isinstance(op, qnn.ConstantOp)]
        leaves = Leaves({a: i for i, a in enumerate(self.block.args)}, constant)
        return vectorize(ops, result, leaves, seed)

    def run(self, result: SSAValue, arrays: list[np.ndarray]) -> np.ndarray:
        values: dict[SSAValue, np.ndarray] = dict(zip(self.block.args, arrays, strict=True))
        for op in self.block.ops:
            values[op.results[0]] = run_op(op, *(values[v] for v in op.operands))
        return values[result]


def constant(value: SSAValue) -> np.ndarray | None:
    return qnn.constant_array(value.owner) if isinstance(value.owner, qnn.ConstantOp) else None


def check(chain: Chain, result: SSAValue, arrays: list[np.ndarray]) -> VectorProgram:
    program = chain.program(result)
    with np.errstate(all="ignore"):
        want = chain.run(result, arrays)
    got = evaluate(program, [arrays[s.operand] for s in program.streams if s.operand is not None])
    # The sign of zero is left to max and min of +0 and -0, which IEEE-754 leaves open.
    assert np.array_equal(got, want, equal_nan=got.dtype == np.float32)
    return program


def leaves(chain: Chain) -> list[SSAValue]:
    return [dq(a) if is_int(a) else a for a in chain.block.args]


UNARY = [
    qnn.ReluOp,
    qnn.HardswishOp,
    qnn.HardsigmoidOp,
    qnn.SigmoidOp,
    qnn.TanhOp,
    lambda v: qnn.ClampOp(v, -1.0, 6.0),
    lambda v: qnn.ClampOp(v, 0.0, float("inf")),
    lambda v: qnn.DequantizeOp(qnn.QuantizeOp(v, IntType(8, 0.013, 17), (-100, 90))),
]
BINARY = [qnn.AddOp, qnn.SubOp, qnn.MulOp]


@settings(max_examples=examples(120), deadline=None)
@given(st.data())
def test_any_chain_stores_the_bits_of_its_ops(data: st.DataObject):
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    floats = data.draw(st.booleans())
    chain = Chain(4 if floats else 2)
    with ImplicitBuilder(chain.block):
        values = leaves(chain)
        values += [qnn.ConstantOp(np.full((), 1.5, np.float32)).output]
        values += [qnn.ConstantOp(rng.normal(size=4).astype(np.float32)).output]
        last = values[0]
        for _ in range(data.draw(st.integers(0, 8))):
            if data.draw(st.booleans()):
                last = data.draw(st.sampled_from(UNARY))(last).results[0]
            else:
                other = values[data.draw(st.integers(0, len(values) - 1))]
                pair = data.draw(st.permutations((last, other)))
                last = data.draw(st.sampled_from(BINARY))(*pair).output
            values.append(last)
        if data.draw(st.booleans()):
            codes = IntType(8, data.draw(st.sampled_from((0.5, 0.013))), data.draw(st.integers(-128, 127)))
            last = q(last, codes, data.draw(st.sampled_from((None, (-20, 30)))))
    arrays = [rng.integers(-128, 128, SHAPE).astype(np.int8) for _ in range(2)]
    arrays += [rng.choice(SPECIAL, SHAPE) for _ in range(len(chain.block.args) - 2)]
    try:
        program = check(chain, last, arrays)
    except ProgramError as error:
        if "NaN" in str(error):
            return
        raise
    assert len(program.streams) <= 4
    assert all(op.dst < 16 and op.a < 16 for op in program.ops)


def test_a_seed_is_scaled_and_biased_per_channel():
    chain = Chain(0)
    acc = Block(arg_types=[float_tensor(SHAPE)]).args[0]
    scale, bias = np.float32([1, 2, 3, 4]), np.float32([5, 6, 7, 8])
    with ImplicitBuilder(chain.block):
        result = relu(acc)
    program = chain.program(result, Seed(acc, Stream(None, DType.I32), scale, bias))
    assert [op.func for op in program.ops] == [Func.MUL, Func.ADD, Func.MAX]
    sums = np.arange(-12, 12, dtype=np.int32).reshape(SHAPE)
    want = np.maximum(sums.astype(np.float32) * scale + bias, np.float32(0))
    assert np.array_equal(evaluate(program, [sums]), want)


def test_equal_channels_need_no_parameter_and_equal_vectors_share_one():
    acc = Block(arg_types=[float_tensor(SHAPE)]).args[0]
    vector = np.float32([1, 2, 3, 4])
    program = Chain(0).program(acc, Seed(acc, Stream(None, DType.I32), np.full(4, 0.5, np.float32), vector))
    assert [op.kind for op in program.ops] == [Operand.IMMEDIATE, Operand.PARAMETER]
    program = Chain(0).program(acc, Seed(acc, Stream(None, DType.I32), vector, vector))
    assert [op.b for op in program.ops] == [0, 0]
    assert len(program.params) == 1


def test_the_conversion_does_the_relu_that_ends_a_chain():
    chain = Chain()
    with ImplicitBuilder(chain.block):
        a, b, x, _ = leaves(chain)
        result = q(relu(add(add(a, b), x)), POSITIVE)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-128, 128, SHAPE).astype(np.int8) for _ in range(2)] + [rng.choice(SPECIAL, SHAPE)] * 2
    program = check(chain, result, arrays)
    assert [op.func for op in program.ops] == [Func.ADD, Func.ADD]


def test_a_relu_above_the_zero_point_stays():
    chain = Chain(1)
    with ImplicitBuilder(chain.block):
        result = q(relu(leaves(chain)[0]), CODES)
    program = check(chain, result, [np.arange(-12, 12, dtype=np.int8).reshape(SHAPE)])
    assert [op.func for op in program.ops] == [Func.MAX]


def test_codes_that_stay_inside_are_never_minus_zero():
    chain = Chain(1)
    with ImplicitBuilder(chain.block):
        result = dq(q(leaves(chain)[0], IntType(8, 1000.0, 0)))
    program = chain.program(result)
    got = evaluate(program, [np.full(SHAPE, -100, np.int8)])
    assert not np.signbit(got).any()


def test_a_constant_minus_a_value_is_exact():
    chain = Chain(3)
    with ImplicitBuilder(chain.block):
        result = qnn.SubOp(qnn.ConstantOp(np.float32([0.0])).output, leaves(chain)[2]).output
    check(chain, result, [np.zeros(SHAPE, np.int8)] * 2 + [np.resize(SPECIAL, SHAPE)])


def test_too_many_streams_are_refused():
    block = Block(arg_types=[float_tensor(SHAPE)] * 5)
    with ImplicitBuilder(block):
        total = block.args[0]
        for value in block.args[1:]:
            total = add(total, value)
    operands = Leaves({a: i for i, a in enumerate(block.args)}, constant)
    with pytest.raises(ProgramError, match="a kernel reads at most 4 streams"):
        vectorize(list(block.ops), total, operands)


def test_too_long_a_chain_is_refused():
    chain = Chain(1)
    with ImplicitBuilder(chain.block):
        value = leaves(chain)[0]
        for _ in range(16):
            value = qnn.HardsigmoidOp(value).output
    with pytest.raises(ProgramError, match="at most 60 slots, this chain needs 64"):
        chain.program(value)


def test_too_many_vectors_are_refused():
    chain = Chain(1)
    with ImplicitBuilder(chain.block):
        value = leaves(chain)[0]
        for i in range(16):
            value = add(value, qnn.ConstantOp(np.arange(i, i + 4, dtype=np.float32)).output)
    with pytest.raises(ProgramError, match="at most 15 per-channel vectors"):
        chain.program(value)


@pytest.mark.parametrize(
    ("make", "finite"),
    [
        (lambda a, x: dq(a), True),
        (lambda a, x: x, False),
        (lambda a, x: qnn.SigmoidOp(x).output, False),
        (lambda a, x: qnn.HardswishOp(add(dq(a), dq(a))).output, True),
        (lambda a, x: qnn.MulOp(dq(a), qnn.ConstantOp(np.float32([3e38])).output).output, False),
        (lambda a, x: qnn.MulOp(dq(a), qnn.ConstantOp(np.float32([np.nan])).output).output, False),
    ],
)
def test_magnitudes_prove_what_cannot_be_nan(make, finite: bool):
    block = Block(arg_types=[TensorType(CODES, SHAPE), float_tensor(SHAPE)])
    with ImplicitBuilder(block):
        value = make(*block.args)
    assert Magnitudes(constant).finite(value) is finite


def test_value_read_from_a_tensor_is_unbounded_whatever_made_it():
    block = Block(arg_types=[TensorType(CODES, SHAPE)])
    with ImplicitBuilder(block):
        value = add(dq(block.args[0]), dq(block.args[0]))
    assert not Magnitudes(constant, {value}).finite(value)


@pytest.mark.parametrize(("low", "high", "ops"), [(-127, 127, 1), (-128, 126, 2), (-128, 127, 0)])
def test_a_clamp_is_left_out_only_where_the_conversion_saturates(low, high, ops):
    chain = Chain(3)
    step, zero = CODES.scale.data, CODES.zero.data
    with ImplicitBuilder(chain.block):
        clamped = qnn.ClampOp(chain.block.args[2], (low - zero) * step, (high - zero) * step).output
        result = q(clamped)
    x = (np.linspace(-140, 140, 24, dtype=np.float32) * np.float32(step)).reshape(SHAPE)
    codes = np.zeros(SHAPE, np.int8)
    assert len(check(chain, result, [codes, codes, x]).ops) == ops
