"""Device numerics against direct integer arithmetic, and against the plain Q/DQ graph in lockstep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import Quantizer
from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

from benchmarks.zoo import NETWORKS
from isa import numerics
from isa.errors import InputError, UnsupportedError
from quantizer import quantize, reference
from quantizer.reference import matrix, pointwise, pooling
from quantizer.reference.values import Codes, Lazy, Weight, as_float
from tests.thinning import examples

SMALL = ("digits", "plain", "odd", "one_pixel", "gates", "pools", "products")


def sqnr(exact: torch.Tensor, other: torch.Tensor) -> float:
    """Signal power over error power in dB."""
    return (10 * torch.log10(exact.pow(2).sum() / (exact - other).pow(2).sum())).item()


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    row = NETWORKS[name]
    return (row.model() if name == "digits" else row.model(shape=row.small)), row.images(1, shape=row.small)


class Lockstep(Interpreter):
    """Runs the plain graph, but continues from the reference's codes, so that differences cannot pile up."""

    def __init__(self, q: GraphModule) -> None:
        super().__init__(q)
        self.values: dict[str, Any] = {}
        ref = reference(q)
        names = {slot: node.name for node, slot in ref._slots.items()}
        self.record = [(names[step.slot], step.call, step.slot) for step in ref._steps]
        self.ref = ref
        self.codes = self.flips = 0

    def compare(self, *inputs: torch.Tensor) -> None:
        env = list(self.ref._initial)
        for node, x in zip(self.ref.inputs, inputs, strict=True):
            env[self.ref._slots[node]] = x
        for name, call, slot in self.record:
            env[slot] = self.values[name] = call(env)
        self.run(*inputs)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        mine = self.values.get(n.name)
        if isinstance(mine, Codes):
            difference = (value.int() - mine.plain().int()).abs()
            assert difference.max() <= 1, f"{n.name} differs by {difference.max()} steps"
            self.codes += difference.numel()
            self.flips += int(difference.count_nonzero())
            return mine.plain()
        if isinstance(mine, torch.Tensor):
            assert sqnr(value, mine) > 100, n.name
        return value


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenet_v2", "resnet18"))]
)
def test_every_node_agrees_with_the_plain_graph(name: str) -> None:
    model, x = network(name)
    lockstep = Lockstep(quantize(model, (x,), [x]))
    with torch.no_grad():
        lockstep.compare(x)
    assert lockstep.flips <= 1e-3 * lockstep.codes  # ties that binary32 products round the other way


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_close_to_the_plain_graph(name: str) -> None:
    model, x = network(name)
    q = quantize(model, (x,), [x])
    with torch.no_grad():
        assert sqnr(q(x), reference(q)(x)[0]) > 40


def test_exactly_representable_networks_give_equal_bits() -> None:
    """Scales that are powers of two: every binary32 operation of the plain graph is exact as well."""
    torch.manual_seed(0)
    q = quantize(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 2)).eval(), (IMAGE,), [IMAGE])
    for node in q.graph.nodes:
        if "quantize_per_tensor" in str(node.target):
            node.update_arg(1, 2.0**-6)
    for name, buffer in q.named_buffers():
        if name.startswith("_scale"):
            buffer.fill_(2.0**-7)
    for bias in (p for name, p in q.named_parameters() if name.endswith("bias")):
        bias.data.mul_(64).round_().div_(64)
    q.recompile()
    with torch.no_grad():
        assert torch.equal(q(IMAGE), reference(q)(IMAGE)[0])


IMAGE = torch.linspace(-1, 1, 3 * 7 * 6).reshape(1, 3, 7, 6)


def codes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def weight(*shape: int, zeros: int = 0) -> Weight:
    n = shape[0]
    return Weight(codes(*shape, seed=1), torch.linspace(0.001, 0.03, n).double(), torch.full((n,), zeros))


def exact_conv(x: Lazy, w: Weight, bias: torch.Tensor | None, **how: Any) -> torch.Tensor:
    """The contract, term by term: float64 integers, then one multiply and one add in binary32."""
    acc = functional.conv2d(x.codes.double() - x.zero, w.centred, None, **how).numpy().astype(np.int64)
    scale = (np.float32(x.scale) * w.scales.numpy().astype(np.float32)).reshape(-1, 1, 1)
    y = acc.astype(np.float32) * scale
    return torch.from_numpy(y if bias is None else y + bias.numpy().reshape(-1, 1, 1))


