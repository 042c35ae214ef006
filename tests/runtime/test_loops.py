"""Compiled loops against the functions of isa.numerics, bit by bit, over all kinds of binary32."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import numerics
from isa.access import BINARY_FUNCS
from isa.instructions import DType, Func, Operand, RowReduce, VcuOp
from runtime.functional.table import assemble, collapse, make_table
from runtime.loops import compiled
from runtime.loops.compiled import digest, loop
from runtime.loops.layout import ENCODED, ONE, SRAM, bits
from runtime.loops.multiply import EDGE_BYTES, multiply, pack
from runtime.loops.vector import run_program
from tests.isa.exact import same
from tests.thinning import examples

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 2.0**-126, 3.4e38, 1.0, -1.0, 0.5, 1.5, -2.5]
ITEM = {DType.I4: 0.5, DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F32: 4, ENCODED: 0.5}
NO_ROWS = (RowReduce.NONE, 1, 0, 0, 0, 0, 0, 0)


def sweep(step: int) -> np.ndarray:
    """Every ``step``-th of all bit patterns, the interesting intervals more densely, and the special values."""
    everywhere = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    rng = np.random.default_rng(0)
    near = [rng.uniform(-r, r, 20000).astype(np.float32) for r in (0.1, 1, 5, 20, 150)]
    return np.concatenate([everywhere, np.array(SPECIAL, np.float32), *near])


def execute(
    streams: list[np.ndarray],
    ops: list[VcuOp] = (),
    kind: int = DType.F32,
    conversion: tuple[int, float] = (0, 1.0),
    shape: tuple[int, int, int] | None = None,
    reduction: tuple[int, ...] = NO_ROWS,
    thresholds: tuple[float, ...] = (),
) -> np.ndarray:
    """Bytes of the results of a program over dense binary32 streams: elements, or rows where there is a reduction."""
    n = streams[0].size
    shape = shape or (1, 1, n)
    memory = np.zeros(4 * n * (len(streams) + 2) + 64, np.uint8)
    rows, at = [], 0
    for values in streams:
        memory[at : at + 4 * n] = values.view(np.uint8)
        rows.append((DType.F32, SRAM, at, 4 * shape[1] * shape[2], 4 * shape[2], 4, 0, ONE))
        at += 4 * n
    line = int(np.ceil(shape[2] * ITEM[kind]))
    output = (kind, SRAM, at, line * shape[1], line, max(int(ITEM[kind]), 1), conversion[0], bits(conversion[1]))
    reduces = reduction[0] != RowReduce.NONE
    reduction = (*reduction[:2], at, *reduction[3:])
    program = assemble(ops, len(streams), lambda vector: vector)
    levels = [bits(t) for t in (*thresholds, *[0.0] * 16)][:16]
    table, size = make_table(shape, rows, program, None if reduces else output, reduction, levels)
    room = np.empty(size, np.uint8)
    base = memory.ctypes.data
    run_program(table.ctypes.data, base, base, base, room.ctypes.data)
    return memory[at:]


def f32(found: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` binary32, whose NaN are all the machine's one."""
    y = found[: 4 * n].view(np.float32)
    assert set(y[np.isnan(y)].view(np.int32)) <= {0x7FC00000}
    return y


FUNCTIONS = ["erf", "exp", "exp2", "log", "log2", "reciprocal", "rsqrt", "sigmoid", "sqrt", "tanh"]


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_bits_of_the_numerics(name):
    x = sweep(9973)
    want = getattr(numerics, name)(x)
    found = f32(execute([x], [VcuOp(func=Func[name.upper()])]), x.size)
    assert np.array_equal(found.view(np.int32), want.view(np.int32))


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = np.where((a == 0) & (b == 0), np.where(np.signbit(a), a, b), np.minimum(a, b))
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), y)


BINARY = {
    Func.ADD: np.add,
    Func.SUB: np.subtract,
    Func.MUL: np.multiply,
    Func.DIV: np.divide,
    Func.MIN: minimum,
    Func.MAX: lambda a, b: -minimum(-a, -b),
    Func.GE: lambda a, b: (a >= b).astype(np.float32),
    Func.GT: lambda a, b: (a > b).astype(np.float32),
    Func.EQ: lambda a, b: (a == b).astype(np.float32),
    Func.SELECT: lambda a, b: np.where(a != 0, b, a),
    Func.ALIGN: lambda a, b: numerics.align(a, b.astype(np.int32)),
}


@pytest.mark.parametrize("func", sorted(BINARY_FUNCS), ids=lambda f: f.name)
def test_operations_of_two_numbers_round_once(func):
    a = sweep(30011)
    b = np.random.default_rng(1).permutation(a)
    if func is Func.ALIGN:
        b = (np.arange(a.size) % 60).astype(np.float32)
    with np.errstate(all="ignore"):
        want = BINARY[func](a, b)
    assert same(f32(execute([a, b], [VcuOp(func=func, b=1)]), a.size), want)


