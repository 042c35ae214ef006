"""The reference and the compiler read codes of 4 and 16 bits, codebooks and asymmetric weights alike."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import fx

import quantizer.codebook  # noqa: F401  (registers its operators)
from compiler.frontend.export import import_graph
from compiler.interpreter.qnn import run_qnn
from isa.errors import UnsupportedError
from quartic import reference
from tests.e2e.test_front_ends import call, outputs, traced

Q = torch.ops.quantized_decomposed
BOOK = [-127, -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 32, 64, 127]
THRESHOLDS = [0.02 * (a + b) / 2 for a, b in pairwise(BOOK)]
RANGES = {
    "4": (torch.int8, 3, -8, 7),
    "4u": (torch.uint8, 9, 0, 15),
    "8": (torch.int8, -3, -128, 127),
    "8u": (torch.uint8, 100, 0, 255),
    "16": (torch.int16, 77, -32768, 32767),
}


def codes(g: fx.Graph, x: fx.Node, width: str, scale: float = 0.11) -> fx.Node:
    dtype, zero, low, high = RANGES[width]
    args = (scale, zero, low, high, dtype)
    return call(g, Q.dequantize_per_tensor.default, call(g, Q.quantize_per_tensor.default, x, *args), *args)


def book(g: fx.Graph, x: fx.Node) -> fx.Node:
    stored = call(g, torch.ops.quartic.quantize_codebook.default, x, THRESHOLDS)
    return call(g, torch.ops.quartic.dequantize_codebook.default, stored, BOOK, 0, 0.02)


def weight(g: fx.Graph, low: int, high: int, dtype: torch.dtype) -> fx.Node:
    named = [g.get_attr(name) for name in ("w", "scales", "zeros")]
    return call(g, Q.dequantize_per_channel.default, *named, 0, low, high, dtype)


def tensors(low: int, high: int, dtype: torch.dtype, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randint(low, high + 1, (6, 5), generator=generator).to(dtype),
        "scales": torch.rand(6, generator=generator, dtype=torch.float64) + 0.1,
        "zeros": torch.randint(low, high + 1, (6,), generator=generator),
    }


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("weights", [(-8, 7, torch.int8), (0, 15, torch.uint8), (-128, 127, torch.int8)])
@pytest.mark.parametrize("width", RANGES)
def test_linear_with_zero_points_on_both_sides(x: torch.Tensor, width: str, weights: tuple) -> None:
    module = traced(
        lambda g, x: call(g, torch.ops.aten.linear.default, codes(g, x, width), weight(g, *weights)),
        **tensors(*weights),
    )
    outputs(module, x)


def test_linear_of_16_bit_weights(x: torch.Tensor) -> None:
    weights = (-32768, 32767, torch.int16)
    module = traced(
        lambda g, x: call(g, torch.ops.aten.linear.default, codes(g, x, "16", 1e-4), weight(g, *weights)),
        **tensors(*weights),
    )
    outputs(module, x)


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -1e6, None])
def test_codes_of_a_codebook_enter_products(x: torch.Tensor, special: float | None) -> None:
    weights = (-8, 7, torch.int8)
    if special is not None:
        x.view(-1)[::7] = special
    module = traced(
        lambda g, x: call(g, torch.ops.aten.linear.default, book(g, x), weight(g, *weights)), **tensors(*weights)
    )
    outputs(module, x)


def refusal(module: fx.GraphModule) -> str:
    with pytest.raises(UnsupportedError) as caught:
        import_graph(module)
    return str(caught.value)


def test_nothing_but_products_reads_a_codebook() -> None:
    found = refusal(traced(lambda g, x: call(g, torch.ops.aten.relu.default, book(g, x))))
    assert "rule: only products and moves read codes of a codebook" in found
    assert "do: quantize this operand uniformly" in found


@pytest.mark.parametrize("width", ["4", "8"])
def test_16_bit_weights_need_16_bit_activations(width: str) -> None:
    weights = (-32768, 32767, torch.int16)
    found = refusal(
        traced(
            lambda g, x: call(g, torch.ops.aten.linear.default, codes(g, x, width), weight(g, *weights)),
            **tensors(*weights),
        )
    )
    assert f"has no mode for 16-bit weights and {width}-bit activations" in found
    assert "do: quantize the activations to 16 bits" in found


def test_masks_are_no_outputs() -> None:
    found = refusal(traced(lambda g, x: call(g, torch.ops.aten.gt.Scalar, x, 0.0)))
    assert "is a mask of type bool; return mask.float()" in found


def test_4_bit_codes_are_no_outputs() -> None:
    dtype, zero, low, high = RANGES["4"]
    module = traced(lambda g, x: call(g, Q.quantize_per_tensor.default, x, 0.1, zero, low, high, dtype))
    assert "holds 4-bit codes; return the dequantized tensor" in refusal(module)


def test_positions_are_int32(x: torch.Tensor) -> None:
    module = traced(lambda g, x: call(g, torch.ops.aten.argmax.default, codes(g, x, "16"), 2))
    (found,) = run_qnn(import_graph(module), [x.numpy()])
    assert found.dtype == "int32"
    assert torch.equal(torch.from_numpy(found).long(), reference(module)(x)[0])