@settings(max_examples=examples(60), deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([(1, 5, 3), (1, 1, 1), (2, 4, 6), (5, 5, 5), (3, 3, 6)]),
    zeros=st.tuples(st.sampled_from([-128, 0, 3, 127]), st.sampled_from([0, 0, -3])),
    batch=st.integers(1, 3),
)
def test_conv2d_is_the_contract_for_any_window(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: tuple[int, int, int],
    zeros: tuple[int, int],
    batch: int,
) -> None:
    g, c, o = groups
    x = Lazy(codes(batch, c, 8, 9), 0.017, zeros[0])
    w, bias = weight(o, c // g, *kernel, zeros=zeros[1]), torch.linspace(-1, 1, o)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": g}
    assert torch.equal(matrix.conv2d(x, w, bias, **how), exact_conv(x, w, bias, **how))


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
@pytest.mark.parametrize("groups", [1, 2])
def test_same_padding_is_pytorchs(kernel: tuple[int, int], groups: int) -> None:
    x, w = Lazy(codes(1, 4, 7, 8), 0.1, -9), weight(6, 4 // groups, *kernel)
    total = [d * (k - 1) for d, k in zip((2, 1), kernel, strict=True)]
    (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
    framed = Lazy(functional.pad(x.codes, (left, right, top, bottom), value=-9), 0.1, -9)
    want = exact_conv(framed, w, None, dilation=(2, 1), groups=groups)
    assert torch.equal(matrix.conv2d(x, w, padding="same", dilation=(2, 1), groups=groups), want)


def test_saturated_codes_do_not_saturate_the_sum() -> None:
    x, w = Lazy(torch.full((1, 512, 4, 4), -128, dtype=torch.int8), 1.0, 127), weight(8, 512, 3, 3)
    w = Weight(torch.full_like(w.codes, -127), w.scales, w.zeros)
    assert torch.equal(matrix.conv2d(x, w, padding=1), exact_conv(x, w, None, padding=1))


@pytest.mark.parametrize("zeros", [0, 5])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (1, 1)])
def test_linear_is_the_contract_for_any_rank(shape: tuple[int, ...], zeros: int) -> None:
    x, w = Lazy(codes(*shape), 0.3, 11), weight(5, shape[-1], zeros=zeros)
    acc = ((x.codes.double() - 11) @ w.centred.t()).float()
    bias = torch.linspace(0, 1, 5)
    assert torch.equal(matrix.linear(x, w, bias), acc * w.product_scale(0.3) + bias)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_sums_of_zeros_have_no_sign(dtype: torch.dtype, depth: int) -> None:
    """As integers have none; a float product of a single term keeps the sign of -1 * 0."""
    x, image = (Lazy(torch.full(shape, -1, dtype=dtype), 0.3, 0) for shape in ((9, depth), (1, depth, 3, 3)))
    fives = torch.full((4, depth), 5, dtype=torch.int8)
    w = Weight(fives, torch.ones(4).double(), torch.full((4,), 5))
    kernel = Weight(fives[..., None, None], w.scales, w.zeros)
    zeros = Lazy(fives.t().to(dtype), 0.1, 5)
    for found in (matrix.linear(x, w), matrix.matmul(x, zeros), matrix.conv2d(image, kernel)):
        assert not (found.signbit() | (found != 0)).any()
    transposed = Lazy(fives.t()[..., None, None], 0.1, 5)
    assert not matrix.conv_transpose2d(image, transposed).signbit().any()


def test_matmul_scales_the_integer_product_once() -> None:
    a, b = Lazy(codes(2, 3, 9), 0.3, 4), Lazy(codes(9, 5, seed=2), 0.7, -6)
    acc = ((a.codes.double() - 4) @ (b.codes.double() + 6)).float()
    assert torch.equal(matrix.matmul(a, b), acc * numerics.product_scale(0.3, 0.7))


@settings(max_examples=examples(60), deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    ceil=st.booleans(),
    include=st.booleans(),
    divisor=st.sampled_from([None, None, 3]),
)
def test_avg_pool_counts_as_pytorch_does(
    kernel: int, stride: int, padding: int, ceil: bool, include: bool, divisor: int | None
) -> None:
    padding = min(padding, kernel // 2)
    x = Lazy(codes(2, 3, 8, 7), 1.0, 3)
    got = pooling.avg_pool2d(x, kernel, stride, padding, ceil, include, divisor)
    want = functional.avg_pool2d(x.codes.double() - 3, kernel, stride, padding, ceil, include, divisor)
    assert got.shape == want.shape
    assert ((got - want).abs() <= 1e-6 * want.abs().clamp_min(1)).all()


def test_avg_pool_multiplies_by_the_scale_then_by_the_rounded_reciprocal() -> None:
    x = Lazy(codes(1, 2, 6, 6), 0.3, 3)
    total = (x.codes.int() - 3).reshape(1, 2, 2, 3, 2, 3).sum((3, 5)).float()
    want = (total * numerics.fp32(0.3)) * numerics.fp32(1 / 9)
    assert torch.equal(pooling.avg_pool2d(x, 3), want)
    assert torch.equal(pooling.adaptive_avg_pool2d(x, (2, 2)), want)


def test_avg_pool_of_binary32_adds_taps_to_zero_in_rows() -> None:
    x = torch.tensor([[[[1e8, 1.0, -1e8], [3.0, 0.0, 0.0]]]])
    assert pooling.avg_pool2d(x, (2, 3)) == np.float32(3.0) * np.float32(1 / 6)  # 1e8 + 1 rounds to 1e8
    assert not torch.signbit(pooling.avg_pool2d(torch.full((1, 1, 2, 2), -0.0), 2)).any()


@pytest.mark.parametrize("size", [1, (3, 2), (5, None), (7, 9)])
def test_adaptive_windows_are_pytorchs(size: Any) -> None:
    x = Lazy(codes(2, 3, 7, 9), 1.0, -20)
    want = functional.adaptive_avg_pool2d(x.codes.double() + 20, size)
    assert (pooling.adaptive_avg_pool2d(x, size) - want).abs().max() < 1e-4


@pytest.mark.parametrize(("dim", "keepdim"), [((2, 3), False), ((2, 3), True), ([-1], False), (None, False)])
def test_mean_is_an_exact_sum(dim: Any, keepdim: bool) -> None:
    x = Lazy(codes(2, 3, 7, 9), 0.25, 1)
    want = (x.codes.double() - 1).mul(0.25).mean(dim, keepdim)
    assert (pooling.mean(x, dim, keepdim) - want).abs().max() < 1e-5


@pytest.mark.parametrize("ceil", [False, True])
def test_max_pool_stays_on_codes_and_leaves_padding_out(ceil: bool) -> None:
    x = Lazy(codes(1, 2, 7, 8), 0.1, 127)
    y = pooling.max_pool2d(x, [3, 3], [2, 2], [1, 1], [1, 1], ceil)
    assert isinstance(y, Lazy)
    assert torch.equal(y.codes.double(), functional.max_pool2d(x.codes.double(), 3, 2, 1, 1, ceil))


def test_padding_with_a_value_that_is_no_code_becomes_float() -> None:
    x = Lazy(codes(1, 1, 2, 2), 0.5, 3)
    zero, half, odd = (pointwise.pad(x, (1, 1), "constant", v) for v in (0.0, 0.5, 0.3))
    assert (isinstance(zero, Lazy), isinstance(half, Lazy), isinstance(odd, Lazy)) == (True, True, False)
    for value, padded in ((0.0, zero), (0.5, half), (0.3, odd)):
        assert torch.equal(as_float(padded), functional.pad(x.float(), (1, 1), value=value))


def test_concat_of_different_grids_becomes_float() -> None:
    a, b = Lazy(codes(1, 2), 0.5, 3), Lazy(codes(1, 2), 0.25, 3)
    assert isinstance(pointwise.cat([a, a], 1), Lazy)
    assert torch.equal(pointwise.cat([a, b], 1), torch.cat([a.float(), b.float()], 1))


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "silu"])
def test_tables_hold_the_bits_of_the_function(function: str) -> None:
    x = Lazy(codes(5, 400), 0.05, 7)
    operation = getattr(pointwise, function)
    assert torch.equal(operation(x), operation(x.float()))


