"""What a user can do wrong, and what is said: where, which rule, what to do. Compared as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import quartic
from compiler.frontend.aten import OPERATORS
from quantizer import annotate, definitions, rewrite
from quantizer.reference.table import FUNCTIONS
from tests.bits import assert_same

aten = torch.ops.aten
SHAPE = (1, 3, 8, 8)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
HERE = r"test_errors\.py:\d+"
DEFECT = "write it with other operators or leave it out of the model, and report this: it is a defect of Quartic"


class Net(nn.Module):
    """A 1x1 convolution, and ``function`` behind it."""

    def __init__(self, function: Callable[..., Any] = torch.relu, **parts: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> Any:
        """[N, 3, H, W] to whatever the function gives."""
        return self.function(self.conv(x))


def net(*args: Any, **parts: Any) -> Net:
    torch.manual_seed(0)
    return Net(*args, **parts).eval()


def quantized(model: nn.Module, **options: Any) -> GraphModule:
    return quartic.quantize(model, (X,), [(X,)], **options)


def said(action: Callable[[], object]) -> str:
    """What the QuarticError that ``action`` raises says."""
    with pytest.raises(quartic.QuarticError) as caught:
        action()
    return str(caught.value)


def run(q: GraphModule) -> None:
    quartic.reference(q)(X)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a4", "f32"])
def test_weights_that_are_not_finite(value: float, recipe: str) -> None:
    model = net()
    with torch.no_grad():
        model.conv.weight[1, 2], model.conv.bias[0] = value, value
    assert said(lambda: quantized(model, recipe=recipe)) == (
        "the model cannot be quantized as it is:\n"
        "  conv.weight (shape [3, 3, 1, 1]) has 1 value(s) that are NaN or infinite, the first at [1, 2, 0, 0]: "
        "constants must be finite; look at the checkpoint\n"
        "  conv.bias (shape [3]) has 1 value(s) that are NaN or infinite, the first at [0]: "
        "constants must be finite; look at the checkpoint"
    )


def test_statistics_that_are_nan() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    model[1].running_var[2] = float("nan")
    assert "1.running_var (shape [3]) has 1 value(s) that are NaN" in said(lambda: quantized(model))


def test_huge_weights_are_finite_though_their_sum_is_not() -> None:
    model = net()
    nn.init.constant_(model.conv.weight, 3e38)
    x = torch.full(SHAPE, 1e-38)
    q = quartic.quantize(model, (x,), [(x,)])
    assert_same(quartic.simulate(quartic.compile(q), x).outputs, quartic.reference(q)(x))


def test_infinities_of_a_mask_are_meant() -> None:
    class Masked(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.conv(x) + self.get_buffer("mask"), -1)

    model = Masked().eval()
    model.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))
    q = quantized(model)
    assert_same(quartic.simulate(quartic.compile(q), X).outputs, quartic.reference(q)(X))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibration_that_overflows_names_the_node(value: float) -> None:
    x = X.clone()
    x[0, 0, 0, 0] = value
    message = said(lambda: quartic.quantize(net(), (X,), [(x,)]))
    assert message.startswith("x (x) in (root): a calibration batch made an activation of shape (1, 3, 8, 8) that ")
    assert message.endswith("ranges must be finite; check the batch and the model for overflow or NaN")


def test_calibration_of_a_mask_that_is_added() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(8, 8).masked_fill(x[0, 0] > 0, -torch.inf)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    message = said(lambda: quantized(net(masked)))
    assert message.endswith("; give an attention mask as booleans, not as -inf that is added")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_parameters_of_another_type(dtype: torch.dtype) -> None:
    expected = f"parameter conv.weight is {dtype}: must be torch.float32; call model.float()"
    assert said(lambda: quantized(net().to(dtype))) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool])
def test_inputs_of_another_type(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    expected = f"example input 0 is {dtype}: must be torch.float32; convert it first"
    assert said(lambda: quartic.quantize(net(), (x,), [(x,)])) == expected
    q = quantized(net())
    expected = f"input 'x' is {dtype}: must be torch.float32; convert it with .to()"
    assert said(lambda: quartic.simulate(quartic.compile(q), x)) == expected
    expected = f"input x is {dtype}: must be torch.float32; convert it with .to()"
    assert said(lambda: quartic.reference(q)(x)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_conversions_inside_the_model(dtype: torch.dtype) -> None:
    q = quantized(net(lambda x: (x.to(dtype) * 2).float()))
    assert re.search(rf"\(aten\.to\.dtype\) in \(root\), {HERE}: conversion to {dtype}: keep", said(lambda: run(q)))
    message = said(lambda: quartic.compile(q))
    assert re.search(rf"aten\.to\.dtype \(node to, module Net, \S*{HERE}\)", message)


def test_a_batch_of_none() -> None:
    expected = "example input 0 has shape (0, 3, 8, 8), which holds nothing: give at least one sample"
    assert said(lambda: quartic.quantize(net(), (X[:0],), [(X[:0],)])) == expected


def test_a_device_without_values() -> None:
    message = said(lambda: quartic.quantize(net(), (X,), [(X,)], device="meta"))
    assert message.startswith("device 'meta': ")
    assert message.endswith("; take 'cpu', or one that is there")


def test_inputs_without_values() -> None:
    q, x = quantized(net()), X.to("meta")
    expected = "is on the device 'meta', which holds no values; give it values"
    assert said(lambda: quartic.quantize(net(), (X,), [(x,)])) == f"input 0 {expected}"
    assert said(lambda: quartic.simulate(quartic.compile(q), x)) == f"input 'x' {expected}"
    assert said(lambda: quartic.reference(q)(x)) == f"input x {expected}"


def test_another_batch() -> None:
    q = quantized(net())
    exe, x = quartic.compile(q), torch.cat([X, X])
    assert said(lambda: quartic.simulate(exe, x)) == (
        "input 'x' has shape (2, 3, 8, 8): must be (1, 3, 8, 8); give 1 at a time, or quantize with example inputs of "
        "that batch"
    )
    assert said(lambda: quartic.simulate(exe, X[..., 1:])) == ("input 'x' has shape (1, 3, 8, 7): must be (1, 3, 8, 8)")
    assert said(lambda: quartic.reference(q)(x)) == (
        "input x has shape (2, 3, 8, 8), the graph was exported for (1, 3, 8, 8)"
    )


@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("model", [lambda x: x, lambda x: (torch.relu(x), x), lambda x: {"x": x, "y": [x * 2, x]}])
def test_outputs_that_are_inputs_are_handed_through(model: Callable[..., Any], machine: str) -> None:
    class Through(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return model(x)

    q = quantized(Through().eval())
    run = quartic.simulate(quartic.compile(q, machine), X)
    assert_same(run.outputs, quartic.reference(q)(X))
    assert any(torch.equal(y, X) for y in run.outputs)


def test_no_output() -> None:
    q = quantized(net(lambda x: None))
    assert said(lambda: quartic.compile(q)) == "the graph returns no tensor; return at least one"


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "the calibration set is empty: give at least one batch of representative inputs"),
        (iter(()), "the calibration set is empty: give at least one batch of representative inputs"),
        (X, "the calibration set is a Tensor: give a list of batches, as [x]"),
        (None, "the calibration set is a NoneType: give a list of batches, as [x]"),
        ([None], "inputs are a NoneType: give a torch.Tensor, or a tuple of them"),
        (["x"], "input 0 is a str, not a torch.Tensor"),
        (
            [X[:0]],
            "calibration batch 1 has shapes [(0, 3, 8, 8)], but the model was prepared for [(1, 3, 8, 8)] (or whole "
            "multiples of the first dimension)",
        ),
    ],
)
def test_calibration_sets_that_are_none(batches: Any, message: str) -> None:
    assert said(lambda: quartic.quantize(net(), (X,), batches)) == message


def test_things_of_the_wrong_kind() -> None:
    q = quantized(net())
    number: Any = 3
    assert said(lambda: quantized("net")) == "the model is a str: must be a torch.nn.Module"  # type: ignore[arg-type]
    assert said(lambda: quantized(net().train())) == (
        "module (root) is in training mode: call model.eval() before quantizing"
    )
    assert said(lambda: quartic.simulate(q, X)) == (  # type: ignore[arg-type]
        f"what runs is a quartic.Executable, not {type(q).__name__}; compile or load one first"
    )
    assert said(lambda: quartic.reference(net())) == (  # type: ignore[arg-type]
        "reference takes a quantized torch.fx.GraphModule, not Net; quantize first, or call .module() of an exported "
        "program"
    )
    assert said(lambda: quartic.compile(net())) == (  # type: ignore[arg-type]
        "compile takes a quantized torch.fx.GraphModule, not Net; quantize first"
    )
    assert said(lambda: quartic.compile(q, schedule=number)) == (
        "a schedule is the path of a TOML file, or what Executable.schedule gives, not int"
    )
    assert said(lambda: quartic.load(number)) == "what is read is the path of a .qbin file, not int"
    assert said(lambda: quantized(q)) == ("the model is quantized already: compile it, or quantize the float model")


def test_misspelt_names() -> None:
    assert said(lambda: quantized(net(), recipe="w8a9")) == (
        "unknown recipe 'w8a9': known recipes are f32, qat-w4a8, qat-w8a4, qat-w8a8, w16a16, w4a32, w4a4, "
        "w4a4-adaround, w4a4-brecq, w4a4-quartdepth, w4a8, w4a8-adaround, w4a8-brecq, w4a8-gptq, w4a8-quartdepth, "
        "w8a16, w8a32, w8a8"
    )
    message = said(lambda: quartic.compile(quantized(net()), "edge82"))
    assert message.startswith("machine 'edge82': ")
    assert message.endswith("; nearest: 'edge28'; or give the path of a .toml file")


@pytest.mark.parametrize(
    ("recipe", "machine", "lacks"),
    [
        ("w4a4", "quartdepth28-f32", "W4A4 of the matrix unit, which quartdepth28-f32 lacks (it has F32)"),
        ("f32", "quartdepth28-w4a4", "F32 of the matrix unit, which quartdepth28-w4a4 lacks (it has W8A8, "),
    ],
)
def test_a_machine_that_lacks_the_mode(recipe: str, machine: str, lacks: str) -> None:
    message = said(lambda: quartic.compile(quantized(net(), recipe=recipe), machine))
    assert re.match(rf"kernel 'conv2d' \(node conv2d, module conv, \S*{HERE}\) needs mode ", message)
    assert lacks in message
    assert message.endswith("quantize with other widths, or compile for another machine")


@pytest.mark.parametrize("recipe", ["w8a8", "f32"])
def test_layers_whose_weights_are_computed(recipe: str) -> None:
    q = quantized(net(lambda x: torch.conv2d(x[..., :2, :2], x[:, :, :1, :1])), recipe=recipe)
    advice = "layers multiply by constants: write it as torch.matmul of two tensors, a convolution "
    rule = rf"conv2d_1 \(aten\.conv2d\) in \(root\), {HERE}: its weight is computed from the input x"
    assert re.search(f"{rule}; {advice}", said(lambda: run(q)))
    rule = r"needs a constant weight \[O, C/g, kh, kw\], got a (float|quantized) tensor"
    assert re.search(rf"rule: {rule}.*\n   do: {advice}", said(lambda: quartic.compile(q)))


def test_operators_that_the_machine_lacks() -> None:
    q = quantized(net(torch.erfinv))
    advice = r"those that docs/api\.md lists, or leave it out of the model"
    rule = rf"erfinv \(aten\.erfinv\) in \(root\), {HERE}: the machine has no such operator; write it with {advice}"
    assert re.search(rule, said(lambda: run(q)))


POSITIVE = "of a positive base, write torch.exp("


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "operator", "rule"),
    [
        (lambda x: x**x, "pow.Tensor_Tensor", "pow with a tensor as exponent: the machine has the numbers 2, 0.5, "),
        (lambda x: x ** torch.arange(8.0), "pow.Tensor_Tensor", "pow with a tensor as exponent: the machine has the "),
        (lambda x: 3.0 ** (x * x) - (-3.0) ** x, "pow.Scalar", "pow with a tensor as exponent: the machine has "),
        (lambda x: x**65, "pow.Tensor_Scalar", "pow with exponent 65: the machine has 2, 0.5, -0.5 and -1; "),
    ],
)
def test_exponents_that_the_machine_lacks(function: Callable[..., Any], operator: str, rule: str) -> None:
    q = quantized(net(function))
    message = said(lambda: run(q))
    assert re.match(rf"pow_\d \(aten\.{re.escape(operator)}\) in \(root\), {HERE}: {re.escape(rule)}", message)
    assert POSITIVE in message
    assert "tensor(" not in message
    message = said(lambda: quartic.compile(q))
    place = rf"1\. aten\.{re.escape(operator)} \(node pow_\d, module Net, \S*{HERE}\)"
    assert re.search(rf"{place}\n   rule: pow has", message)
    assert f"do: {POSITIVE}" in message


@pytest.mark.parametrize(
    ("function", "place", "rule"),
    [
        (lambda x: x * x.max().item(), r"item \(aten\.item\)", "is a number that depends on values; keep it a "),
        (lambda x: x[x > 0], r"index \(aten\.index\.Tensor\)", "has a size that is not known; select with a mask and "),
        (torch.nonzero, r"nonzero \(aten\.nonzero\)", "has a size that is not known; select with a mask and "),
    ],
)
def test_sizes_and_numbers_that_depend_on_values(function: Callable[..., Any], place: str, rule: str) -> None:
    message = said(lambda: quantized(net(function)))
    assert message.startswith("the model cannot be quantized as it is:\n  ")
    assert re.search(rf"{place} in \(root\), {HERE}: the result {re.escape(rule)}", message)


def test_dynamic_shapes() -> None:
    batch = torch.cat([X, X])
    program = torch.export.export(net(), (batch,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=8)},))
    graph = program.module(check_guards=False)
    assert re.fullmatch(
        r"node x: shape \(\w+, 3, 8, 8\) is dynamic; every size must be known: export the model without dynamic_shapes",
        said(lambda: quartic.compile(graph)),
    )
    assert re.search(
        r"x \(x\) in \(root\): shape \(\w+, 3, 8, 8\) is dynamic: export the model without dynamic_shapes",
        said(lambda: quartic.reference(graph)),
    )
    q = quartic.quantize(graph, (batch,), [(batch,)])  # which fixes the sizes
    assert_same(quartic.simulate(quartic.compile(q), batch).outputs, quartic.reference(q)(batch))


def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("of nobody's making")


KEY_ERROR = f"failed with KeyError: 'of nobody's making'; {DEFECT}"


def failure(action: Callable[[], object]) -> str:
    """What is said of the exception of ``broken``, which must stay the cause."""
    with pytest.raises(quartic.QuarticError) as caught:
        action()
    assert isinstance(caught.value.__cause__, KeyError)
    return str(caught.value).replace('"', "'").replace("''", "'")


def test_a_definition_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(definitions.DEFINITIONS, aten.log2.default, broken)
    message = failure(lambda: quantized(net(torch.log2)))
    assert re.match(rf"log2 \(aten\.log2\) in \(root\), {HERE}: its definition failed", message)
    assert message.endswith(KEY_ERROR)


def test_a_rewrite_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rewrite.RULES, aten.tanh.default, broken)
    message = failure(lambda: quantized(net(torch.tanh)))
    assert re.match(rf"tanh \(aten\.tanh\) in \(root\), {HERE}: rewriting it failed", message)
    assert message.endswith(KEY_ERROR)


def test_an_annotation_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotate, "_float_operands", broken)
    message = failure(lambda: quantized(net(torch.tanh)))
    assert re.match(rf"tanh \(aten\.tanh\) in \(root\), {HERE}: deciding how to quantize it failed", message)
    assert message.endswith(KEY_ERROR)


def test_a_node_that_fails_in_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    from quantizer import flow

    prepared = flow.prepare(net(torch.tanh), (X,))
    node = next(n for n in prepared.graph.nodes if n.target is aten.tanh.default)
    node.target = broken
    prepared.recompile()
    message = failure(lambda: flow.calibrate(prepared, [(X,)]))
    assert re.search(rf" in \(root\), {HERE}: running it on a calibration batch failed", message)
    assert message.endswith(KEY_ERROR)


def test_device_numerics_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quantized(net(torch.tanh))
    monkeypatch.setitem(FUNCTIONS, aten.tanh.default, broken)
    message = failure(lambda: run(q))
    assert re.match(rf"tanh \(aten\.tanh\) in \(root\), {HERE}: computing it failed", message)
    assert message.endswith(KEY_ERROR)


def test_a_builder_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quantized(net(torch.tanh))
    monkeypatch.setitem(OPERATORS, "aten.tanh.default", broken)
    message = failure(lambda: quartic.compile(q))
    assert re.search(rf"1\. aten\.tanh\.default \(node tanh, module Net, \S*{HERE}\)", message)
    assert "   rule: the frontend failed on it with KeyError: 'of nobody's making'\n" in message
    assert message.endswith(f"   do: {DEFECT}")
