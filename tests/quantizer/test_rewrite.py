"""Operators in other words: the float meaning stays, the machine's operators remain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from quantizer import decompose
from quantizer.flow import capture
from quantizer.rewrite import rewrite

X = torch.linspace(-2, 2, 48).reshape(1, 3, 4, 4)


class Model(nn.Module):
    """``function`` of the input and a batch norm of three channels."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.copy_(torch.tensor([0.1, -2.0, 3.0]))
        self.norm.running_var.copy_(torch.tensor([0.5, 2.0, 9.0]))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [1, 3, 4, 4]."""
        return self.function(self.norm, x)


RULES = [
    ("batch norm", lambda norm, x: norm(x), ["mul", "add"]),
    ("division", lambda norm, x: x / 3, ["mul"]),
    ("reversed subtraction", lambda norm, x: 1 - x, ["mul", "add"]),
    ("dropout", lambda norm, x: functional.dropout(x, 0.5, False).relu(), ["relu"]),
    ("feature dropout", lambda norm, x: functional.dropout2d(x, 0.5, False).relu(), ["relu"]),
    ("conversion to its own type", lambda norm, x: x.float().to(torch.float32).relu(), ["relu"]),
    ("power by a constant tensor", lambda norm, x: x ** torch.full((1,), 3.0), ["mul", "mul"]),
    ("power by a constant per element", lambda norm, x: x ** torch.arange(4.0), ["pow"]),
    ("power by a constant that spreads it", lambda norm, x: x[:, :, :, :1] ** torch.full((4,), 2.0), ["slice", "pow"]),
    ("root", lambda norm, x: (x * x + 1) ** 0.3, ["mul", "add", "log", "mul", "exp"]),
    ("division by a tensor stays", lambda norm, x: x / (x * x + 1), ["mul", "add", "div"]),
]


@pytest.mark.parametrize(("function", "names"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_a_rewrite_keeps_the_meaning(function: Callable[..., torch.Tensor], names: list[str]) -> None:
    model = Model(function).eval()
    graph = rewrite(capture(model, (X,)))
    calls = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert [str(n.target).split(".")[1] for n in calls] == names
    assert calls[-1].meta["val"].shape == X.shape
    with torch.no_grad():
        assert (graph(X) - model(X)).abs().max() < 1e-6


def test_a_call_that_the_machine_has_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes milliseconds, and of most calls the definition only says that it does not apply."""
    traced: list[object] = []
    original = decompose.make_fx
    monkeypatch.setattr(decompose, "make_fx", lambda f, **options: traced.append(f) or original(f, **options))
    own = rewrite(capture(Model(lambda norm, x: (x + x) * (x - 1) ** 2).eval(), (X,)))
    assert not traced
    other = rewrite(capture(Model(lambda norm, x: torch.add(x, x, alpha=3) + 1).eval(), (X,)))
    assert len(traced) == 1
    with torch.no_grad():
        assert torch.equal(own(X), (X + X) * (X - 1) ** 2)
        assert torch.equal(other(X), X + X * 3 + 1)


def test_what_a_definition_makes_of_constants_is_folded_and_not_defined_in_turn() -> None:
    asked: list[tuple[int, ...]] = []

    def by_a_table(x: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(x.shape))
        return torch.maximum(x, torch.ones(7).sub(1).relu().sum())

    model = Model(lambda norm, x: x.relu()).eval()
    graph = rewrite(capture(model, (X,)), {torch.ops.aten.relu.default: by_a_table})
    assert set(asked) == {X.shape}
    assert [str(n.target) for n in graph.graph.nodes if n.op == "call_function"] == ["aten.maximum.default"]
    assert torch.equal(graph(X), X.relu())
