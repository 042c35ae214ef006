"""What repeats over a product is there when the product's kernel wants to swallow its reader."""

from __future__ import annotations

from collections.abc import Callable

from compiler.dialects import qnn
from compiler.passes.fuse_kernels import fuse_kernels
from tests.compiler.kern_graphs import add, bodies, checked, graph, linear, q, relu
from tests.compiler.view_graphs import cut


def fused(body: Callable, *shapes: tuple[int, ...]) -> list[str]:
    """The kernels of a graph, bits checked."""
    return bodies(checked(graph(shapes, body), fuse_kernels))


def test_a_row_made_behind_the_product_is_made_in_front_of_it():
    def body(x, y):
        whole = linear(q(x), 8)
        return q(relu(add(whole, linear(q(relu(y)), 8))))

    assert fused(body, (25, 8), (1, 6)) == ["quantize", "relu+quantize", "linear", "linear+add+relu+quantize"]


def test_a_row_that_needs_the_product_comes_behind_it():
    def body(x):
        whole = linear(q(x), 8)
        return q(add(whole, relu(cut(whole, 0, 3, 1))))

    assert fused(body, (25, 8)) == ["quantize", "linear", "relu", "add+quantize"]


def test_two_rows_that_share_what_makes_them():
    def body(x, y):
        whole, row = linear(q(x), 8), relu(linear(q(y), 8))
        return q(qnn.SelectOp(qnn.SigmoidOp(row).output, whole, row).output)

    assert fused(body, (25, 8), (1, 6))[-1].startswith("linear")