@pytest.mark.parametrize(
    ("func", "want"),
    [(Func.COPY, np.positive), (Func.RINT, np.rint), (Func.ABS, np.abs), (Func.FLOOR, np.floor)],
    ids=lambda f: getattr(f, "name", ""),
)
def test_roundings_and_signs(func, want):
    x = sweep(9973)
    with np.errstate(all="ignore"):
        assert same(f32(execute([x], [VcuOp(func=func)]), x.size), want(x))


@pytest.mark.parametrize("zero", [0, -128, 5])
@pytest.mark.parametrize("scale", [1.0, 37.3, 1e-3])
@pytest.mark.parametrize("kind", [DType.I4, DType.I8, DType.I16], ids=lambda k: k.name)
def test_conversions_to_codes_have_the_bits_of_the_numerics(kind, scale, zero):
    x = sweep(30011)
    zero = max(zero, -8) if kind is DType.I4 else zero
    width = int(8 * ITEM[kind])
    want = numerics.quantize(x, scale, zero, *numerics.code_range(width), dtype=numerics.code_type(width))
    want = numerics.pack4(want) if kind is DType.I4 else want
    found = execute([x], kind=kind, conversion=(zero, scale))
    assert np.array_equal(found[: want.nbytes], want.view(np.uint8))


def test_conversions_to_integers_round_to_even_and_saturate():
    x = sweep(9973)
    with np.errstate(all="ignore"):
        whole = np.nan_to_num(np.rint(x).astype(np.float64), nan=0.0, posinf=2.0**40, neginf=-(2.0**40))
    want = np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32)
    assert np.array_equal(execute([x], kind=DType.I32)[: 4 * x.size].view(np.int32), want)


def test_encoders_have_the_bits_of_the_numerics():
    x = sweep(30011)
    thresholds = tuple(float(np.float32(t)) for t in np.linspace(-3, 4, 15))
    codes = np.where(np.isnan(x), np.int8(3), numerics.encode(x, thresholds))
    found = execute([x], kind=ENCODED, conversion=(3, 1.0), thresholds=thresholds)
    want = numerics.pack4(codes)
    assert np.array_equal(found[: want.size], want.view(np.uint8))


def reduced(kind: RowReduce, x: np.ndarray, fraction: int) -> list[np.ndarray]:
    functions = {RowReduce.SUM: numerics.row_sum, RowReduce.SQUARES: numerics.row_squares}
    if kind is RowReduce.MOMENTS:
        return list(numerics.row_moments(x, fraction))
    if kind in functions:
        return [functions[kind](x, fraction)]
    plain = {RowReduce.MAX: numerics.row_max, RowReduce.MIN: numerics.row_min, RowReduce.ARGMAX: numerics.row_argmax}
    return [plain[kind](x).astype(np.float32)]


@pytest.mark.parametrize("n", [1, 3, 100, 1024, 1025, 5000])
@pytest.mark.parametrize("kind", [k for k in RowReduce if k is not RowReduce.NONE], ids=lambda k: k.name)
def test_reductions_of_rows_in_any_number_of_pieces(kind, n):
    """Rows of numbers of one size, of numbers out of range, of infinities, NaN and both zeros."""
    rng, rows = np.random.default_rng(n), 7
    x = rng.normal(0, 3, (rows, n)).astype(np.float32)
    for row, value in zip(x[1:], (np.nan, np.inf, -np.inf, 3e38, -0.0), strict=False):
        row[rng.integers(n)] = value
    x[6] = np.where(rng.random(n) < 0.5, 0.0, -0.0)
    for fraction in (0, 12, -2):
        wanted = reduced(kind, x, fraction)
        factors = *numerics.powers(-fraction), *numerics.powers(-2 * fraction)
        reduction = (kind, 0, 0, bits(2.0**fraction), *map(bits, factors))
        found = f32(execute([x.ravel()], shape=(1, rows, n), reduction=reduction), rows * len(wanted))
        assert same(found.reshape(rows, -1), np.stack(wanted, -1))


STRIDES = st.tuples(*[st.sampled_from([0, 1, 2, 3, 4, 6, 12, 24])] * 3)


@given(st.tuples(*[st.integers(1, 4)] * 3), st.lists(STRIDES, max_size=3), st.booleans())
def test_fewer_loops_visit_the_same_elements_in_the_same_order(shape, strides, whole):
    size, moved = collapse(shape, strides, whole)
    assert len(size) == 3
    assert size[2] == shape[2] or not whole
    for before, after in zip(strides, moved, strict=True):
        visited = [sum(i * s for i, s in zip(at, before, strict=True)) for at in np.ndindex(*shape)]
        assert [sum(i * s for i, s in zip(at, after, strict=True)) for at in np.ndindex(*size)] == visited


