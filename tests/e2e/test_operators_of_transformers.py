"""Operators of transformers and dense decoders: the compiler's front end gives the reference's bits, at every width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from xdsl.context import Context

import quartic
from compiler.frontend.export import import_graph
from compiler.interpreter.qnn import run_qnn
from compiler.pipeline import LEGALIZE
from tests.e2e.support import probes

WIDTHS = ("w8a8", "w4a8", "w4a4", "w8a16", "w16a16")
Body = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A body between two linears over [2, 6, 8], so that there are codes around it."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, self.first, self.second = body, nn.Linear(8, 8), nn.LazyLinear(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.body(self.first(x)))


class Image(nn.Module):
    """A body between two convolutions over [1, 4, 6, 5]."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, self.first, self.second = body, nn.Conv2d(4, 4, 1), nn.LazyConv2d(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.body(self.first(x)))


def attention(x: torch.Tensor) -> torch.Tensor:
    heads = x.reshape(2, 6, 2, 4).transpose(1, 2)
    return functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).reshape(2, 6, 8)


def causal(x: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x, x, x, is_causal=True)


ROWS: dict[str, Body] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "softmax": lambda x: x.softmax(-1),
    "softmax_middle": lambda x: x.softmax(1),
    "layer_norm": nn.LayerNorm(8),
    "layer_norm_plain": nn.LayerNorm(8, elementwise_affine=False),
    "layer_norm_two": nn.LayerNorm((6, 8)),
    "rms_norm": nn.RMSNorm(8),
    "exp": lambda x: (-x.abs()).exp(),
    "log": lambda x: (x.abs() + 1.0).log(),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.5).rsqrt(),
    "reciprocal": lambda x: (x.abs() + 0.5).reciprocal(),
    "div": lambda x: x / (x.abs() + 1.0),
    "pow": lambda x: x**2,
    "floor": lambda x: (x * 4).floor(),
    "erf": torch.erf,
    "extremes": lambda x: torch.minimum(torch.maximum(x, -x * 0.5), x * x),
    "where": lambda x: torch.where(x > 0.1, x, x * 0.25),
    "compare": lambda x: x * (x <= 0.3).float() + (x != 0.0).float(),
    "sum": lambda x: x - x.sum(-1, keepdim=True) * 0.125,
    "mean_last": lambda x: x - x.mean(-1, keepdim=True),
    "mean_tokens": lambda x: x.mean(1),
    "amax": lambda x: x - x.amax(-1, keepdim=True),
    "amin_tokens": lambda x: x.amin(1),
    "attention": attention,
    "causal": causal,
    "unequal_batches": lambda x: torch.matmul(x.unsqueeze(1), x.transpose(0, 1).reshape(1, 3, 8, 4).softmax(2)),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "elu": lambda x: functional.elu(x) + functional.elu(x, 0.7),
    "softplus": lambda x: functional.softplus(x * 8),
    "masked_fill": lambda x: (x * 2).masked_fill(~((x > 0.5) | (x < -0.5)), 0.25),
    "max_dim": lambda x: x.max(-1, keepdim=True).values * x,
    "min_other": lambda x: torch.min(x, x * x),
    "group_norm": nn.GroupNorm(3, 6),
    "baddbmm": lambda x: torch.baddbmm(x, x.softmax(1).transpose(1, 2)[:, :6, :6], x),
    "in_place": lambda x: (x * 2).abs_().add_(1.0).sqrt_().neg_(),
    "broadcast_inside": lambda x: (x.view(2, 1, 3, 2, 2, 4) * x[..., :4].reshape(2, 1, 3, 2, 1, 4)).sum(2).flatten(2),
    "broadcast_constant": lambda x: (x.view(2, 3, 2, 2, 2, 2) + torch.arange(12.0).view(3, 1, 2, 2, 1)).view(2, 6, 8),
    "conv1d": nn.Conv1d(6, 5, 3, padding=1),
}

IMAGES: dict[str, Body] = {
    "bilinear": lambda x: functional.interpolate(x, size=(9, 13), mode="bilinear"),
    "bilinear_corners": lambda x: functional.interpolate(x, size=(11, 10), mode="bilinear", align_corners=True),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
    "nearest_odd": lambda x: functional.interpolate(x, size=(7, 11), mode="nearest"),
    "nearest_factor": lambda x: functional.interpolate(x, scale_factor=3.5, mode="nearest"),
    "bilinear_factor": lambda x: functional.interpolate(x, scale_factor=7 / 4, mode="bilinear"),
    "bilinear_factor_corners": lambda x: functional.interpolate(x, None, 1.5, "bilinear", align_corners=True),
    "averages": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "transposed": nn.ConvTranspose2d(4, 6, 4, 2, 1),
    "transposed_patches": nn.ConvTranspose2d(4, 6, 2, 2),
    "transposed_odd": nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
    "channels": lambda x: x.softmax(1),
    "layer_norm_last": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "sum_channels": lambda x: x * x.sum(1, keepdim=True),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "mean_image": lambda x: x.mean((2, 3), keepdim=True),
}


def check(model: nn.Module, shape: tuple[int, ...], recipe: str) -> None:
    """The front end's qnn, before and after legalisation, is the reference on ordinary and extreme inputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.eval()(torch.randn(shape))
    batches = [(torch.randn(shape),) for _ in range(2)]
    q = quartic.quantize(model, batches[0], batches, recipe=recipe)
    reference, module = quartic.reference(q), import_graph(q)
    module.verify()
    legal = module.clone()
    for step in LEGALIZE:
        step.apply(Context(), legal)
    legal.verify()
    for x in probes(shape):
        expected = reference(x)
        for level in (module, legal):
            found = run_qnn(level, [x.numpy()])
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(torch.from_numpy(one).nan_to_num(7.0), other.nan_to_num(7.0))


@pytest.mark.thin
@pytest.mark.parametrize("recipe", WIDTHS)
@pytest.mark.parametrize("name", ROWS)
def test_operators_over_tokens(name: str, recipe: str) -> None:
    check(Net(ROWS[name]), (2, 6, 8), recipe)


@pytest.mark.thin
@pytest.mark.parametrize("recipe", WIDTHS)
@pytest.mark.parametrize("name", IMAGES)
def test_operators_over_images(name: str, recipe: str) -> None:
    check(Image(IMAGES[name]), (1, 4, 6, 5), recipe)


@pytest.mark.thin(5)
@pytest.mark.parametrize("name", ROWS)
def test_operators_in_binary32(name: str) -> None:
    check(Net(ROWS[name]), (2, 6, 8), "f32")


@pytest.mark.thin(2)
@pytest.mark.parametrize("name", [n for n in IMAGES if n.startswith(("transposed", "bilinear", "nearest", "averages"))])
def test_image_operators_in_binary32(name: str) -> None:
    check(Image(IMAGES[name]), (1, 4, 6, 5), "f32")
