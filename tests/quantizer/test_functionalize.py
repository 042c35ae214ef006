"""Operators in place: who sees what they write, and that callers and the model's own constants do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import quartic
from quantizer import capture
from quantizer.sqnr import sqnr

Body = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A linear layer of what ``body`` gives, beside the input as it is by then."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.layer, self.conv, self.body = nn.Linear(4, 4), nn.Conv1d(4, 4, 3, padding=1), body
        self.steps = nn.Buffer(torch.ones(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[2, 4] to twice that shape."""
        return self.layer(self.body(self, x)), x * 1.0


def behind(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What is written into ``other``, perhaps another name of ``x``, and then ``x``."""
    other.mul_(2.0)
    return x + other


def standardised(net: Net, x: torch.Tensor) -> torch.Tensor:
    w = net.conv.weight - net.conv.weight.mean((1, 2), keepdim=True)
    w /= w.std((1, 2), keepdim=True)
    return functional.conv1d(x[..., None], w, padding=1).squeeze(-1)


def attended(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Whose operands have strides that the view behind needs, and their decomposition lacks."""
    x = x * 1.0
    x[0] = net.steps
    heads = net.layer(x).view(1, 2, 2, 2).transpose(1, 2)
    y = functional.scaled_dot_product_attention(heads, heads, heads)
    return y.transpose(1, 2).contiguous().view(2, 4)


def counted(net: Net, x: torch.Tensor) -> torch.Tensor:
    net.steps.add_(1.0)
    return x.relu_() * net.steps


WRITES: dict[str, Body] = {
    "input": lambda _, x: x.mul_(2.0),
    "part of the input": lambda _, x: x[:, :2].add_(1.0).repeat(1, 2),
    "all of the input": lambda _, x: x.copy_(x * 3.0),
    "view of the input": lambda _, x: x.view(8).relu_().view(2, 4),
    "input behind dropout": lambda _, x: functional.dropout(x, 0.5, False).relu_(),
    "buffer and input": counted,
    "dropout": lambda net, x: behind(y := net.layer(x), functional.dropout(y, 0.5, False)),
    "float": lambda net, x: behind(y := net.layer(x), y.float()),
    "new": lambda net, x: behind(y := net.layer(x), y.relu()),
    "convolution behind a view": lambda net, x: behind(y := net.conv(x[..., None]), y.view(2, 4, 1)).squeeze(-1),
    "weight": standardised,
    "mish and a dimension": lambda net, x: functional.mish(net.layer(x), inplace=True).unsqueeze_(1)[:, 0],
    "attention behind a written token": attended,
    "buffer as a factor": lambda net, x: x @ torch.diag(net.steps.abs_()),
}


@pytest.mark.thin(1)
@pytest.mark.parametrize("recipe", ["w8a8", "f32"])
@pytest.mark.parametrize("name", WRITES)
def test_whoever_reads_it_sees_what_was_written(name: str, recipe: str) -> None:
    torch.manual_seed(0)
    model, x = Net(WRITES[name]).eval(), torch.randn(2, 4)
    kept, steps = x.clone(), model.steps.clone()
    q = quartic.quantize(model, (x,), [(x,)], recipe=recipe)
    expected = quartic.reference(q)(x)
    found = quartic.simulate(quartic.compile(q, "tiny"), x).outputs
    assert all(map(torch.equal, found, expected))
    assert torch.equal(x, kept)
    assert torch.equal(model.steps, steps)
    for one, wanted in zip(found, model(x), strict=True):
        torch.testing.assert_close(one, wanted.detach(), rtol=0, atol=wanted.abs().max().item() * 0.03)


def residual(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.layer(x)
    z = net.layer(y.relu_()).mul_(2.0)
    z += y
    return z.sigmoid_() + y


def test_nothing_is_written_in_place_and_every_value_stays() -> None:
    """A layer's result is not lost by what is added to it: its noise is told, and gradients pass."""
    torch.manual_seed(0)
    model, x = Net(residual).eval(), torch.randn(2, 4)
    graph = capture(model, (x,))
    assert not [n for n in graph.graph.nodes if n.op == "call_function" and n.target._schema.is_mutable]
    assert all(map(torch.equal, graph(x), model(x)))
    rows = sqnr(model, quartic.quantize(model, (x,), [(x,)], recipe="w16a16"), (x,))
    assert min(row.sqnr_db for row in rows) > 60


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w4a8-brecq", "w4a4-quartdepth"])
def test_second_order_targets_of_operators_in_place(recipe: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3)).eval()
    x = torch.randn(4, 4, 8, 8)
    known = quartic.recipe(recipe)
    assert known.round is not None
    short = dataclasses.replace(known, round=dataclasses.replace(known.round, iterations=4))
    q = quartic.quantize(model, (x[:1],), [(x,)], recipe=short)
    exe = quartic.compile(q, "tiny")
    assert torch.equal(quartic.simulate(exe, x[:1]).outputs[0], quartic.reference(q)(x[:1])[0])


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.ELU(inplace=True)), nn.GRUCell(4, 4)],
    ids=["an input that is called input", "a cell of constant state"],
)
def test_what_pytorch_itself_writes_in_place(model: nn.Module) -> None:
    """A cell's gates of no state are constants, into which its definition writes: once per batch of calibration."""
    x = torch.randn(2, 4)
    q = quartic.quantize(model.eval(), (x,), [(x,), (x,)], recipe="f32")
    (found,) = quartic.simulate(quartic.compile(q, "tiny"), x).outputs
    assert torch.equal(found, quartic.reference(q)(x)[0])
    torch.testing.assert_close(found, model(x.clone()), rtol=1e-5, atol=1e-6)


def test_one_tensor_for_two_inputs() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.mul_(2.0) + y

    x = torch.randn(2, 4)
    graph = capture(Both().eval(), (x, x))
    assert torch.equal(graph(x, x), x * 2 + x)
