"""Operators and idioms as models write them: bodies over tokens [2, 6, 8] or images [1, 4, 6, 5]."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

from quantizer import capture

Body = Callable[..., torch.Tensor]
sdpa = functional.scaled_dot_product_attention
einsum = torch.einsum
resize = functional.interpolate


class With(nn.Module):
    """``function(x, *tensors)`` of constants that the module owns."""

    def __init__(self, function: Body, *tensors: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"c{i}", tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the function returns."""
        return self.function(x, *self.buffers())


def numbers(*shape: int) -> torch.Tensor:
    """Normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


THREE = torch.tensor([3.0])


def heads(x: torch.Tensor, count: int = 2) -> torch.Tensor:
    """[2, 6, 8] as [2, count, 6, 8 / count]."""
    return x.reshape(2, -1, count, 8 // count).transpose(1, 2)


def joined(y: torch.Tensor) -> torch.Tensor:
    """Heads as tokens."""
    return y.transpose(1, 2).reshape(2, -1, 8)


def attend(*slices: tuple[slice, ...], **options: Any) -> Body:
    """Attention of the heads to themselves, or to some of the keys."""

    def body(x: torch.Tensor, *mask: torch.Tensor) -> torch.Tensor:
        q = heads(x)
        k, v = (q[s] for s in slices) if slices else (q, q)
        return joined(sdpa(q, k, v, *mask, **options))

    return body


def written(x: torch.Tensor) -> torch.Tensor:
    """Writes through slices, views and copies."""
    y, z = x * 1.0, torch.zeros(2, 6, 8)
    y[:, 0] = 0.5
    y[:, 1:3] += x[:, 1:3]
    y[:, 3].mul_(2.0)
    y.view(2, 48).add_(0.25)
    z[:, 2:4] = x[:, :2]
    z[..., ::2] = y[..., 1::2]
    first, second = y.chunk(2, -1)
    first.mul_(second)
    y[y > 1.5] = 1.5
    return y.transpose(1, 2).relu_().transpose(1, 2) + z


def eager(x: torch.Tensor) -> torch.Tensor:
    """Attention as ``transformers`` writes it."""
    q = heads(x)
    weights = torch.matmul(q, q.transpose(2, 3)) * 0.5 + torch.zeros(6, 6).triu(1)
    weights = functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    weights = functional.dropout(weights, 0.1, False)
    return torch.matmul(weights, q).transpose(1, 2).contiguous().reshape(2, 6, -1).contiguous()


class Twice(nn.Module):
    """A module of several inputs, all made of one."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.module, self.count = module, count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The module's first result for x, x/2, x/3, ..."""
        y = self.module(*[x / (i + 1) for i in range(self.count)])
        return y[0] if isinstance(y, tuple) else y


