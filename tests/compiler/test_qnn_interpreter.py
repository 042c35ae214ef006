"""The qnn interpreter against definitions written out in float64 and int64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_layout import code_of
from compiler.interpreter.qnn import SEMANTICS, evaluate, run_qnn
from isa.errors import InputError
from tests.thinning import examples

CODES = IntType(8, 0.05, -3)


def value(shape: tuple[int, ...], kind=CODES):
    return Block(arg_types=[TensorType(kind, shape)]).args[0]


def codes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape, np.int8)


def constants(*arrays: np.ndarray) -> list[qnn.ConstantOp]:
    return [qnn.ConstantOp(array) for array in arrays]


def exact(acc: torch.Tensor, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One binary32 rounding for each of convert, multiply and add; channels on axis 1."""
    shape = (-1, *[1] * (acc.ndim - 2))
    y = acc.numpy().astype(np.int64).astype(np.float32) * scale.reshape(shape)
    return y + bias.reshape(shape)


@settings(max_examples=examples(30), deadline=None)
@given(
    seed=st.integers(0, 999),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    out=st.integers(1, 2),
)
def test_conv2d_is_the_exact_sum_and_two_roundings(seed, groups, kernel, strides, padding, dilation, out):
    rng = np.random.default_rng(seed)
    x, w = codes(rng, 2, 4, 7, 6), codes(rng, 4 * out, 4 // groups, *kernel)
    scale, bias = rng.random((2, 4 * out), np.float32)
    parameters = constants(w, scale, bias)
    window = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    op = qnn.Conv2dOp(value(x.shape), *parameters, **window)
    op.verify_()
    top, left, bottom, right = padding
    centred = F.pad(torch.from_numpy(x).double() + 3, (left, right, top, bottom))
    acc = F.conv2d(centred, torch.from_numpy(w).double(), None, strides, 0, dilation, groups)
    assert np.array_equal(evaluate(op, x, w, scale, bias), exact(acc, scale, bias))


def test_linear_over_the_last_axis():
    rng = np.random.default_rng(0)
    x, w = codes(rng, 2, 3, 5), codes(rng, 4, 5)
    scale, bias = rng.random((2, 4), np.float32)
    op = qnn.LinearOp(value(x.shape), *constants(w, scale, bias))
    acc = (x.astype(np.int64) + 3) @ w.T.astype(np.int64)
    assert np.array_equal(evaluate(op, x, w, scale, bias), acc.astype(np.float32) * scale + bias)


def test_matmul_broadcasts_batches_and_subtracts_both_zero_points():
    rng = np.random.default_rng(0)
    a, b = codes(rng, 2, 1, 3, 4), codes(rng, 5, 4, 6)
    op = qnn.MatmulOp(value(a.shape), value(b.shape, IntType(8, 0.1, 7)))
    acc = (a.astype(np.int64) + 3) @ (b.astype(np.int64) - 7)
    assert np.array_equal(evaluate(op, a, b), acc.astype(np.float32) * (np.float32(0.05) * np.float32(0.1)))


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])
@pytest.mark.parametrize("include", [True, False])
def test_avg_pool_rounds_sum_times_scale_times_inverse_count(padding, include):
    x = codes(np.random.default_rng(1), 2, 3, 7, 8)
    op = qnn.AvgPool2dOp(value(x.shape), (3, 2), (2, 2), padding, include)
    top, left, bottom, right = padding
    ones = F.pad(torch.ones(1, 1, 7, 8), (left, right, top, bottom), value=float(include))
    sums = F.pad(torch.from_numpy(x).double() + 3, (left, right, top, bottom))
    total, count = (F.avg_pool2d(t, (3, 2), 2, divisor_override=1).numpy() for t in (sums, ones))
    want = total.astype(np.float32) * np.float32(0.05) * (1.0 / count).astype(np.float32)
    assert np.array_equal(evaluate(op, x), want)


def test_avg_pool_divisor():
    x = codes(np.random.default_rng(1), 1, 1, 2, 2)
    op = qnn.AvgPool2dOp(value(x.shape), (2, 2), divisor=3)
    total = np.float32(x.astype(np.int64).sum() + 12)
    assert evaluate(op, x).item() == total * np.float32(0.05) * np.float32(1 / 3)


