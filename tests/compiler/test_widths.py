"""Every pair of widths: the same bits at every level, the mode of every product, and bits of weights as stored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerType, ModuleOp
from xdsl.ir import SSAValue

from compiler.backend.pack import packed
from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.interpreter.tile import run_tile
from compiler.pipeline import Options, compile_module
from isa import numerics
from isa.errors import UnsupportedError
from isa.instructions import DType, MmuCodes, MmuRun, Mode
from isa.machine import Machine
from isa.program import decode
from tests.bits import assert_same
from tests.compiler.kern_graphs import dq, graph, inputs, relu

MACHINES = ("tiny", "edge28")
ACTS = {4: IntType(4, 0.4, -2), 8: IntType(8, 0.03, 5), 16: IntType(16, 2e-4, -700)}
ARRAYS = {4: np.int8, 8: np.int8, 16: np.int16}
BOOK = IntType(4, 0.05, 3, [-90, -64, -45, -30, -20, -12, -6, -1, 2, 7, 13, 21, 33, 48, 70, 100])
THRESHOLDS = np.linspace(-3, 3, 15)
PAIRS = [(8, 8), (4, 8), (4, 4), (8, 16), (16, 16), (8, 4), (4, 16)]
MODES = {
    (8, 8): Mode.W8A8, (4, 8): Mode.W4A8, (4, 4): Mode.W4A4, (8, 16): Mode.W8A16, (16, 16): Mode.W16A16,
    (8, 4): Mode.W8A8, (4, 16): Mode.W8A16,
}  # fmt: skip
RNG = np.random.default_rng(3)


def weight(width: int, *shape: int) -> SSAValue:
    if width == 32:
        return qnn.ConstantOp(RNG.normal(size=shape).astype(np.float32)).output
    half = 1 << (width - 1)
    array = RNG.integers(-half, half, shape).astype(ARRAYS[width])
    return qnn.ConstantOp(array, IntegerType(width)).output


def vector(count: int, scale: float) -> SSAValue:
    return qnn.ConstantOp((RNG.uniform(0.5, 1, count) * scale).astype(np.float32)).output


def quantize(x: SSAValue, width: int) -> SSAValue:
    return qnn.QuantizeOp(x, ACTS[width]).output


def zeros(width: int, count: int, per_channel: bool) -> list[int] | None:
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    return [int(z) for z in RNG.integers(low, high + 1, count)] if per_channel else None


def conv(w: int, a: int, per_channel: bool = False, **options: object) -> ModuleOp:
    def body(x: SSAValue) -> SSAValue:
        out, inner = 7, 5 // int(options.get("groups", 1))  # type: ignore[call-overload]
        codes = quantize(x, a)
        y = qnn.Conv2dOp(
            codes, weight(w, out, inner, 3, 2), vector(out, 1e-3), vector(out, 0.1), padding=(1, 0, 1, 1),
            weight_zeros=zeros(w, out, per_channel), **options,
        ).output  # fmt: skip
        return dq(quantize(relu(y), a))

    return graph([(1, 5, 6, 5)], body)


def linear(w: int, a: int, per_channel: bool = False) -> ModuleOp:
    def body(x: SSAValue) -> SSAValue:
        y = qnn.LinearOp(quantize(x, a), weight(w, 11, 37), vector(11, 1e-3), vector(11, 1.0),
                         weight_zeros=zeros(w, 11, per_channel)).output  # fmt: skip
        z = qnn.LinearOp(quantize(y, a), weight(w, 9, 11), vector(9, 1e-3), None).output
        return z

    return graph([(3, 37)], body)


def depthwise(w: int, a: int, per_channel: bool = False) -> ModuleOp:
    def body(x: SSAValue) -> SSAValue:
        y = qnn.Conv2dOp(quantize(x, a), weight(w, 9, 1, 3, 3), vector(9, 1e-2), vector(9, 0.1), groups=9,
                         padding=(1, 1, 1, 1), weight_zeros=zeros(w, 9, per_channel)).output  # fmt: skip
        return dq(quantize(y, a))

    return graph([(1, 9, 5, 6)], body)


def grouped(w: int, a: int, per_channel: bool = False) -> ModuleOp:
    def body(x: SSAValue) -> SSAValue:
        y = qnn.Conv2dOp(quantize(x, a), weight(w, 8, 3, 2, 2), vector(8, 1e-2), None, groups=4,
                         weight_zeros=zeros(w, 8, per_channel)).output  # fmt: skip
        return dq(quantize(y, a))

    return graph([(1, 12, 4, 5)], body)


def check(module: ModuleOp, machine: str, scale: float = 1.0):
    """All levels give the bits of the graph; the binary's instructions."""
    given = inputs(module, scale)
    expected = run_tile(module.clone(), given)
    compiled = compile_module(module, Machine.load(machine), Options())
    assert_same(run_tile(module, given), expected)
    return compiled.binary, given, expected


def modes(binary) -> list[Mode]:
    return [i.mode for i in decode(binary.code) if isinstance(i, MmuRun)]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("build", [conv, linear, depthwise, grouped])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"w{p[0]}a{p[1]}")
