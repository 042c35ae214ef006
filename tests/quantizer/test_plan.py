"""Overrides: which operators a pattern or a layer names, what wins, and what the graph then holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from isa.errors import QuantizationError
from quantizer import Change, Override, Recipe, quantize, report
from quantizer.ranges import MinMax
from quantizer.recipe import Format
from quantizer.report import Weight
from quantizer.spec import activation_spec, weight_spec


class Block(nn.Module):
    """A norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, 8]."""
        return x + functional.gelu(self.fc(self.norm(x)))


class Net(nn.Module):
    """Two embeddings joined, two blocks, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.side = nn.Linear(6, 4), nn.Linear(6, 4)
        self.blocks = nn.Sequential(Block(), Block())
        self.head, self.other = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [N, 6]."""
        y = self.blocks(torch.cat([self.patch_embed(x), self.side(x)], 1))
        return self.head(y), self.other(y)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def quantized(*overrides: Override, base: str = "w4a4") -> GraphModule:
    torch.manual_seed(0)
    return quantize(Net().eval(), (X,), [X], Recipe.load(base).with_overrides(*overrides))


def widths(q: GraphModule) -> dict[str, tuple[int, int | None]]:
    """Bits of weight and activation by module."""
    return {layer.module: (layer.weight.bits, layer.activation) for layer in report(q).layers if layer.weight}


def changed(q: GraphModule) -> set[str]:
    """Modules whose weight is not of 4 bits."""
    return {module for module, (weight, _) in widths(q).items() if weight != 4}


EIGHT = Change(bits=8)


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize(
    ("override", "modules"),
    [
        (Override("head", weight=EIGHT), {"head"}),
        (Override("blocks.1", weight=EIGHT), {"blocks.1.fc"}),
        (Override("blocks", weight=EIGHT), {"blocks.0.fc", "blocks.1.fc"}),
        (Override("*.fc", weight=EIGHT), {"blocks.0.fc", "blocks.1.fc"}),
        (Override("blocks.[0-9].f?", weight=EIGHT), {"blocks.0.fc", "blocks.1.fc"}),
        (Override("*", weight=EIGHT), {"patch_embed", "side", "blocks.0.fc", "blocks.1.fc", "head", "other"}),
        (Override(layer="first", weight=EIGHT), {"patch_embed", "side"}),
        (Override(layer="last", weight=EIGHT), {"head", "other"}),
        (Override(layer="embedding", weight=EIGHT), {"patch_embed"}),
    ],
    ids=lambda v: v.title if isinstance(v, Override) else "",
)
def test_what_an_override_names(override: Override, modules: set[str]) -> None:
    assert changed(quantized(override)) == modules


def test_the_last_of_several_wins() -> None:
    q = quantized(
        Override("*", weight=EIGHT, activation=EIGHT),
        Override("blocks", weight=Change(bits=4)),
        Override("blocks.1", weight=Change(bits=16), activation=Change(bits=16)),
        Override(layer="last", activation=Change(bits=4)),
    )
    assert widths(q) == {
        "patch_embed": (8, 8),
        "side": (8, 8),
        "blocks.0.fc": (4, 8),
        "blocks.1.fc": (16, 16),
        "head": (8, 4),
        "other": (8, 4),
    }


def operand(node: Node) -> tuple[object, ...]:
    """Scale, zero point and ends of the codes that a node reads first."""
    return node.all_input_nodes[0].args[1:5]


@pytest.mark.slow
def test_readers_that_differ_have_a_quantizer_each() -> None:
    q = quantized(Override("head", activation=EIGHT))
    head, other = (next(n for n in q.graph.nodes if n.name == name) for name in ("linear_4", "linear_5"))
    assert (operand(head)[2:], operand(other)[2:]) == ((-128, 127), (-8, 7))


def test_a_move_is_as_its_widest_reader_wants_it() -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x [N, 3, 6]."""
            y = x.transpose(0, 1)
            return self.a(y) + self.b(y)

    x = torch.randn(2, 3, 6)
    q = quantize(Moved().eval(), (x,), [x], Recipe.load("w4a4").with_overrides(Override("b", activation=EIGHT)))
    move = next(n for n in q.graph.nodes if "transpose" in str(n.target))
    assert operand(move)[2:] == (-128, 127)
    assert widths(q) == {"a": (4, 4), "b": (4, 8)}


