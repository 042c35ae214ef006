"""Modules at the edges of what operators allow: each computes the reference's bits, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn
from torch.nn import functional as F  # noqa: N812

import quartic
from isa.errors import UnsupportedError
from isa.machine import Machine
from tests.bits import assert_same
from tests.e2e.support import probes

DECOMPOSED = torch.ops.quantized_decomposed
UINT8 = torch.uint8
IMAGE = (1, 6, 9, 8)
Shapes = list[tuple[int, ...]]


class Case(nn.Module):
    """``function(module, *inputs)`` with seeded submodules and parameters."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the case's function returns."""
        return self.function(self, *inputs)


CASES: dict[str, tuple[Shapes, Callable[[], Case]]] = {}


def case(name: str, shapes: Shapes, function: Callable[..., Any], **parts: Callable[[], Any]) -> None:
    def build() -> Case:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            return Case(function, **{key: part() for key, part in parts.items()}).eval()

    CASES[name] = (shapes, build)


def conv(*args: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*args, **options)


def linear(*sizes: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(*sizes)


def vector(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


def chain(m: Case, x: torch.Tensor) -> torch.Tensor:
    """More operations than a kernel considers, and more than a vector program holds."""
    x = m.c(x)
    for i in range(80):
        x = F.hardtanh(x * 0.99 + 0.01, -1.0 - i, 1.0 + i)
    return x


def many_vectors(m: Case, x: torch.Tensor) -> torch.Tensor:
    """More per-channel vectors than a vector program has parameters."""
    x = m.c(x)
    for p in m.ps:
        x = x * p + p
    return x


def heads(m: Case, x: torch.Tensor) -> torch.Tensor:
    y = m.l(x).reshape(2, 7, 3, 4).permute(0, 2, 1, 3)
    return (torch.sigmoid(y @ y.transpose(-1, -2) * 0.3) @ y).permute(0, 2, 1, 3).reshape(2, 7, 12)


def joined_joins(m: Case, x: torch.Tensor) -> torch.Tensor:
    a, b = m.c(x), m.e(x)
    return m.d(torch.cat([torch.cat([a, b], 1), torch.cat([b, a, b], 1)], 1))


def two_scales(m: Case, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a = m.c(x)
    return m.d(a), F.max_pool2d(torch.cat([a, 10 * m.e(x)], 1), 2), torch.cat([a, m.d(a)], 1)


def one_row(m: Case, x: torch.Tensor) -> torch.Tensor:
    """The small factor of a broadcast is the anchor's result."""
    return m.c(F.adaptive_avg_pool2d(x, (1, 8))) * x


case("add of itself", [IMAGE], lambda m, x: (lambda a: a + a)(m.c(x)), c=conv(6, 5, 1))
case("map added", [IMAGE], lambda m, x: m.c(x) + m.p, c=conv(6, 5, 1), p=vector(9, 8))
case("column added", [IMAGE], lambda m, x: m.c(x) + m.p, c=conv(6, 5, 1), p=vector(9, 1))
case("vector multiplied", [IMAGE], lambda m, x: m.c(x) * m.p, c=conv(6, 5, 1), p=vector(5, 1, 1))
case("small factor is the anchor's", [IMAGE], one_row, c=conv(6, 6, 1))
case("pools in a row", [IMAGE], lambda m, x: F.avg_pool2d(F.max_pool2d(F.max_pool2d(m.c(x), 2), 2), 2), c=conv(6, 5, 1))
case("divisor and ceil", [IMAGE], lambda m, x: F.avg_pool2d(m.c(x), 3, 2, 1, True, True, 7), c=conv(6, 5, 1))
case("taps outside", [IMAGE], lambda m, x: F.avg_pool2d(m.c(x), (3, 2), (2, 3), (1, 0), True, False), c=conv(6, 5, 1))
case("spread maximum", [IMAGE], lambda m, x: F.max_pool2d(m.c(x), (3, 2), 2, (1, 1), (2, 3)), c=conv(6, 5, 1))
case("more padding than kernel", [IMAGE], lambda m, x: m.d(m.c(x)), c=conv(6, 5, 2, padding=7), d=conv(5, 3, 3, 5, 9))
case("more stride than kernel", [IMAGE], lambda m, x: m.c(x), c=conv(6, 5, 2, stride=4, padding=1))
case("spread rows", [IMAGE], lambda m, x: m.c(x), c=conv(6, 5, (1, 4), dilation=(3, 2), padding=(0, 3)))
case("linear of rank 4", [(2, 3, 7, 10)], lambda m, x: m.l(F.relu(x)), l=linear(10, 3))
case("linear of rank 1", [(10,)], lambda m, x: m.l(F.relu(x)), l=linear(10, 3))
case("transposed factors", [(3, 6, 5), (3, 7, 6)], lambda m, x, y: x.transpose(1, 2) @ y.permute(0, 2, 1))
case("one right factor", [(3, 5, 6), (6, 7)], lambda m, x, y: x @ y)
case("heads", [(2, 7, 12)], heads, l=linear(12, 12))
case("returned twice", [IMAGE], lambda m, x: (lambda a: (a, x, a))(m.c(x)), c=conv(6, 5, 1))
case("unused input", [IMAGE, (2, 3)], lambda m, x, y: m.c(x), c=conv(6, 5, 1))
case("constant returned", [IMAGE], lambda m, x: (m.c(x), m.p), c=conv(6, 5, 1), p=vector(2, 3))
case("long chain", [(1, 3, 3, 3)], chain, c=conv(3, 4, 1))
case("many vectors", [(1, 3, 3, 3)], many_vectors, c=conv(3, 4, 1),
     ps=lambda: nn.ParameterList([nn.Parameter(torch.randn(4, 1, 1)) for _ in range(18)]))  # fmt: skip
case("seven streams", [(2, 4, 5, 5)] * 7, lambda m, *xs: sum(xs[1:], xs[0]))
case("two scales", [IMAGE], two_scales, c=conv(6, 5, 1), d=conv(5, 4, 1), e=conv(6, 5, 1))
case("joins of joins", [IMAGE], joined_joins, c=conv(6, 5, 1), e=conv(6, 3, 1), d=conv(19, 4, 1))
case("join of rank 5", [(1, 6, 3, 4)],
     lambda m, x: torch.cat([m.c(x).reshape(1, 2, 3, 3, 4), x.reshape(1, 2, 3, 3, 4)], 2), c=conv(6, 6, 1))  # fmt: skip
case("shuffled channels", [IMAGE],
     lambda m, x: m.d(m.c(x).reshape(1, 2, 3, 9, 8).transpose(1, 2).reshape(1, 6, 9, 8)),
     c=conv(6, 6, 1, groups=2), d=conv(6, 6, 3, groups=6))  # fmt: skip
case("scalar", [()], lambda m, x: F.relu(x) * 0.3 + x)
case("padding beyond the field", [(1, 2, 5, 3)], lambda m, x: m.c(F.pad(x, (0, 0, 300, 0))), c=conv(2, 3, 3, padding=1))
case("vectors before and behind a pool", [IMAGE],
     lambda m, x: F.avg_pool2d(F.relu(m.c(x)), 3, 2, 1) * m.p + m.r, c=conv(6, 40, 3),
     p=vector(40, 1, 1), r=vector(40, 1, 1))  # fmt: skip
case("padding that is no code", [IMAGE], lambda m, x: m.d(F.pad(m.c(x), (1, 2, 0, 3), value=0.2601)),
     c=conv(6, 5, 1), d=conv(5, 4, 3))  # fmt: skip
case("more channels than the field", [(1, 65600)], lambda m, x: m.l(x), l=linear(65600, 2))
case("stride to no second output", [(1, 2, 90, 3)], lambda m, x: F.adaptive_avg_pool2d(x, (1, 3)))
case("more taps than a window has", [(1, 2, 300, 4)], lambda m, x: x.mean((2, 3)))
case("longer steps than a window has", [(1, 2, 140, 4)], lambda m, x: F.adaptive_avg_pool2d(x, (2, 2)))


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", CASES)
def test_bits(name: str) -> None:
    shapes, build = CASES[name]
    generator = torch.Generator().manual_seed(0)
    batches = [tuple(torch.randn(s, generator=generator) for s in shapes) for _ in range(2)]
    q = quartic.quantize(build(), batches[0], batches)
    inputs = list(zip(*(probes(shape) for shape in shapes), strict=True))
    expected = [quartic.reference(q)(*values) for values in inputs]
    for machine, options in (("tiny", {}), ("tiny", {"double_buffer": False}), ("edge28", {"fuse": False})):
        exe = quartic.compile(q, machine, **options)
        for values, wanted in zip(inputs, expected, strict=True):
            assert_same(quartic.simulate(exe, *values).outputs, wanted)


def qdq(
    x: torch.Tensor, scale: float, zero: int, low: int = -128, high: int = 127, dtype: torch.dtype = torch.int8
) -> torch.Tensor:
    codes = DECOMPOSED.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return DECOMPOSED.dequantize_per_tensor(codes, scale, zero, low, high, dtype)


def codes_of(x: torch.Tensor) -> torch.Tensor:
    return DECOMPOSED.quantize_per_tensor(x, 0.05, 3, -12, 17, torch.int8)


QUANTIZED: dict[str, Callable[[torch.Tensor], Any]] = {
    "narrow": lambda x: qdq(F.relu(qdq(x, 0.05, -3, -100, 90)), 0.07, 5, -20, 50),
    "zero outside the range": lambda x: qdq(x, 0.05, -60, -20, 50),
    "same grid, fewer codes": lambda x: qdq(qdq(x, 0.05, 3), 0.05, 3, -5, 9),
    "two scales": lambda x: (qdq(x * 2, 0.05, 0), qdq(x * 2, 0.5, -10), x * 2),
    "unsigned": lambda x: qdq(F.relu(qdq(x, 0.05, 120, 3, 250, UINT8)), 0.07, 7, 1, 99, UINT8),
    "signed joins unsigned": lambda x: torch.cat([qdq(x, 0.05, 120, 0, 255, UINT8), F.relu(x)], 1),
    "maximum of the lowest codes": lambda x: F.max_pool2d(qdq(x - 9, 0.05, -100), 3, 2, 1),
    "codes returned": codes_of,
    "chain of conversions": lambda x: qdq(qdq(x * 1.5, 0.1, -7, -60, 60) + 0.3, 0.2, 0),
    "infinite padding": lambda x: qdq(F.pad(qdq(x, 0.05, 3), (1, 2, 0, 3), value=float("-inf")), 0.05, 3),
}


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", QUANTIZED)
def test_bits_of_graphs_that_others_quantized(name: str) -> None:
    shape = (1, 3, 7, 6)
    module = Case(lambda m, x: QUANTIZED[name](x)).eval()
    q = torch.export.export(module, (torch.zeros(shape),)).module(check_guards=False)
    reference = quartic.reference(q)
    for machine, fuse in (("tiny", True), ("edge28", False)):
        exe = quartic.compile(q, machine, fuse=fuse, validate=True)
        for x in probes(shape):
            assert_same(quartic.simulate(exe, x).outputs, reference(x))


@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
def test_a_global_pool_larger_than_the_accumulators_follows_its_convolution(machine: str) -> None:
    shape = (1, 3, 40, 40)
    x = torch.randn(shape)
    q = quartic.quantize(Case(lambda m, x: F.adaptive_avg_pool2d(m.c(x), 1), c=nn.Conv2d(3, 4, 1)).eval(), (x,), [(x,)])
    exe = quartic.compile(q, machine)
    assert_same(quartic.simulate(exe, x).outputs, quartic.reference(q)(x))


@pytest.mark.slow
@pytest.mark.parametrize("module", [nn.AvgPool2d(3, 2, 1), nn.ConstantPad2d((1, 2, 0, 3), -0.5)])
def test_padding_in_binary32_needs_no_tensor_whole_in_sram(module: nn.Module) -> None:
    x = torch.randn(1, 16, 96, 96)
    q = quartic.quantize(Case(lambda m, x: m.c(x), c=module).eval(), (x,), [(x,)], "f32")
    exe = quartic.compile(q, "tiny")
    assert Machine.load("tiny").sram.bytes < 4 * x.numel()
    assert_same(quartic.simulate(exe, x).outputs, quartic.reference(q)(x))


def test_an_average_pool_of_binary32_is_one_kernel_that_reads_its_input_once() -> None:
    x = torch.randn(1, 16, 96, 96)
    x[0, 0] = -0.0
    q = quartic.quantize(Case(lambda m, x: F.avg_pool2d(x, 3, 2, 1)).eval(), (x,), [(x,)], "f32")
    run = quartic.simulate(quartic.compile(q, "tiny"), x)
    assert_same(run.outputs, quartic.reference(q)(x))
    assert [row.name for row in run.profile.rows("kernel") if "pool" in row.name] == ["avg_pool2d"]


def test_what_no_instruction_can_say_is_refused_by_name() -> None:
    x = torch.randn(1, 2, 150, 3)
    q = quartic.quantize(Case(lambda m, x: m.c(x), c=nn.Conv2d(2, 3, 3, (70, 1))).eval(), (x,), [(x,)])
    with pytest.raises(UnsupportedError, match=r"^node conv2d, module c, .*: mmu.window: stride_h=70 must be .* 0..63"):
        quartic.compile(q)


def test_products_that_repeat_matrices() -> None:
    shapes = [(2, 1, 5, 6), (2, 3, 6, 7)]
    batch = tuple(torch.randn(s) for s in shapes)
    q = quartic.quantize(Case(lambda m, x, y: x @ y).eval(), batch, [batch])
    run = quartic.simulate(quartic.compile(q, "tiny"), *batch)
    assert_same(run.outputs, quartic.reference(q)(*batch))