@pytest.mark.parametrize(
    ("shape", "strides", "whole", "size"),
    [
        ((2, 3, 4), [(12, 4, 1), (48, 16, 4)], False, (1, 1, 24)),
        ((2, 3, 4), [(12, 4, 1)], True, (1, 6, 4)),
        ((2, 3, 4), [(12, 4, 1), (12, 4, 0)], False, (1, 6, 4)),
        ((1, 86, 1), [(0, 4, 0)], False, (1, 1, 86)),
    ],
)
def test_loops_become_one_where_every_stream_lies_dense(shape, strides, whole, size):
    assert collapse(shape, strides, whole)[0] == size


REGISTERS = st.integers(0, 5)
OPERANDS = st.sampled_from(list(Operand))
OPS = st.lists(
    st.builds(VcuOp, func=st.sampled_from(list(Func)), dst=REGISTERS, a=REGISTERS, b=REGISTERS, b_kind=OPERANDS),
    max_size=8,
)


@given(OPS, st.integers(0, 4))
def test_a_result_never_lies_on_its_operands(ops, streams):
    """Vectorized loops read ahead of what they write."""
    program = assemble(ops, streams, lambda vector: 64 * vector)
    constants = {block for *_, block in program.constants}
    for _, out, *operands in program.operations:
        assert out not in operands
        assert out not in constants
    assert max([program.result, *constants]) < program.blocks


def test_compiled_code_is_known_by_its_sources(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    before = digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert digest(tmp_path) != before
    assert compiled.SOURCES in run_program._cache._index_key((), run_program.targetctx.codegen())


def test_a_function_that_cannot_be_kept_is_compiled_all_the_same():
    found = {}
    exec("def double(a):\n    return a + a", found)
    assert loop(found["double"])(21) == 42


def multiplied(function, a, w, start, transposed):
    """start + a @ w.T by compiled loops, into rows with a gap; where start is None the rows are overwritten."""
    (m, k), n, gap = a.shape, len(w), 3
    edge = np.empty(EDGE_BYTES, np.uint8)
    rows = np.append(a.ravel(), np.int16(777))  # what lies behind an odd row counts for nothing
    lying = np.ascontiguousarray(w.T if transposed else w)
    packed = np.empty(((n + 15) // 16, (k + 1) // 2, 16, 2), np.int16)
    pack(lying.ctypes.data, n, k, transposed, packed.ctypes.data)
    out = np.full((m, n + gap), 99, np.int32)
    if start is not None:
        out[:, :n] = start
    add = start is not None
    at = rows.ctypes.data, 2 * k, (m, n, k), packed.ctypes.data, add, 4 * (n + gap), out.ctypes.data, edge.ctypes.data
    function(*at)
    assert (out[:, n:] == 99).all()
    return out[:, :n]


@pytest.fixture(scope="module", params=[True, False], ids=["by pairs", "by halves"])
def engine(request):
    """The multiplication with the instruction that adds pairs, where there is one, and without it."""
    if request.param:
        yield multiply
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.loops.multiply.adds_pairs", lambda _context: False)
        yield numba.njit(error_model="numpy")(multiply.py_func)


@pytest.mark.thin(1)
@settings(max_examples=examples(80))
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 30)),
    st.sampled_from([1, 255, 2**15 - 1]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_integer_products_are_exact_and_wrap(engine, shape, largest, add, transposed, seed):
    m, n, k = shape
    rng = np.random.default_rng(seed)
    a, w = (rng.integers(-largest, largest + 1, (rows, k)).astype(np.int16) for rows in (m, n))
    start = rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32) if add else None
    want = a.astype(np.int64) @ w.T.astype(np.int64) + (start if add else 0)
    assert np.array_equal(multiplied(engine, a, w, start, transposed), want.astype(np.int32))


def test_loops_agree_with_torch_on_a_whole_program():
    """GELU as the compiler emits it, over blocks and a rest."""
    x = torch.linspace(-6, 6, 3001)
    half = VcuOp(0, 0, 0, 0, 0, Func.MUL, 4, 0, Operand.IMMEDIATE, 0, 0.5)
    scaled = VcuOp(0, 0, 0, 0, 1, Func.MUL, 5, 0, Operand.IMMEDIATE, 0, numerics.fp32(0.5**0.5))
    bent = VcuOp(0, 0, 0, 0, 2, Func.ERF, 5, 5)
    more = VcuOp(0, 0, 0, 0, 3, Func.ADD, 5, 5, Operand.IMMEDIATE, 0, 1.0)
    both = VcuOp(0, 0, 0, 0, 4, Func.MUL, 4, 4, Operand.REGISTER, 5)
    found = f32(execute([x.numpy()], [half, scaled, bent, more, both]), x.numel())
    assert torch.equal(torch.from_numpy(found.copy()), numerics.gelu(x))