ROWS: dict[str, Callable[[], Body]] = {
    "gelu": lambda: functional.gelu,
    "gelu of tanh": lambda: lambda x: functional.gelu(x, approximate="tanh"),
    "silu": lambda: functional.silu,
    "tanh": lambda: torch.tanh,
    "sigmoid": lambda: torch.sigmoid,
    "softmax": lambda: lambda x: x.softmax(-1),
    "softmax of tokens": lambda: lambda x: x.softmax(1),
    "layer norm": lambda: nn.LayerNorm(8),
    "layer norm without factors": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "layer norm of two": lambda: nn.LayerNorm((6, 8)),
    "rms norm": lambda: nn.RMSNorm(8),
    "exp": lambda: lambda x: (-x.abs()).exp(),
    "log": lambda: lambda x: (x.abs() + 1.0).log(),
    "sqrt": lambda: lambda x: x.abs().sqrt(),
    "rsqrt": lambda: lambda x: (x.abs() + 0.5).rsqrt(),
    "reciprocal": lambda: lambda x: (x.abs() + 0.5).reciprocal(),
    "div": lambda: lambda x: x / (x.abs() + 1.0),
    "square": lambda: lambda x: x**2,
    "floor": lambda: lambda x: (x * 4).floor(),
    "erf": lambda: torch.erf,
    "extremes": lambda: lambda x: torch.minimum(torch.maximum(x, -x * 0.5), x * x),
    "where": lambda: lambda x: torch.where(x > 0.1, x, x * 0.25),
    "compare": lambda: lambda x: x * (x <= 0.3).float() + (x != 0.0).float(),
    "sum": lambda: lambda x: x - x.sum(-1, keepdim=True) * 0.125,
    "mean": lambda: lambda x: x - x.mean(-1, keepdim=True),
    "mean of tokens": lambda: lambda x: x.mean(1),
    "amax": lambda: lambda x: x - x.amax(-1, keepdim=True),
    "amin of tokens": lambda: lambda x: x.amin(1),
    "causal of one head": lambda: lambda x: sdpa(x, x, x, is_causal=True),
    "unequal batches": lambda: lambda x: torch.matmul(x.unsqueeze(1), x.transpose(0, 1).reshape(1, 3, 8, 4).softmax(2)),
    "leaky relu": lambda: lambda x: functional.leaky_relu(x, 0.3),
    "softplus": lambda: lambda x: functional.softplus(x * 8) + functional.softplus(x, 3.0),
    "masked fill": lambda: lambda x: (x * 2).masked_fill(~((x > 0.5) | (x < -0.5)), 0.25),
    "max of an axis": lambda: lambda x: x.max(-1, keepdim=True).values * x,
    "min of two": lambda: lambda x: torch.min(x, x * x),
    "group norm of tokens": lambda: nn.GroupNorm(3, 6),
    "baddbmm of probabilities": lambda: lambda x: torch.baddbmm(x, x.softmax(1).transpose(1, 2)[:, :6, :6], x),
    "in place": lambda: lambda x: (x * 2).abs_().add_(1.0).sqrt_().neg_(),
    "broadcast inside": lambda: (
        lambda x: (x.view(2, 1, 3, 2, 2, 4) * x[..., :4].reshape(2, 1, 3, 2, 1, 4)).sum(2).flatten(2)
    ),
    "broadcast constant": lambda: (
        lambda x: (x.view(2, 3, 2, 2, 2, 2) + torch.arange(12.0).view(3, 1, 2, 2, 1)).view(2, 6, 8)
    ),
    "conv1d of one group": lambda: nn.Conv1d(6, 5, 3, padding=1),
    "sdpa scale": lambda: attend(scale=0.3),
    "sdpa causal": lambda: attend(is_causal=True),
    "sdpa other keys": lambda: attend((..., slice(4), slice(None)), (..., slice(1, 5), slice(None))),
    "sdpa bool mask": lambda: With(attend(), numbers(6, 6) > -0.5),
    "sdpa mask per head": lambda: With(attend(), numbers(2, 6, 6)),
    "sdpa mask per batch": lambda: With(attend(), numbers(2, 1, 1, 6)),
    "sdpa computed mask": lambda: lambda x: joined(sdpa(heads(x), heads(x), heads(x), heads(x)[..., :1] > -9.0)),
    "sdpa grouped": lambda: lambda x: joined(sdpa(heads(x, 4), *[heads(x, 4)[:, :2]] * 2, enable_gqa=True)),
    "multi-head attention": lambda: Twice(nn.MultiheadAttention(8, 2, batch_first=True), 3),
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "decoder layer": lambda: Twice(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
    "eager attention": lambda: eager,
    "einsum attention": lambda: (
        lambda x: joined(einsum("bhij,bhjd->bhid", einsum("bhid,bhjd->bhij", *[heads(x)] * 2).softmax(-1), heads(x)))
    ),
    "einsum weight": lambda: With(lambda x, w: einsum("bnc,cd->bnd", x, w), numbers(8, 5)),
    "einsum outer": lambda: lambda x: einsum("bn,bc->bnc", x[..., 0], x[:, 0]),
    "softmax of the batch": lambda: lambda x: x.softmax(0),
    "log_softmax": lambda: lambda x: x.log_softmax(-1),
    "layer norm of three": lambda: nn.LayerNorm((2, 6, 8)),
    "layer norm by hand": lambda: lambda x: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt(),
    "rms norm by hand": lambda: lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "variance": lambda: lambda x: (x - x.mean(-1, True)).pow(2).mean(-1, True),
    "unit length": lambda: lambda x: functional.normalize(x, dim=-1),
    "elu": lambda: lambda x: functional.elu(x) + functional.elu(x, 0.7),
    "mish": lambda: functional.mish,
    "shrunk": lambda: (
        lambda x: functional.logsigmoid(x) + functional.threshold(x, 0.1, 3.0) - functional.hardshrink(x, 0.3)
    ),
    "angles": lambda: lambda x: x * functional.cosine_similarity(x, x.flip(1), 2).unsqueeze(2) + (x.abs() + 1).log10(),
    "prelu": lambda: nn.PReLU(),
    "powers": lambda: lambda x: x**3 + x**4 * 0.1 + (x.abs() + 1) ** -2,
    "rounding": lambda: lambda x: torch.div(x, 0.3, rounding_mode="floor") + (x * 3).ceil(),
    "alpha": lambda: lambda x: torch.add(torch.sub(x, x * x, alpha=0.5), x, alpha=2),
    "addcmul": lambda: lambda x: torch.addcmul(x, x, x, value=0.5).lerp(x, 0.3),
    "clamp to tensors": lambda: lambda x: torch.clamp(x, x * x - 1, x * x).clip(-3, 3),
    "masks": lambda: lambda x: x.masked_fill(((x > 0.5) | (x < -2)), -torch.inf).softmax(-1) * (x > 0),
    "any": lambda: lambda x: x + (x > 1).any(-1, keepdim=True).float() + (x > 1).sum(-1, keepdim=True).float(),
    "picked": lambda: lambda x: x[:, torch.tensor([2, 0, 1, 1, 5, 4])].flip(-1),
    "writes": lambda: written,
    "baddbmm": lambda: lambda x: torch.baddbmm(x, x @ x.transpose(1, 2), x, beta=0.5, alpha=2),
    "constant factors": lambda: With(
        lambda x, a, b: torch.addmm(torch.ones(5), x.reshape(12, 8), a) + b[:, :2].sum(), numbers(8, 5), numbers(3, 2)
    ),
    "computed weight": lambda: lambda x: functional.linear(x, x[0]),
    "vectors": lambda: lambda x: (x @ x[0, 0]).unsqueeze(-1) * x,
    "many tokens": lambda: lambda x: x.repeat(1, 50, 1).mean(1),
    "positions": lambda: With(lambda x, t: x + t[torch.arange(x.shape[1])] + torch.zeros_like(x), numbers(9, 8)),
    "embedding": lambda: With(lambda x, t: x + functional.embedding(torch.arange(x.shape[1]), t), numbers(9, 8)),
    "conv1d": lambda: nn.Sequential(nn.Conv1d(6, 6, 3, 2, 2, 2, groups=3), nn.Linear(4, 8)),
    "conv1d same": lambda: nn.Conv1d(6, 6, 3, padding="same"),
    "pool1d": lambda: lambda x: functional.max_pool1d(functional.avg_pool1d(x, 3, 1, 1), 2),
    "gates": lambda: lambda x: (lambda a, b: torch.cat([functional.silu(a) * b] * 2, -1))(*x.chunk(2, -1)),
    "cut": lambda: lambda x: torch.cat([x.split(3, 1)[1], *x.tensor_split(4, 1)[:2]], 1)[:, 1:6:2],
    "argmin": lambda: lambda x: x + x.min(-1, keepdim=True)[0],
    "resized row": lambda: lambda x: resize(x, scale_factor=2, mode="linear")[..., 4:12],
}

IMAGES: dict[str, Callable[[], Body]] = {
    "bilinear": lambda: lambda x: resize(x, size=(9, 13), mode="bilinear"),
    "bilinear by corners": lambda: lambda x: resize(x, size=(11, 10), mode="bilinear", align_corners=True),
    "bilinear by a factor": lambda: lambda x: resize(x, scale_factor=7 / 4, mode="bilinear"),
    "bilinear by a factor of corners": lambda: lambda x: resize(x, None, 1.5, "bilinear", align_corners=True),
    "nearest": lambda: lambda x: resize(x, scale_factor=2, mode="nearest"),
    "nearest to odd": lambda: lambda x: resize(x, size=(7, 11), mode="nearest"),
    "nearest by a factor": lambda: lambda x: resize(x, scale_factor=3.5, mode="nearest"),
    "averages": lambda: lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1),
    "transposed patches": lambda: nn.ConvTranspose2d(4, 6, 2, 2),
    "transposed odd": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
    "softmax of channels": lambda: lambda x: x.softmax(1),
    "layer norm of channels": lambda: lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "sum of channels": lambda: lambda x: x * x.sum(1, keepdim=True),
    "pixel shuffle": lambda: lambda x: functional.pixel_shuffle(x, 2),
    "mean of an image": lambda: lambda x: x.mean((2, 3), keepdim=True),
    "layer norm of images": lambda: nn.LayerNorm((4, 6, 5)),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "softmax of columns": lambda: lambda x: x.softmax(3) * x.softmax(2),
    "bilinear down": lambda: lambda x: resize(x, size=(3, 2), mode="bilinear"),
    "bilinear to one": lambda: lambda x: resize(x, size=(1, 1), mode="bilinear", align_corners=True),
    "nearest down": lambda: lambda x: resize(x, scale_factor=(0.5, 2.0), mode="nearest"),
    "transposed groups": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
    "transposed depthwise": lambda: nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4),
    "transposed dilated": lambda: nn.ConvTranspose2d(4, 6, 3, (2, 3), 2, 1, dilation=2),
    "transposed beyond": lambda: nn.ConvTranspose2d(4, 6, 2, 3, 0, 2),
    "unshuffled": lambda: lambda x: functional.pixel_unshuffle(functional.pad(x, (0, 1)), 3),
    "unfold": lambda: lambda x: functional.unfold(x, (3, 2), dilation=2, padding=1).reshape(1, 4, 6, -1),
    "reflected": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "cut by padding": lambda: lambda x: functional.pad(x, (-1, 2, 0, -1)),
    "windows": lambda: lambda x: functional.max_pool2d(functional.avg_pool2d(x, 3, 2, 1, True, False), 2, 1, 1),
    "maximum": lambda: lambda x: functional.adaptive_max_pool2d(x, (2, 1)),
    "maximum of unequal windows": lambda: lambda x: functional.adaptive_max_pool2d(x, (4, 3)),
    "generalized mean": lambda: With(lambda x, p: x.clamp(min=0.01).pow(p).mean((2, 3), True).pow(1 / p) + x, THREE),
}