@pytest.mark.parametrize("per_channel", [False, True], ids=["symmetric", "zeros"])
def test_pairs_of_widths(machine: str, build: Callable[..., ModuleOp], pair: tuple[int, int], per_channel: bool):
    binary, _, _ = check(build(*pair, per_channel), machine, 2.0)
    assert set(modes(binary)) == {MODES[pair]}
    codes = [i for i in decode(binary.code) if isinstance(i, MmuCodes)]
    assert all(i.per_channel for i in codes[:1]) is per_channel or not per_channel
    assert all(i.decode == (pair == (8, 4)) for i in codes)


def resized(kind: str, width: int | None, align: bool, size: tuple[int, int]) -> ModuleOp:
    def body(x: SSAValue) -> SSAValue:
        source = x if width is None else quantize(x, width)
        h, w = 7, 5
        rows, columns = (
            numerics.resize_scale(a, b, align, kind == "nearest") for a, b in zip((h, w), size, strict=True)
        )
        num, den, phase = zip(rows, columns, strict=True)
        y = qnn.Resize2dOp(source, kind, num, den, phase, size).output
        return dq(y) if kind == "nearest" and width else relu(y)

    return graph([(2, 5, 7, 5)], body)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("width", [None, 4, 8, 16])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(14, 10), (3, 11), (1, 1), (23, 4)])
def test_interpolation(machine: str, kind: str, width: int | None, align: bool, size: tuple[int, int]):
    check(resized(kind, width, align, size), machine)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("pair", PAIRS[:6], ids=lambda p: f"b{p[0]}a{p[1]}")
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_two_activations(machine: str, pair: tuple[int, int], transposed: bool):
    b, a = pair
    shape = (3, 11, 33) if transposed else (3, 33, 11)
    module = graph([(3, 9, 33), shape], lambda x, y: qnn.MatmulOp(quantize(x, a), quantize(y, b), transposed).output)
    assert set(modes(check(module, machine)[0])) == {MODES[pair]}


@pytest.mark.parametrize("machine", MACHINES)
def test_binary32_sums_keep_their_order(machine: str):
    def body(x: SSAValue) -> SSAValue:
        return qnn.Conv2dOp(x, weight(32, 7, 70, 3, 2), vector(7, 1.0), vector(7, 1.0)).output

    assert set(modes(check(graph([(1, 70, 6, 5)], body), machine)[0])) == {Mode.F32}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("width", [4, 8])
def test_codebooks_are_decoded_in_front_of_the_array(machine: str, width: int):
    def body(x: SSAValue) -> SSAValue:
        codes = qnn.QuantizeOp(x, BOOK, None, THRESHOLDS).output
        return qnn.Conv2dOp(codes, weight(width, 7, 5, 3, 3), vector(7, 1e-2), None, padding=(1, 1, 1, 1)).output

    binary, _, _ = check(graph([(1, 5, 6, 5)], body), machine)
    assert set(modes(binary)) == {MODES[width, 8]}
    assert all(i.decode for i in decode(binary.code) if isinstance(i, MmuCodes))


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("width", [4, 8, 16])
def test_elementwise_functions(machine: str, width: int):
    def body(x: SSAValue, y: SSAValue) -> SSAValue:
        a, b = dq(quantize(x, width)), dq(quantize(y, width))
        chosen = qnn.SelectOp(qnn.GtOp(a, b).output, qnn.DivOp(a, b).output, qnn.ExpOp(b).output).output
        return dq(quantize(chosen, width))

    check(graph([(2, 5, 3, 7)] * 2, body), machine)


@pytest.mark.parametrize("width", [4, 16])
def test_averages_that_the_window_cannot_reduce_are_products(width: int):
    module = graph([(1, 5, 6, 6)], lambda x: qnn.AvgPool2dOp(quantize(x, width), (2, 2), (2, 2), (0, 0, 0, 0)).output)
    assert set(modes(check(module, "tiny")[0])) == {Mode.W4A4 if width == 4 else Mode.W8A16}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("width", [8, 16])
def test_maxima_of_codes(machine: str, width: int):
    def body(x: SSAValue) -> SSAValue:
        return dq(qnn.MaxPool2dOp(quantize(x, width), (3, 2), (2, 1), (1, 0, 1, 1), (1, 2)).output)

    check(graph([(1, 5, 9, 8)], body), machine)


def test_maxima_of_4_bit_codes_are_those_of_8_bit_codes():
    def body(x: SSAValue) -> SSAValue:
        return dq(qnn.MaxPool2dOp(quantize(x, 4), (2, 2)).output)

    check(graph([(1, 5, 6, 6)], body), "tiny")


@pytest.mark.parametrize(("w", "a"), [(16, 8), (16, 4)])
def test_pairs_without_a_mode_are_refused_with_advice(w: int, a: int):
    with pytest.raises(UnsupportedError, match=r"no mode for 16-bit weights and .-bit activations; quantize"):
        compile_module(linear(w, a), Machine.load("tiny"), Options())


def test_a_machine_without_the_mode_is_named_with_the_kernel():
    with pytest.raises(UnsupportedError, match=r"kernel 'n\d' .*mode W8A8 .*quartdepth28-f32 lacks"):
        compile_module(linear(8, 8), Machine.load("quartdepth28-f32"), Options())


def test_rows_of_four_bit_codes_start_at_a_byte():
    codes = np.array([[1, -2, 3], [-8, 7, 0]], np.int8)
    assert packed(codes, DType.I4) == bytes([0xE1, 0x03, 0x78, 0x00])