def test_unsigned_codes_are_signed_codes_shifted() -> None:
    x = torch.linspace(-1, 3, 50)
    q = pointwise.quantize_per_tensor(x, 4 / 255, 64, 0, 255, torch.uint8)
    plain = torch.ops.quantized_decomposed.quantize_per_tensor(x, 4 / 255, 64, 0, 255, torch.uint8)
    assert torch.equal(q.plain(), plain)
    lazy = pointwise.dequantize_per_tensor(q, 4 / 255, 64, 0, 255, torch.uint8)
    assert torch.equal(lazy.float(), numerics.dequantize(plain, 4 / 255, 64))


def x86_quantizer() -> Quantizer:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # imports all of Inductor

    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())


XNNPACK = xnnpack.XNNPACKQuantizer
FOREIGN: dict[str, Callable[[], Quantizer]] = {
    "xnnpack": lambda: XNNPACK().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True)),
    "xnnpack per tensor": lambda: XNNPACK().set_global(xnnpack.get_symmetric_quantization_config()),
    "x86": x86_quantizer,
}


def foreign(quantizer: str, model: nn.Module, x: torch.Tensor) -> GraphModule:
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), FOREIGN[quantizer]())  # type: ignore[arg-type]
    prepared(x)
    return convert_pt2e(prepared)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "plain", "odd"])