@pytest.mark.slow
def test_residuals_are_read_as_the_norms_behind_want_them() -> None:
    def bits(q: GraphModule) -> dict[str, int | None]:
        return {each.node: each.activation for each in report(q).layers if "norm" in each.node or "add" in each.node}

    assert set(bits(quantized()).values()) == {16}
    assert set(bits(quantized(Override("blocks", wide=EIGHT))).values()) == {8}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w8a8", "w4a4"])
def test_a_recipe_with_idle_overrides_is_the_recipe(recipe: str) -> None:
    idle = Override("*", weight=Change(bits=Recipe.load(recipe).weight.bits))
    one, other = quantized(base=recipe), quantized(idle, base=recipe)
    assert str(one.graph) == str(other.graph)
    assert all(map(torch.equal, one.buffers(), other.buffers()))


@pytest.mark.thin(1)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            Override("hed", weight=EIGHT),
            "recipe w4a4, changed: override of modules 'hed': matches no module of the model; near are 'head', ",
        ),
        (
            Override("blocks.*.norm", weight=EIGHT),
            "override of modules 'blocks.*.norm': changes weights, but none of the 2 operators that it matches has any",
        ),
    ],
)
def test_an_override_that_does_nothing_is_an_error(override: Override, message: str) -> None:
    with pytest.raises(QuantizationError, match=re.escape(message)):
        quantized(override)


def test_a_model_without_such_a_layer_is_no_error_and_the_report_says_so() -> None:
    model = nn.Sequential(nn.Linear(6, 4)).eval()
    recipe = Recipe.load("w8a8").with_overrides(Override(layer="embedding", weight=EIGHT))
    assert report(quantize(model, (X,), [X], recipe)).overrides == {"layer 'embedding': weight bits 8": ()}


def format_(bits: int = 8, symmetric: bool = True, per: str = "channel") -> Format:
    return Format(bits, symmetric, per, MinMax())


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (weight_spec(format_()), (torch.int8, -127, 127, torch.per_channel_symmetric, 0)),
        (weight_spec(format_(4), 1), (torch.int8, -7, 7, torch.per_channel_symmetric, 1)),
        (weight_spec(format_(4, False)), (torch.int8, -8, 7, torch.per_channel_affine, 0)),
        (weight_spec(format_(16, per="tensor")), (torch.int16, -32767, 32767, torch.per_tensor_symmetric, None)),
        (weight_spec(format_(8, False, "tensor")), (torch.int8, -128, 127, torch.per_tensor_affine, None)),
        (activation_spec(format_(8, False, "tensor")), (torch.int8, -128, 127, torch.per_tensor_affine, None)),
        (activation_spec(format_(4, True, "tensor")), (torch.int8, -8, 7, torch.per_tensor_symmetric, None)),
        (activation_spec(format_(16, False, "tensor")), (torch.int16, -32768, 32767, torch.per_tensor_affine, None)),
    ],
)
def test_formats_as_torchao_has_them(spec: object, fields: tuple[object, ...]) -> None:
    assert (spec.dtype, spec.quant_min, spec.quant_max, spec.qscheme, spec.ch_axis) == fields


def test_equal_formats_are_one_quantizer() -> None:
    assert weight_spec(format_()) is weight_spec(format_())
    assert activation_spec(format_(32)) is None
    assert weight_spec(format_(32)) is None


LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Conv2d(4, 6, 3, groups=2), (1, 4, 5, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (1, 4, 5, 5)),
    (lambda: nn.Linear(4, 6), (3, 4)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=["conv2d", "conv_transpose2d", "linear"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_weights_of_every_kind(
    make: Callable[[], nn.Module], shape: tuple[int, ...], symmetric: bool, per: str
) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    nn.init.uniform_(model.weight, -0.2, 0.7)
    q = quantize(model, (x,), [x], dataclasses.replace(Recipe.load("w8a32"), weight=format_(8, symmetric, per)))
    (layer,) = report(q).layers
    assert layer.weight == Weight(8, tuple(model.weight.shape), per, not symmetric)
    node = next(n for n in q.graph.nodes if "dequantize" in str(n.target))
    codes, scale, zero = (getattr(q, n.target) if isinstance(n, Node) else torch.tensor(n) for n in node.args[:3])
    axis = int(isinstance(model, nn.ConvTranspose2d))
    assert scale.numel() == (1 if per == "tensor" else codes.shape[axis])
    scale, zero = (v.reshape(-1, *[1] * (codes.dim() - 1 - axis)) for v in (scale, zero))
    error = (codes.float() - zero) * scale - model.weight
    assert (error.abs() <= scale * (0.505 if symmetric else 1.01)).all()