class Behind(nn.Module):
    """A body behind a layer, so that it reads codes."""

    def __init__(self, first: nn.Module, body: Body) -> None:
        super().__init__()
        self.first, self.body = first, body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The body's result."""
        return self.body(self.first(x))


class Between(Behind):
    """A body between two layers, so that there are codes around it."""

    def __init__(self, first: nn.Module, body: Body, second: nn.Module) -> None:
        super().__init__(first, body)
        self.second = second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the second layer makes of the body's result."""
        return self.second(super().forward(x))


@lru_cache(maxsize=2)
def captured(name: str) -> tuple[nn.Module, GraphModule, tuple[torch.Tensor, ...]]:
    """The model of a row with drawn parameters, its graph, and two inputs to calibrate it on."""
    torch.manual_seed(0)
    if name in ROWS:
        model, shape = Between(nn.Linear(8, 8), ROWS[name](), nn.LazyLinear(4)), (2, 6, 8)
    else:
        model, shape = Between(nn.Conv2d(4, 4, 1), IMAGES[name](), nn.LazyConv2d(3, 1)), (1, 4, 6, 5)
    with torch.no_grad():
        model.eval()(torch.randn(shape))
    batches = (torch.randn(shape), torch.randn(shape))
    return model, capture(model, batches[0]), batches
