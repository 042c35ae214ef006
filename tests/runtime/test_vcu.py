"""vcu.run against plain numpy in binary32 and exact integers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import BINARY_FUNCS, Memory
from isa.errors import AccessError
from isa.instructions import (
    DType,
    Func,
    Operand,
    Reduce,
    Space,
    VcuBase,
    VcuConvert,
    VcuOp,
    VcuParams,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuWindow,
)
from tests.runtime.machine import context, get, put, run
from tests.thinning import examples

OUT = 32768
F32_OUT = VcuStream(id=7, dtype=DType.F32, stride0=0, stride1=0, stride2=4)


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous().view(torch.int32)


def over(values: torch.Tensor, *ops: VcuOp, second: torch.Tensor | None = None) -> torch.Tensor:
    """A program over binary32 ``values`` in stream A (and ``second`` in B)."""
    found, n = context(), values.numel()
    put(found, Memory.SRAM, 0, values)
    setup = [VcuShape(n2=n), F32_OUT, *ops]
    setup += [VcuStream(id=i, dtype=DType.F32, stride2=4) for i in (0, 1)]
    if second is not None:
        put(found, Memory.SRAM, 4 * n, second)
    streams = 1 if second is None else 2
    run(found, *setup, VcuRun(count=len(ops), streams=streams, a=0, b=4 * n, dst=OUT))
    return get(found, Memory.SRAM, OUT, (n,), torch.float32)


FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20)
PLAIN = {Func.ABS: torch.abs, Func.FLOOR: torch.floor}
NUMPY = {Func.ADD: np.add, Func.SUB: np.subtract, Func.MUL: np.multiply, Func.MIN: np.minimum, Func.MAX: np.maximum}


@given(FLOATS, st.floats(width=32, allow_nan=False), st.sampled_from(sorted(NUMPY)))
def test_operations_round_once(values, b, func):
    a = np.array(values, np.float32)
    with np.errstate(all="ignore"):
        want = NUMPY[func](a, np.float32(b))
    immediate = over(torch.from_numpy(a), VcuOp(func=func, b_kind=Operand.IMMEDIATE, immediate=b))
    register = over(torch.from_numpy(a), VcuOp(func=func, b=1), second=torch.full((len(a),), b))
    assert np.array_equal(immediate.numpy(), want, equal_nan=True)
    assert np.array_equal(register.numpy(), want, equal_nan=True)


@pytest.mark.parametrize("n", [1, 7, 33])
@pytest.mark.parametrize("b", [0.0, -0.0, 1.0, float("nan")])
@pytest.mark.parametrize("func", [Func.MIN, Func.MAX])
def test_minimum_and_maximum_order_the_zeros(func, b, n):
    a = torch.tensor([-0.0, 0.0, -1.0, 2.0, float("nan")]).repeat(n)
    choose = min if func == Func.MIN else max
    chosen = [choose(x, b, key=lambda v: (v, math.copysign(1, v))) for x in a.tolist()]
    want = torch.where((a + b).isnan(), 9.0, torch.tensor(chosen))
    immediate = over(a, VcuOp(func=func, b_kind=Operand.IMMEDIATE, immediate=b))
    first = over(a, VcuOp(func=func, b=1), second=torch.full_like(a, b))
    second = over(torch.full_like(a, b), VcuOp(func=func, b=1), second=a)
    for found in (immediate, first, second):
        assert torch.equal(bits(found.nan_to_num(nan=9.0)), bits(want))


def test_a_multiply_and_an_add_are_never_fused():
    a = torch.linspace(0.1, 7.7, 101)
    ops = (
        VcuOp(slot=0, func=Func.MUL, dst=4, a=0, b=0),
        VcuOp(slot=1, func=Func.SUB, dst=4, a=4, b_kind=Operand.IMMEDIATE, immediate=0.3),
    )
    x = a.numpy()
    assert torch.equal(over(a, *ops), torch.from_numpy(x * x - np.float32(0.3)))


@pytest.mark.parametrize(
    "func",
    [f for f in Func if f not in BINARY_FUNCS and f not in (Func.COPY, Func.RINT, *PLAIN)],
    ids=lambda f: f.name,
)
def test_functions_are_those_of_the_numerics(func):
    from isa import numerics

    a = torch.tensor([0.0, -0.0, 0.5, -3.0, 88.0, 1e-30, float("inf"), float("-inf"), float("nan")])
    want = getattr(numerics, func.name.lower())(a)
    assert torch.equal(bits(over(a, VcuOp(func=func))), bits(want))


@pytest.mark.parametrize(("func", "want"), PLAIN.items(), ids=lambda f: getattr(f, "name", ""))
def test_absolute_value_and_floor(func, want):
    a = torch.tensor([0.0, -0.5, 2.5, -3.0, float("-inf")])
    assert torch.equal(over(a, VcuOp(func=func)), want(a))


@pytest.mark.parametrize(
    ("func", "want"),
    [
        (Func.DIV, [float("inf"), 0.5, -1.5, float("nan")]),
        (Func.GE, [1.0, 0.0, 0.0, 0.0]),
        (Func.GT, [1.0, 0.0, 0.0, 0.0]),
        (Func.EQ, [0.0, 0.0, 0.0, 0.0]),
        (Func.SELECT, [0.0, 2.0, 2.0, 2.0]),
        (Func.ALIGN, [0.25, 0.5, 0.25, float("nan")]),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_functions_of_two_operands(func, want):
    """a and b are streams; SELECT reads what its destination, b, holds; ALIGN takes bits as an immediate."""
    a, b = torch.tensor([1.0, 1.0, -3.0, float("nan")]), torch.tensor([0.0, 2.0, 2.0, 2.0])
    if func is Func.ALIGN:
        a = torch.tensor([5.0, 2.0, -7.5, float("inf")])
        op = VcuOp(func=func, b_kind=Operand.IMMEDIATE, immediate=1.0)
    elif func is Func.SELECT:
        op = VcuOp(func=func, dst=1, a=1, b_kind=Operand.REGISTER, b=1)
    else:
        op = VcuOp(func=func, b=1)
    found = over(a, op, second=b)
    assert torch.equal(bits(found), bits(torch.tensor(want)))


def test_rint_rounds_to_even_and_copy_copies():
    a = torch.tensor([0.5, 1.5, -2.5, 2.500001])
    assert over(a, VcuOp(func=Func.RINT)).tolist() == [0.0, 2.0, -2.0, 3.0]
    assert torch.equal(over(a, VcuOp(func=Func.COPY, dst=9)), a)
    assert torch.equal(over(a), a)


def test_the_last_result_is_stored_and_unwritten_registers_are_zero():
    a = torch.tensor([1.0, 2.0])
    ops = (VcuOp(slot=0, dst=3, func=Func.ADD, a=0, b=0), VcuOp(slot=1, dst=5, func=Func.ADD, a=3, b=15))
    assert over(a, *ops).tolist() == [2.0, 4.0]


def test_a_register_may_be_written_over_its_own_operand():
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])
    ops = (
        VcuOp(slot=0, func=Func.COPY, dst=4, a=0),
        VcuOp(slot=1, func=Func.ADD, dst=0, a=0, b=1),
        VcuOp(slot=2, func=Func.SUB, dst=1, a=0, b=4),
    )
    assert torch.equal(over(a, *ops, second=b), (a + b) - a)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20))
def test_int32_streams_round_to_nearest_even(values):
    found = context()
    put(found, Memory.ACC, 0, torch.tensor(values, dtype=torch.int32))
    setup = VcuShape(n2=len(values)), VcuStream(id=0, dtype=DType.I32, space=Space.ACC, stride2=4), F32_OUT
    run(found, *setup, VcuRun(a=0, dst=OUT))
    got = get(found, Memory.SRAM, OUT, (len(values),), torch.float32)
    assert np.array_equal(got.numpy(), np.array(values, np.int64).astype(np.float32))


@given(st.sampled_from([0.0, 1.0, 0.1, -3.7]), st.integers(-128, 127))
def test_int8_streams_are_dequantized(scale, zero):
    found = context()
    codes = torch.arange(-128, 128).to(torch.int8)
    put(found, Memory.SRAM, 0, codes)
    run(found, VcuShape(n2=256), VcuConvert(id=0, zero=zero, scale=scale), F32_OUT, VcuRun(a=0, dst=OUT))
    want = (codes.numpy().astype(np.float32) - np.float32(zero)) * np.float32(scale or 1.0)
    assert np.array_equal(get(found, Memory.SRAM, OUT, (256,), torch.float32).numpy(), want)


@given(FLOATS, st.sampled_from([1.0, 20.0, 1e-3]), st.integers(-128, 127))
def test_int8_outputs_are_quantized(values, scale, zero):
    found, a = context(), np.array(values, np.float32)
    put(found, Memory.SRAM, 0, torch.from_numpy(a))
    setup = VcuShape(n2=len(a)), VcuStream(id=0, dtype=DType.F32, stride2=4), VcuConvert(id=7, scale=scale, zero=zero)
    run(found, *setup, VcuRun(a=0, dst=OUT))
    with np.errstate(over="ignore"):
        want = np.clip(np.rint(a * np.float32(scale)) + np.float32(zero), -128, 127)
    assert get(found, Memory.SRAM, OUT, (len(a),), torch.int8).tolist() == want.tolist()


def test_odd_values_have_defined_codes():
    found = context()
    put(found, Memory.SRAM, 0, torch.tensor([float("nan"), float("inf"), float("-inf"), 3e9, 2.5]))
    setup = VcuShape(n2=5), VcuStream(id=0, dtype=DType.F32, stride2=4), VcuConvert(id=7, zero=7)
    run(found, *setup, VcuRun(a=0, dst=OUT))
    assert get(found, Memory.SRAM, OUT, (5,), torch.int8).tolist() == [7, 127, -128, 127, 9]


def test_int32_outputs_round_to_even_and_saturate():
    values = [float("nan"), float("inf"), float("-inf"), 3e9, 2147483520.0, 2.5, 3.5, -2.7, -0.5]
    want = [0, 2**31 - 1, -(2**31), 2**31 - 1, 2147483520, 2, 4, -3, 0]
    found, n = context(), len(values)
    put(found, Memory.SRAM, 0, torch.tensor(values))
    streams = VcuStream(id=0, dtype=DType.F32, stride2=4), VcuStream(id=7, dtype=DType.I32, stride2=4)
    run(found, VcuShape(n2=n), *streams, VcuConvert(id=7, zero=7, scale=3.0), VcuRun(a=0, dst=OUT))
    assert get(found, Memory.SRAM, OUT, (n,), torch.int32).tolist() == want


@settings(max_examples=examples(60))
@given(
    st.tuples(*[st.integers(1, 4)] * 3),
    st.tuples(*[st.sampled_from([0, 1])] * 6),
    st.sampled_from([Func.ADD, Func.SUB, Func.MUL]),
)
def test_streams_broadcast_along_axes_of_stride_zero(shape, moving, func):
    found, natural = context(), (shape[1] * shape[2], shape[2], 1)
    strides = [tuple(m * s for m, s in zip(moving[i : i + 3], natural, strict=True)) for i in (0, 3)]
    sram = found.memory.bytes[Memory.SRAM].view(torch.int8).clone()
    a, b = (sram[at:].as_strided(shape, s).numpy().astype(np.float32) for at, s in zip((0, 200), strides, strict=True))
    want = NUMPY[func](a, b)
    setup = [VcuShape(*(0,) * 4, *shape), VcuOp(func=func, b=1, dst=0), VcuConvert(id=1), VcuConvert(id=0)]
    setup += [VcuStream(id=i, stride0=s[0], stride1=s[1], stride2=s[2]) for i, s in enumerate(strides)]
    setup += [VcuStream(id=7, dtype=DType.F32, stride0=4 * natural[0], stride1=4 * natural[1], stride2=4)]
    run(found, *setup, VcuRun(count=1, streams=2, a=0, b=200, dst=OUT))
    assert np.array_equal(get(found, Memory.SRAM, OUT, shape, torch.float32).numpy(), want)


def test_four_streams_and_parameters():
    found, n = context(), 6
    values = torch.randn(6, n)
    put(found, Memory.SRAM, 0, values)
    setup = [VcuShape(n2=n), F32_OUT, VcuBase(c=8 * n, d=12 * n), VcuParams(base=16 * n, stride=4 * n)]
    setup += [VcuStream(id=i, dtype=DType.F32, stride2=4) for i in range(4)]
    setup += [
        VcuOp(slot=0, func=Func.MUL, dst=4, a=0, b_kind=Operand.PARAMETER, b=1),
        VcuOp(slot=1, func=Func.ADD, dst=4, a=4, b=1),
        VcuOp(slot=2, func=Func.SUB, dst=4, a=2, b=4),
        VcuOp(slot=3, func=Func.MUL, dst=4, a=4, b=3),
        VcuOp(slot=4, func=Func.ADD, dst=4, a=4, b_kind=Operand.PARAMETER, b=0),
    ]
    run(found, *setup, VcuRun(count=5, streams=4, a=0, b=4 * n, dst=OUT))
    a, b, c, d, p0, p1 = values
    want = (c - (a * p1 + b)) * d + p0
    assert torch.equal(get(found, Memory.SRAM, OUT, (n,), torch.float32), want)


@settings(max_examples=examples(80))
@given(
    st.sampled_from([(Reduce.MAX, DType.I8), (Reduce.MAX, DType.I16), (Reduce.SUM, DType.I8)]),
    st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 3)] * 4, *[st.integers(0, 3)] * 2),
    st.tuples(*[st.integers(1, 7)] * 2),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from([0, -128, 5]),
    st.sampled_from([0.0, 0.25]),
)
def test_windows_reduce_the_taps_inside_the_tile(kind, window, size, out, zero, scale):
    kh, kw, sh, sw, dh, dw, top, left = window
    (reduce, dtype), found, (height, width), (n0, n1, n2) = kind, context(), size, out
    item, torch_type = (2, torch.int16) if dtype is DType.I16 else (1, torch.int8)
    x = found.memory.bytes[Memory.SRAM].view(torch_type)[: height * width * n2].view(height, width, n2).long().numpy()
    want = np.zeros(out, np.float32)
    for y, z in np.ndindex(n0, n1):
        taps = [(y * sh + i * dh - top, z * sw + j * dw - left) for i in range(kh) for j in range(kw)]
        inside = [x[r, c] - zero for r, c in taps if 0 <= r < height and 0 <= c < width]
        if reduce == Reduce.MAX:
            want[y, z] = np.max(inside, axis=0) if inside else torch.iinfo(torch_type).min - zero
        else:
            want[y, z] = np.sum(inside, axis=0)
    want *= np.float32(scale or 1.0)
    setup = [
        VcuShape(n0=n0, n1=n1, n2=n2),
        VcuStream(id=0, dtype=dtype, stride0=item * width * n2, stride1=item * n2, stride2=item),
        VcuStream(id=7, dtype=DType.F32, stride0=4 * n1 * n2, stride1=4 * n2, stride2=4),
        VcuConvert(id=0, zero=zero, scale=scale),
        VcuWindow(0, 0, 0, 0, reduce, kh, kw, sh, sw, dh, dw, top, left, height, width),
    ]
    run(found, *setup, VcuRun(a=0, dst=OUT))
    assert np.array_equal(get(found, Memory.SRAM, OUT, out, torch.float32).numpy(), want)


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([VcuRun(streams=5)], r"streams = 5: must be at most 4"),
        ([VcuRun(first=63, count=2)], r"slots 63 .. 64: the machine has 64"),
        ([VcuShape(n0=2), VcuRun()], r"overlaps itself"),
        ([VcuShape(n2=9), VcuRun(a=65530)], r"SRAM bytes 0xfffa to 0x10003 .* ends at 0x10000"),
        ([VcuStream(id=0, dtype=DType.F32), VcuRun(a=2)], r"must lie at multiples of 4"),
        ([VcuStream(id=0, dtype=DType.F32), VcuWindow(reduce=Reduce.MAX), VcuRun()], r"F32 under a .* I8 or I16"),
        ([VcuStream(id=0, dtype=DType.I16), VcuWindow(reduce=Reduce.SUM), VcuRun()], r"I16 under a .* must be I8"),
    ],
)
def test_illegal_runs_name_the_rule(instructions, message):
    with pytest.raises(AccessError, match=message):
        run(context(), *instructions)


def test_an_empty_iteration_space_does_nothing():
    found = context()
    before = found.memory.bytes[Memory.SRAM].clone()
    run(found, VcuShape(n1=0), VcuRun(a=0, dst=0))
    assert torch.equal(found.memory.bytes[Memory.SRAM], before)
