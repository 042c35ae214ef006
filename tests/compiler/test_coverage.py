"""What a check says of a graph before it is compiled."""

from __future__ import annotations

import numpy as np

from compiler.coverage import BLOCKED, Share, cover
from compiler.frontend.records import Call, Input, Output, Parameter, Ref
from compiler.ir.location import Origin

Q, DQ = "quantized_decomposed.quantize_per_tensor.default", "quantized_decomposed.dequantize_per_tensor.default"
CHANNELS = "quantized_decomposed.dequantize_per_channel.default"
NARROW, BYTE = (0.1, 0, -8, 7, "int8"), (0.1, 0, -128, 127, "int8")


def calls(*rows, weight_range=(-7, 7), weight_shape=(4, 2, 3, 3)):
    """A graph over x [1, 2, 6, 6] with codes ``q`` of 8 bits, ``n`` of 4, and a weight ``w`` [4, 2, 3, 3].

    ``weight_shape`` is what PyTorch says of ``w``, None where it says nothing.
    """
    weight = (Ref("wq"), Ref("ws"), Ref("wz"), 0, *weight_range, "int8")
    records = [
        Input("x", (1, 2, 6, 6), "float32", Origin("x")),
        Parameter("wq", np.ones((4, 2, 3, 3), np.int8)),
        Parameter("ws", np.ones(4)),
        Parameter("wz", np.zeros(4, np.int64)),
        Call("q0", Q, (Ref("x"), *BYTE), {}, (1, 2, 6, 6), "int8"),
        Call("q", DQ, (Ref("q0"), *BYTE), {}, (1, 2, 6, 6), "float32"),
        Call("n0", Q, (Ref("x"), *NARROW), {}, (1, 2, 6, 6), "int8"),
        Call("n", DQ, (Ref("n0"), *NARROW), {}, (1, 2, 6, 6), "float32"),
        Call("w", CHANNELS, weight, {}, weight_shape, "float32" if weight_shape else None),
    ]
    for i, (name, target, args, shape) in enumerate(rows):
        records.append(Call(name, target, args, {}, shape, "float32", Origin(name, f"net.{name}", "net.py", i)))
    return cover([*records, Output((Ref(rows[-1][0]),))])


def conv(name, x):
    return name, "aten.conv2d.default", (Ref(x), Ref("w")), (1, 4, 4, 4)


def test_products_are_counted_by_their_widths():
    found = calls(conv("a", "q"), conv("b", "n"))
    macs = 4 * 4 * 4 * 2 * 3 * 3
    assert found.by_width == {"w4a8": Share(1, macs), "w4a4": Share(1, macs)}
    assert found.supported == found.total == Share(2, 2 * macs)


def test_products_are_counted_where_pytorch_says_no_shape_of_the_weight():
    assert calls(conv("c", "q"), weight_shape=None).total == Share(1, 1152)


def test_float_products_are_refused_unless_the_recipe_means_them():
    records = [
        Input("x", (1, 8), "float32", Origin("x")),
        Parameter("w", np.ones((4, 8), np.float32)),
        Call("l", "aten.linear.default", (Ref("x"), Ref("w")), {}, (1, 4), "float32", Origin("l")),
        Output((Ref("l"),)),
    ]
    (refused,) = cover(records).refused
    assert (refused.node, refused.macs) == ("l", 32)
    assert refused.rule.startswith("needs a quantized operand")
    assert cover(records, binary32=True).by_width == {"f32": Share(1, 32)}


def test_other_operators_have_the_width_of_what_they_read():
    found = calls(
        ("r", "aten.relu.default", (Ref("q"),), (1, 2, 6, 6)), ("s", "aten.relu.default", (Ref("r"),), (1, 2, 6, 6))
    )
    assert [(each.node, each.width, each.macs) for each in found.operators] == [("r", "8-bit", 0), ("s", "f32", 0)]


def test_refused_operators_name_module_line_rule_and_advice():
    (refused,) = calls(conv("c", "x")).refused
    assert (refused.module, refused.source, refused.macs) == ("net.c", "net.py:0", 1152)
    assert refused.rule == "needs a quantized operand, got a float tensor [1, 2, 6, 6] that is not quantized"
    assert refused.advice == "quantize the operand: the quantizer left it in float"


def test_indices_are_results_alone():
    found = calls(
        ("i", "aten.argmax.default", (Ref("q"), 1), (1, 6, 6)), ("m", "aten.mul.Tensor", (Ref("i"), 2.0), (1, 6, 6))
    )
    (refused,) = found.refused
    assert refused.rule == "needs a float32 operand, got indices [1, 6, 6]"
    assert refused.advice == "return the indices from the model: nothing on the chip computes with them"


def test_the_check_goes_on_behind_a_refused_operator():
    found = calls(
        ("f", "aten.fft.default", (Ref("q"),), (1, 2, 6, 6)),
        ("r", "aten.relu.default", (Ref("f"),), (1, 2, 6, 6)),
        conv("c", "f"),
    )
    assert [each.node for each in found.refused] == ["f", "c"]
    assert found.supported == Share(1, 0)
    assert found.total == Share(3, 1152)


def test_operators_behind_results_of_unknown_shape_are_blocked():
    found = calls(
        ("f", "aten.fft.default", (Ref("q"),), None),
        ("r", "aten.relu.default", (Ref("f"),), (1, 2, 6, 6)),
    )
    assert [each.rule for each in found.refused][1] == BLOCKED


def test_an_input_that_no_binary_takes_is_a_finding():
    found = cover([Input("x", (2,), "int64", Origin("x")), Output((Ref("x"),))])
    assert "dtype must be float32" in found.refused[0].rule