@pytest.mark.parametrize("quantizer", ["xnnpack", "xnnpack per tensor", pytest.param("x86", marks=pytest.mark.slow)])
def test_graphs_of_other_quantizers_run(quantizer: str, name: str) -> None:
    model, x = network(name)
    with torch.no_grad():
        q = foreign(quantizer, model, x)
        Lockstep(q).compare(x)
        assert sqnr(q(x), reference(q)(x)[0]) > 40


def test_all_unsupported_nodes_are_named_at_once() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.RReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Features."""
            return functional.avg_pool2d(torch.cumsum(self.inner(x), 1), 2)

    q = quantize(Strange().eval(), (IMAGE,), [IMAGE])
    with pytest.raises(UnsupportedError) as caught:
        reference(q)
    text = str(caught.value)
    assert text.startswith("2 node(s) cannot run on the machine:")
    assert "rrelu (aten.rrelu) in inner.1" in text
    assert "cumsum (aten.cumsum) in (root), test_reference.py:" in text


def test_a_float_operand_of_an_integer_operator_is_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            codes = torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
            y = torch.ops.quantized_decomposed.dequantize_per_tensor(codes, 0.1, 0, -128, 127, torch.int8)
            return self.conv(y)

    q = torch.export.export(Mixed().eval(), (IMAGE,)).module()
    with pytest.raises(UnsupportedError, match=r"conv2d.*works on codes, but operand .* is float: quantize it"):
        reference(q)  # type: ignore[arg-type]


def test_wrong_inputs_are_named() -> None:
    model, x = network("plain")
    ref = reference(quantize(model, (x,), [x]))
    with pytest.raises(InputError, match="2 inputs given, the graph takes 1"):
        ref(x, x)
    with pytest.raises(InputError, match=r"shape \(1, 3, 5, 5\), the graph was exported for \(1, 3, 12, 12\)"):
        ref(torch.zeros(1, 3, 5, 5))
    with pytest.raises(InputError, match=r"is torch\.float64: must be torch\.float32; convert it with \.to\(\)"):
        ref(x.double())
    with pytest.raises(InputError, match=r"is a ndarray: must be a torch\.Tensor"):
        ref(x.numpy())


def test_outputs_are_a_flat_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            """Two features."""
            y = self.conv(x)
            return {"y": y, "z": torch.relu(y)}

    ref = reference(quantize(Two().eval(), (IMAGE,), [IMAGE]))
    y, z = ref(IMAGE)
    assert sqnr(torch.relu(y), z) > 30  # y is float where it leaves, int8 where relu reads it