@pytest.mark.parametrize("size", [(3, 2), (1, 1), (7, 5)])
def test_adaptive_avg_pool_reads_torchs_windows(size):
    x = codes(np.random.default_rng(1), 2, 3, 7, 5)
    op = qnn.AdaptiveAvgPool2dOp(value(x.shape), size)
    want = F.adaptive_avg_pool2d((torch.from_numpy(x).double() + 3) * 0.05, size)
    assert np.abs(evaluate(op, x) - want.numpy()).max() < 1e-6


def test_max_pool_leaves_out_taps_outside():
    x = np.full((1, 1, 2, 2), -128, np.int8)
    op = qnn.MaxPool2dOp(value(x.shape), (3, 3), (1, 1), (1, 1, 1, 1))
    assert (evaluate(op, x) == -128).all()


def test_max_pool_with_dilation_equals_torch():
    x = codes(np.random.default_rng(2), 2, 3, 9, 9)
    op = qnn.MaxPool2dOp(value(x.shape), (3, 2), (2, 1), (1, 1, 1, 1), (2, 2))
    want = F.max_pool2d(torch.from_numpy(x).float(), (3, 2), (2, 1), (1, 1), (2, 2))
    assert np.array_equal(evaluate(op, x), want.numpy().astype(np.int8))


def test_pad_of_codes_uses_the_code_of_the_value():
    op = qnn.PadOp(value((2,), IntType(8, 0.5, 3)), (1, 0), 1.0)
    assert evaluate(op, np.array([1, 2], np.int8)).tolist() == [5, 1, 2]


@given(st.floats(2.0**-60, 2.0**60), st.integers(-128, 127))
def test_requantizing_to_the_same_type_gives_the_codes_back(scale, zero):
    """The proof obligation of canonicalize-qnn's DropRequantize, over all 256 codes."""
    kind = IntType(8, scale, zero)
    every = np.arange(-128, 128, dtype=np.int8)
    op = qnn.DequantizeOp(value((256,), kind))
    again = qnn.QuantizeOp(op, kind)
    assert np.array_equal(evaluate(again, evaluate(op, every)), every)


@given(st.floats(2.0**-60, 2.0**60), st.integers(-128, 127), st.integers(-128, 127))
def test_code_of_finds_the_code_of_what_a_code_stands_for(scale, zero, code):
    kind = IntType(8, scale, zero)
    real = evaluate(qnn.DequantizeOp(value((1,), kind)), np.array([code], np.int8))
    assert code_of(float(real[0]), kind) == code


def test_code_of_other_values():
    assert [code_of(v, CODES) for v in (0.0, np.inf, -np.inf, 0.07, 1e300)] == [-3, None, None, None, None]


def test_every_operation_has_semantics():
    assert set(SEMANTICS) == set(qnn.Qnn.operations)


def relu_module() -> ModuleOp:
    kind = TensorType(f32, (2, 2))
    block = Block(arg_types=[kind])
    op = qnn.ReluOp(block.args[0])
    block.add_ops([op, ReturnOp(op)])
    return ModuleOp([FuncOp("main", ([kind], [kind]), Region(block))])


def test_run_qnn_runs_main():
    (out,) = run_qnn(relu_module(), [np.array([[1, -1], [-2, 2]], np.float32)])
    assert out.tolist() == [[1, 0], [0, 2]]


def test_run_qnn_names_the_wrong_input():
    with pytest.raises(InputError, match=r"input 0 must be float32\[2, 2\], got float64\[2, 2\]"):
        run_qnn(relu_module(), [np.zeros((2, 2))])
    with pytest.raises(InputError, match="@main takes 1 inputs, got 0"):
        run_qnn(relu_module(), [])


def test_constant_array_is_a_view_of_the_attributes_bytes():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    op = qnn.ConstantOp(array)
    back = qnn.constant_array(op)
    assert np.array_equal(back, array)
    assert not back.flags.writeable
    assert np.shares_memory(back, np.frombuffer(op.value.data.data, np.uint8))
