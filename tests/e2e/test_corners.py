"""Constants of channels before row reductions, masks as numbers, and signs of zeros: reference and chip agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import quartic
from isa.errors import QuantizationError, QuarticError, UnsupportedError
from quantizer.reference import pointwise
from tests.bits import assert_same
from tests.e2e.operators import Behind, Body

RECIPES = ("w8a8", "w4a4", "f32")
RAMP = torch.arange(9.0) - 3
ZEROS = torch.tensor([-0.0, 0.0, -1.0, 2.0])


def compared(body: Body, x: torch.Tensor, recipe: str, machine: str = "edge28") -> torch.Tensor:
    """The reference's result, which has the bits of the simulator's."""
    q = quartic.quantize(Behind(nn.Identity(), body).eval(), (x,), [(x,)], recipe=recipe)
    expected = quartic.reference(q)(x)
    assert_same(quartic.simulate(quartic.compile(q, machine), x).outputs, expected)
    return expected[0]


def masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


BEFORE_ROWS: dict[str, tuple[Body, tuple[int, ...]]] = {
    "sum before softmax": (lambda x: torch.softmax(x + RAMP, -1), (3, 4, 9)),
    "factor before softmax": (lambda x: torch.softmax(x @ x * RAMP, -1), (2, 9, 9)),
    "product and sum before softmax": (lambda x: torch.softmax(x @ x + RAMP, -1) * RAMP + RAMP.flip(0), (1, 9, 9)),
    "softmax of channels": (lambda x: torch.softmax(x + RAMP[:, None, None], 1), (1, 9, 4, 4)),
    "pool of a softmax": (lambda x: functional.avg_pool2d((x + RAMP[:, None, None]).softmax(1), 2), (1, 9, 4, 4)),
    "maximum": (lambda x: (x @ x + RAMP).amax(-1), (1, 9, 9)),
    "norm": (lambda x: functional.layer_norm(x @ x + RAMP, (9,), RAMP, RAMP), (1, 9, 9)),
    "keys left out": (lambda x: masked(x, (RAMP > 0)[None]), (2, 9, 8)),
    "weights of keys": (lambda x: masked(x, RAMP[None, None, None]), (1, 2, 9, 8)),
}


@pytest.mark.thin(4)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", BEFORE_ROWS)
def test_constants_of_channels_before_a_row_reduction(name: str, recipe: str) -> None:
    """They were left out of the binary. Machines take turns."""
    body, shape = BEFORE_ROWS[name]
    torch.manual_seed(0)
    turn = list(BEFORE_ROWS).index(name) + RECIPES.index(recipe)
    compared(body, torch.randn(shape), recipe, ("edge28", "tiny")[turn % 2])


MASKS: dict[str, Body] = {
    "mask": lambda x: (x > 0).float(),
    "sum": lambda x: (x > 0).float() + (x > 1).float(),
    "padded": lambda x: functional.pad((x > 0).float(), (1, 1), value=0.5),
    "joined": lambda x: torch.cat([x > 0, x < 1]).float(),
    "not": lambda x: (~(x > 0)).float(),
    "and": lambda x: ((x > 0) & (x < 1)).to(x.dtype),
    "any": lambda x: (x > 0).any(0).float(),
    "all": lambda x: (x[None] > 0).all(1).float(),
    "mean": lambda x: (x > 0).float().mean(0, keepdim=True),
    "softmax": lambda x: (x > 0).float().softmax(0),
    "sign": torch.sign,
    "moved": lambda x: torch.where((x > 0)[:, None], x[:, None], 0.0),
}


@pytest.mark.thin(4)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", MASKS)
def test_masks_are_zeros_and_ones(name: str, recipe: str) -> None:
    found = compared(MASKS[name], ZEROS, recipe)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, MASKS[name](ZEROS), rtol=0, atol=0.02)


SIGNS: dict[str, tuple[Body, torch.Tensor]] = {
    "relu": (torch.relu, ZEROS),
    "inverse of relu": (lambda x: torch.exp(1 / torch.relu(-torch.relu(x))), ZEROS),
    "relu6": (lambda x: functional.relu6(-torch.relu(x)), ZEROS),
    "clamp below -0": (lambda x: x.clamp(min=-0.0), ZEROS),
    "clamp above -0": (lambda x: x.clamp(max=-0.0), ZEROS),
    "maximum": (lambda x: torch.maximum(x, -x), torch.tensor([0.0, -0.0, 1.0])),
    "minimum": (lambda x: torch.minimum(x, -x), torch.tensor([0.0, -0.0, 1.0])),
    "max pool": (lambda x: functional.max_pool2d(x, 2), torch.tensor([[[[-0.0, 0.0], [-0.0, -0.0]]]])),
    "max pool of -0": (lambda x: functional.max_pool2d(x, 2), torch.full((1, 1, 2, 2), -0.0)),
    "fold": (lambda x: functional.fold(x, (2, 2), 2, stride=2), torch.full((1, 4, 1), -0.0)),
}


@pytest.mark.thin(4)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", SIGNS)
def test_zeros_have_the_same_sign(name: str, recipe: str) -> None:
    """-0 is below +0 (docs/isa.md, ``Func``); PyTorch gives either one as the maximum of both."""
    compared(*SIGNS[name], recipe)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("pool", [functional.max_pool2d, functional.adaptive_max_pool2d])
def test_pools_have_no_positions(pool: Callable[..., Any], recipe: str) -> None:
    """They were the pool's input. What nobody reads does not matter."""
    x = torch.randn(1, 1, 4, 4)
    compared(lambda x: pool(x, 2, return_indices=True)[0], x, recipe)
    with pytest.raises(QuarticError, match=r"use only its first result|has no such operator"):
        compared(lambda x: pool(x, 2, return_indices=True), x, recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_query_that_sees_no_key_gives_zero(recipe: str) -> None:
    """As in PyTorch; a softmax of such a row has no numbers."""
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    x = torch.randn(2, 3, 8)
    found = compared(lambda x: masked(x, mask), x, recipe)
    assert torch.equal(found[:, 1], torch.zeros(2, 8))
    torch.testing.assert_close(found, masked(x, mask), rtol=0, atol={"f32": 1e-6, "w8a8": 0.1, "w4a4": 1}[recipe])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_query_to_which_values_hide_every_key_gives_zero(recipe: str) -> None:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    x[0, 1] = -x[0, 1].abs()

    def body(x: torch.Tensor) -> torch.Tensor:
        return masked(x, x[..., :3] > 0)

    found = compared(body, x, recipe, "tiny")
    assert torch.equal(found[0, 1], torch.zeros(8))
    torch.testing.assert_close(found, body(x), rtol=0, atol={"f32": 1e-6, "w8a8": 0.1, "w4a4": 1}[recipe])


def test_indices_stay_indices() -> None:
    """Their conversion was left out, so that the model's result had another type."""
    with pytest.raises(QuarticError, match="indices can only be returned"):
        compared(lambda x: x.argmax(0).float(), ZEROS, "f32")


@pytest.mark.thin(1)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("value", [torch.arange(3), torch.tensor([True, False]), torch.zeros(2, dtype=torch.int32)])
def test_constant_results_are_numbers(value: torch.Tensor, recipe: str) -> None:
    q = quartic.quantize(Behind(nn.Identity(), lambda x: (x * 2.0, value)).eval(), (ZEROS,), [(ZEROS,)], recipe=recipe)
    expected = quartic.reference(q)(ZEROS)
    assert torch.equal(expected[1], value.float())
    assert_same(quartic.simulate(quartic.compile(q, "tiny"), ZEROS).outputs, expected)


def test_constant_integers_become_numbers() -> None:
    assert torch.equal(pointwise.to(torch.arange(3), torch.float32), torch.tensor([0.0, 1.0, 2.0]))


REFUSED: dict[str, tuple[Body, tuple[int, ...], str]] = {
    "uneven windows": (lambda x: functional.adaptive_avg_pool2d(x, 3), (1, 2, 7, 7), "an output size that divides"),
    "odd factor": (
        lambda x: functional.interpolate(x, scale_factor=1.2345678, mode="bilinear"), (1, 2, 7, 7),
        "1.2345678 is not a ratio of whole numbers up to 1000: give the output's size",
    ),
    "dropout": (lambda x: functional.dropout(x, 0.5, True), (2, 3), "F.dropout needs training=self.training"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_reference_refuses_with_advice(name: str) -> None:
    body, shape, message = REFUSED[name]
    x = torch.randn(shape)
    q = quartic.quantize(Behind(nn.Identity(), body).eval(), (x,), [(x,)], recipe="f32")
    with pytest.raises(UnsupportedError, match=message):
        quartic.reference(q)(x)
    with pytest.raises(UnsupportedError, match=message.rpartition(": ")[2]):
        quartic.compile(q)


def test_a_model_that_nobody_quantized() -> None:
    program = torch.export.export(nn.Conv2d(2, 3, 3).eval(), (torch.randn(1, 2, 8, 8),))
    with pytest.raises(UnsupportedError, match=r"quantize the model first .*: nothing in it is"):
        quartic.compile(program)


@pytest.mark.parametrize(
    ("body", "shape", "message"),
    [
        (lambda x: x.repeat(0), (3,), r"its result \[0\] has no elements\n   do: leave it out of the model"),
        (lambda x: functional.group_norm(x, 1), (1, 4, 60, 60), "or take mean and variance apart"),
    ],
)
def test_the_compiler_refuses_with_advice(body: Body, shape: tuple[int, ...], message: str) -> None:
    x = torch.randn(shape)
    with pytest.raises(UnsupportedError, match=message):
        quartic.compile(quartic.quantize(Behind(nn.Identity(), body).eval(), (x,), [(x,)], recipe="f32"))


def test_the_reference_convolves_images() -> None:
    x = torch.randn(2, 9, 9)
    q = quartic.quantize(nn.Conv2d(2, 3, 3).eval(), (x,), [(x,)], recipe="f32")
    with pytest.raises(UnsupportedError, match=r"a convolution of \[2, 9, 9\]: the machine has two dimensions"):
        quartic.reference(q)(x)


def test_a_batch_of_another_type() -> None:
    x = torch.randn(2, 3)
    message = "input 0 of calibration batch 1 is torch.float64, but the model was prepared for torch.float32"
    with pytest.raises(QuantizationError, match=message):
        quartic.quantize(nn.Linear(3, 2).eval(), (x,), [(x.double(),)])


def test_tiles_of_fewer_dimensions() -> None:
    x = torch.randn(2, 3)
    assert compared(lambda x: x.tile(2), x, "f32").shape == (2, 6)
