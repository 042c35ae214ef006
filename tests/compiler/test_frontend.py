"""Records become qnn modules: values, laziness, refusals and locations."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from compiler.dialects import qnn
from compiler.frontend.build import build_module
from compiler.frontend.records import Call, Input, Output, Parameter, Ref
from compiler.interpreter.qnn import run_qnn
from compiler.ir.location import Origin, origins
from compiler.ir.signature import input_names, main_function, output_names
from compiler.passes.legalize_linear import LegalizeLinearPass
from isa.errors import UnsupportedError

QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
CHANNELS = "quantized_decomposed.dequantize_per_channel.default"
INT8 = (0.05, -3, -128, 127, "int8")
RNG = np.random.default_rng(0)
RNG_CODES = np.random.default_rng(1).integers(-127, 128, (4, 2, 3, 3), np.int8)


class Records:
    """Builds a record list: ``x`` is the input, ``q`` its dequantized codes, ``w`` a weight [4, 2, 3, 3]."""

    def __init__(self, shape=(1, 2, 6, 6), qparams=INT8, axis=0, zeros=0):
        self.codes = RNG.integers(-127, 128, (4, 2, 3, 3), np.int8)
        self.scales = RNG.random(self.codes.shape[axis]) + 0.1
        self.list = [
            Input("x", shape, "float32", Origin("x")),
            Parameter("wq", self.codes),
            Parameter("ws", self.scales),
            Parameter("wz", np.full(self.scales.shape, zeros)),
        ]
        self.call("codes", QUANTIZE, Ref("x"), *qparams)
        self.call("q", DEQUANTIZE, Ref("codes"), *qparams)
        self.call("w", CHANNELS, Ref("wq"), Ref("ws"), Ref("wz"), axis, -127, 127, "int8")

    def call(self, name, target, *args, **kwargs) -> Records:
        place = Origin(name, f"net.{name}", "net.py", len(self.list))
        self.list.append(Call(name, target, args, kwargs, location=place))
        return self

    def build(self, *outputs: str):
        module = build_module([*self.list, Output(tuple(map(Ref, outputs)))])
        module.verify()
        return module


def ops(module, kind):
    return [op for op in module.walk() if isinstance(op, kind)]


def centred(x: np.ndarray) -> torch.Tensor:
    """The codes of ``q`` minus their zero point, in float64."""
    y = np.rint(x * np.float32(1 / 0.05)) - 3
    return torch.from_numpy(np.clip(y, -128, 127) + 3).double()


def sample(shape=(1, 2, 6, 6)) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) * 4


def test_convolution_takes_the_codes_behind_a_dequantize():
    records = Records().call("y", "aten.conv2d.default", Ref("q"), Ref("w"), None, (2, 1), (1, 0))
    module = records.build("y")
    assert ops(module, qnn.DequantizeOp) == []
    x = sample()
    acc = F.conv2d(centred(x), torch.from_numpy(records.codes).double(), None, (2, 1), (1, 0))
    scale = np.float32(0.05) * records.scales.astype(np.float32)
    (y,) = run_qnn(module, [x])
    assert np.array_equal(y, acc.numpy().astype(np.float32) * scale[:, None, None])


def test_same_padding_puts_the_odd_one_at_the_end():
    records = Records()
    records.list[1] = Parameter("wq", records.codes[:, :, :2, :])
    module = records.call("y", "aten.conv2d.padding", Ref("q"), Ref("w"), None, 1, "same").build("y")
    (conv,) = ops(module, qnn.Conv2dOp)
    assert conv.padding.data == (0, 1, 1, 1)


def test_values_are_moved_as_codes_and_dequantized_once():
    module = (
        Records()
        .call("a", "aten.permute.default", Ref("q"), (0, 2, 3, -3))
        .call("b", "aten.flatten.using_ints", Ref("a"), 1)
        .call("c", "aten.dropout.default", Ref("b"), 0.5, False)
        .call("d", "aten.add.Tensor", Ref("c"), Ref("c"))
        .call("e", "aten.mul.Tensor", Ref("c"), 3)
        .build("d", "e")
    )
    names = [op.name for op in main_function(module).body.block.ops]
    assert names == [
        "qnn.quantize",
        "qnn.permute",
        "qnn.reshape",
        "qnn.dequantize",
        "qnn.add",
        "qnn.constant",
        "qnn.mul",
        "func.return",
    ]


def test_concat_of_different_steps_is_in_float():
    records = Records().call("codes2", QUANTIZE, Ref("x"), 0.1, 0, -128, 127, "int8")
    records.call("q2", DEQUANTIZE, Ref("codes2"), 0.1, 0, -128, 127, "int8")
    records.call("same", "aten.cat.default", (Ref("q"), Ref("q")), 1)
    module = records.call("mixed", "aten.cat.default", (Ref("q"), Ref("q2")), -3).build("same", "mixed")
    assert [str(op.output.type.element_type)[:8] for op in ops(module, qnn.ConcatOp)] == ["!qnn.int", "f32"]


@pytest.mark.parametrize(("value", "on_codes"), [(0.0, True), (1.3, False), (float("-inf"), False)])
def test_pad_stays_on_codes_only_for_a_value_that_is_a_code(value, on_codes):
    module = Records().call("y", "aten.pad.default", Ref("q"), (1, 2, 3, 1), "constant", value).build("y")
    (pad,) = ops(module, qnn.PadOp)
    assert isinstance(pad.input.owner, qnn.QuantizeOp) == on_codes


def test_pad_starts_at_the_last_dimension():
    module = Records().call("y", "aten.constant_pad_nd.default", Ref("q"), (1, 2, 3, 4), 0).build("y")
    x = sample()
    want = F.pad(centred(x).float() * np.float32(0.05), (1, 2, 3, 4))
    assert np.array_equal(run_qnn(module, [x])[0], want.numpy())


@pytest.mark.parametrize("size", range(4, 12))
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 3, 0), (3, 3, 0), (2, 2, 1)])
def test_ceil_mode_pools_equal_torchs(size, kernel, stride, padding):
    records, window = Records((1, 2, size, size)), ((kernel,) * 2, (stride,) * 2, (padding,) * 2)
    records.call("max", "aten.max_pool2d.default", Ref("q"), *window, (1, 1), True)
    records.call("mean", "aten.avg_pool2d.default", Ref("q"), *window, True)
    records.call("inner", "aten.avg_pool2d.default", Ref("q"), *window, True, False)
    module, x = records.build("max", "mean", "inner"), sample((1, 2, size, size))
    y = centred(x) * 0.05
    largest, mean, inner = map(torch.from_numpy, run_qnn(module, [x]))
    assert (largest - F.max_pool2d(y, *window, 1, True)).abs().max() < 1e-6
    assert (mean - F.avg_pool2d(y, *window, True)).abs().max() < 1e-6
    assert (inner - F.avg_pool2d(y, *window, True, False)).abs().max() < 1e-6


@pytest.mark.parametrize("dims", [(2, 3), (-1, -2), (3,), (1,), (1, 2, 3), (0, 1), None])
@pytest.mark.parametrize("keepdim", [True, False])
def test_mean_over_neighbouring_dimensions(dims, keepdim):
    module = Records().call("y", "aten.mean.dim", Ref("q"), dims, keepdim).build("y")
    x = sample()
    want = (centred(x) * 0.05).mean(dims, keepdim)
    (y,) = run_qnn(module, [x])
    assert y.shape == want.shape
    assert np.abs(y - want.numpy()).max() < 1e-6


@pytest.mark.parametrize(("size", "kind"), [((3, 2), qnn.AvgPool2dOp), ((4, 1), qnn.AdaptiveAvgPool2dOp)])
def test_adaptive_pool_with_even_windows_is_an_average_pool(size, kind):
    module = Records().call("y", "aten.adaptive_avg_pool2d.default", Ref("q"), size).build("y")
    assert len(ops(module, kind)) == 1


def test_batch_norm_is_a_multiply_and_an_add():
    gamma, beta, mean, variance = RNG.random((4, 2)).astype(np.float32)
    records = Records()
    records.list += [Parameter(f"p{i}", a) for i, a in enumerate((gamma, beta, mean, variance))]
    refs = [Ref(f"p{i}") for i in range(4)]
    module = records.call("y", "aten.batch_norm.default", Ref("x"), *refs, False, 0.1, 1e-5, True).build("y")
    scale = gamma / np.sqrt(variance.astype(np.float64) + 1e-5)
    shift = beta - mean * scale
    x = sample()
    column = (2, 1, 1)
    want = x * scale.astype(np.float32).reshape(column) + shift.astype(np.float32).reshape(column)
    assert np.array_equal(run_qnn(module, [x])[0], want)


def test_linear_of_a_transposed_weight_and_a_quantized_bias():
    w, b = RNG.integers(-127, 128, (6, 5), np.int8), np.array([7, -9, 1, 0, 3], np.int32)
    records = Records((3, 6))
    records.list += [Parameter("m", w), Parameter("b", b)]
    records.call("wd", DEQUANTIZE, Ref("m"), 0.02, 0, -127, 127, "int8")
    records.call("bd", DEQUANTIZE, Ref("b"), 0.001, 0, -(2**31), 2**31 - 1, "int32")
    module = records.call("y", "aten.addmm.default", Ref("bd"), Ref("q"), Ref("wd")).build("y")
    x = sample((3, 6))
    acc = centred(x) @ torch.from_numpy(w).double()
    bias = b.astype(np.float32) * np.float32(0.001)
    want = acc.numpy().astype(np.float32) * (np.float32(0.05) * np.float32(0.02)) + bias
    assert np.array_equal(run_qnn(module, [x])[0], want)


def test_uint8_codes_are_shifted_into_int8():
    module = Records(qparams=(0.05, 125, 0, 255, "uint8")).build("q")
    assert np.array_equal(run_qnn(module, [x := sample()])[0], run_qnn(Records().build("q"), [x])[0])


def test_narrow_range_clamps_exactly():
    module = Records(qparams=(0.05, -3, -100, 90, "int8")).build("q")
    (op,) = ops(module, qnn.QuantizeOp)
    assert (op.lo, op.hi) == (-100, 90)


def test_in_place_operator_changes_what_later_users_see():
    records = Records().call("r", "aten.relu_.default", Ref("q")).call("y", "aten.add.Tensor", Ref("r"), Ref("q"))
    x = sample()
    (y,) = run_qnn(records.build("y"), [x])
    assert np.array_equal(y, 2 * np.maximum(centred(x).numpy().astype(np.float32) * np.float32(0.05), 0))


def test_integer_inputs_and_outputs_keep_their_codes():
    records = [
        Input("x", (4,), "int8", Origin("x")),
        Call("d", DEQUANTIZE, (Ref("x"), *INT8)),
        Call("y", QUANTIZE, (Ref("d"), 0.1, 0, -128, 127, "int8")),
        Output((Ref("y"),)),
    ]
    (y,) = run_qnn(build_module(records), [np.array([-3, 1, 7, 127], np.int8)])
    assert y.tolist() == [0, 2, 5, 65]


def test_names_of_arguments_and_results_are_kept():
    main = main_function(Records().build("q", "codes"))
    assert (input_names(main), output_names(main)) == (("x",), ("q", "codes"))


def refusal(records: Records, output: str = "y") -> str:
    with pytest.raises(UnsupportedError) as caught:
        records.build(output)
    return str(caught.value)


def test_all_unsupported_operators_are_listed_at_once():
    records = Records().call("s", "aten.fft.default", Ref("q"), 1).call("t", "aten.relu.default", Ref("s"))
    records.call("y", "aten.conv2d.default", Ref("x"), Ref("w"))
    assert refusal(records) == (
        "2 operators cannot be compiled as asked:\n"
        "1. aten.fft.default (node s, module net.s, net.py:7)\n"
        "   rule: the operator is not supported\n"
        "   do: replace it by supported operators (docs/api.md lists them), or leave it out of the model\n"
        "2. aten.conv2d.default (node y, module net.y, net.py:9)\n"
        "   rule: needs a quantized operand, got a float tensor [1, 2, 6, 6] that is not quantized\n"
        "   do: quantize the operand: the quantizer left it in float"
    )


CONV = ("aten.conv2d.default", Ref("q"), Ref("w"))


@pytest.mark.parametrize(
    ("records", "call", "rule"),
    [
        (Records(axis=1), CONV, "weight scales must vary along the output channel, axis 0, got axis 1"),
        (Records(), (*CONV[:2], Ref("x")), "needs a constant weight [O, C/g, kh, kw], got a float tensor [1, 2, 6, 6]"),
        (Records(), (*CONV, Ref("q")), "bias must be a constant float32 vector of 4 entries, got a quantized tensor"),
        (Records((1, 3, 6, 6)), CONV, "input has 3 channels, weight wants 2 x 1 groups"),
        (Records((2, 6, 6)), CONV, "input must be [N, C, H, W], got [2, 6, 6]"),
        (Records(), (*CONV, None, (1, 2, 3)), "expected one or two numbers, got (1, 2, 3)"),
        (Records(), ("aten.dropout.default", Ref("q"), 0.5, True), "dropout is in training mode"),
        (Records(), ("aten.add.Tensor", Ref("q"), Ref("q")), "alpha must be 1, got 2"),
        (Records(), ("aten.pad.default", Ref("q"), (1, 1), "reflect"), "padding mode 'reflect' is not supported"),
        (Records(), ("aten.pad.default", Ref("q"), (-1, 1)), "padding must not be negative, got [-1, 1]"),
        (Records(), ("aten.max_pool2d.default", Ref("x"), (2, 2)), "needs a quantized operand"),
        (
            Records(),
            (DEQUANTIZE, Ref("codes"), 0.1, -3, -128, 127, "int8"),
            "dequantize reads !qnn.int<8, 0.1, -3>, but the codes are !qnn.int<8, 0.05, -3>",
        ),
        (Records(), (QUANTIZE, Ref("x"), 0.1, 0, 0, 9, "int32"), "codes are int8, uint8, int16 or uint16, got int32"),
        (Records(), (QUANTIZE, Ref("x"), 0.1, 9, -8, 7, "int8"), "zero point 9 is not a code of"),
        (Records(), (QUANTIZE, Ref("x"), 0.0, 0, -128, 127, "int8"), "scale must be positive and finite, got 0.0"),
    ],
)
def test_refusals_name_the_rule(records, call, rule):
    target, *args = call
    kwargs = {"alpha": 2} if rule.startswith("alpha") else {}
    assert f"rule: {rule}" in refusal(records.call("y", target, *args, **kwargs))


def test_unsigned_weights_are_signed_ones_shifted():
    x, results = sample(), []
    for codes, zero, bounds in ((0, 0, (-127, 127, "int8")), (128, 128, (1, 255, "uint8"))):
        records = Records()
        records.list[1] = Parameter("wq", (RNG_CODES.astype(np.int16) + codes).astype(bounds[2]))
        records.list[2:4] = [Parameter("ws", np.full(4, 0.2)), Parameter("wz", np.full(4, zero))]
        records.list[-1] = Call("w", CHANNELS, (Ref("wq"), Ref("ws"), Ref("wz"), 0, *bounds))
        results.append(run_qnn(records.call("y", "aten.conv2d.default", Ref("q"), Ref("w")).build("y"), [x])[0])
    assert np.array_equal(*results)


def test_a_pool_over_nothing_is_refused():
    records = Records((1, 2, 3, 5)).call("y", "aten.max_pool2d.default", Ref("q"), (2, 2), (1, 1), (1, 1), (4, 4))
    with pytest.raises(UnsupportedError, match=r"a window lies wholly in the padding \(1, 1, 1, 1\) of input "):
        records.build("y")


def test_a_flattened_linear_keeps_the_place_of_the_flatten():
    records = Records().call("f", "aten.flatten.using_ints", Ref("q"), 1)
    records.list += [Parameter("lq", RNG.integers(-9, 9, (3, 72), np.int8)), Parameter("ls", RNG.random(3))]
    records.call("l", CHANNELS, Ref("lq"), Ref("ls"), Ref("lz"), 0, -127, 127, "int8")
    records.list.insert(0, Parameter("lz", np.zeros(3, np.int64)))
    module = records.call("y", "aten.linear.default", Ref("f"), Ref("l")).build("y")
    LegalizeLinearPass().apply(None, module)
    (conv,) = ops(module, qnn.Conv2dOp)
    assert [o.node for o in origins(conv)] == ["y", "f"]


def test_uint8_output_is_refused():
    message = refusal(Records(qparams=(0.05, 125, 0, 255, "uint8")), "codes")
    assert message == "output codes is uint8; return the dequantized tensor, or quantize it to int8"


@pytest.mark.slow
def test_core_of_the_frontend_is_free_of_torch():
    code = "import sys, compiler.frontend.aten; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
