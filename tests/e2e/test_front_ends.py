"""The reference and the compiler read a graph alike: operators in place, batch norm that stayed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from compiler.frontend.export import import_graph
from compiler.interpreter.qnn import run_qnn
from quartic import reference
from tests.bits import assert_same

aten = torch.ops.aten
Body = Callable[[fx.Graph, fx.Node], fx.Node | tuple[fx.Node, ...]]


def traced(body: Body, **tensors: torch.Tensor) -> fx.GraphModule:
    """A graph over one input ``x`` of shape [2, 3, 4, 5] with buffers ``tensors``."""
    root = nn.Module()
    for name, tensor in tensors.items():
        root.register_buffer(name, tensor)
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 3, 4, 5)
    result = body(graph, x)
    graph.output(result if isinstance(result, tuple) else (result,))
    return fx.GraphModule(root, graph)


def call(graph: fx.Graph, target: object, *args: object) -> fx.Node:
    return graph.call_function(target, args)  # type: ignore[arg-type]


def outputs(module: fx.GraphModule, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The reference's outputs, after the compiler's were found to be the same bits."""
    found = reference(module)(x.clone())
    compiled = run_qnn(import_graph(module), [x.numpy()])
    assert_same(compiled, found)
    return found


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3))


def test_later_users_see_what_an_operator_wrote_in_place(x: torch.Tensor) -> None:
    def body(g: fx.Graph, x: fx.Node) -> fx.Node:
        doubled = call(g, aten.add.Tensor, x, x)
        call(g, aten.relu_.default, doubled)
        return call(g, aten.add.Tensor, doubled, x)

    assert torch.equal(outputs(traced(body), x)[0], (x + x).relu() + x)


def test_every_name_of_a_tensor_sees_a_chain_in_place(x: torch.Tensor) -> None:
    def body(g: fx.Graph, x: fx.Node) -> tuple[fx.Node, ...]:
        first = call(g, aten.mul.Tensor, x, 2.0)
        second = call(g, aten.relu_.default, first)
        third = call(g, aten.add_.Tensor, second, 1.0)
        return first, second, third, call(g, aten.mul.Tensor, first, x)

    want = (x * 2).relu() + 1
    first, second, third, product = outputs(traced(body), x)
    assert torch.equal(first, want)
    assert torch.equal(second, want)
    assert torch.equal(third, want)
    assert torch.equal(product, want * x)


def test_users_in_front_of_the_write_see_the_old_value(x: torch.Tensor) -> None:
    def body(g: fx.Graph, x: fx.Node) -> tuple[fx.Node, ...]:
        doubled = call(g, aten.mul.Tensor, x, 2.0)
        before = call(g, aten.mul.Tensor, doubled, 3.0)
        return before, call(g, aten.relu_.default, doubled)

    before, after = outputs(traced(body), x)
    assert torch.equal(before, x * 2 * 3)
    assert torch.equal(after, (x * 2).relu())


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_a_multiply_and_an_add_per_channel(x: torch.Tensor, affine: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    tensors = {name: torch.rand(3, generator=generator) + 0.5 for name in ("gamma", "beta", "mean", "variance")}

    def body(g: fx.Graph, x: fx.Node) -> fx.Node:
        names = [None, None, "mean", "variance"] if not affine else list(tensors)
        values = [None if name is None else g.get_attr(name) for name in names]
        return call(g, aten.batch_norm.default, x, *values, False, 0.1, 1e-5, True)

    (y,) = outputs(traced(body, **tensors), x)
    gamma, beta, mean, variance = (t.double() for t in tensors.values())
    a = (gamma if affine else 1.0) / (variance + 1e-5).sqrt()
    b = (beta if affine else 0.0) - mean * a
    assert torch.equal(y, x * a.float().view(3, 1, 1) + b.float().view(3, 1, 1))
    near = functional.batch_norm(x.double(), mean, variance, gamma if affine else None, beta if affine else None)
    assert (y - near).abs().max() < 1e-5


def test_number_minus_tensor(x: torch.Tensor) -> None:
    (y,) = outputs(traced(lambda g, x: call(g, aten.rsub.Scalar, x, 1.5)), x)
    assert torch.equal(y, 1.5 - x)
