"""Joins of channels wait until they leave the graph; what they leave it as is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from xdsl.dialects.builtin import ModuleOp

import quartic
from compiler.dialects import kern, qnn
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.ir.signature import main_function
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.join_last import join_last
from compiler.passes.materialize_copies import materialize_copies
from tests.compiler.alias_graphs import concat
from tests.compiler.kern_graphs import graph, inputs, relu


def shuffled(x, shape: tuple[int, ...]):
    """New pixels 2 x 2 in their places, as a depth model enlarges."""
    n, c, h, w = shape[0], shape[1], 4, 6
    apart = qnn.PermuteOp(qnn.ReshapeOp(x, (n, c, h, w, 2, 2)), (0, 1, 2, 4, 3, 5))
    return qnn.ReshapeOp(apart, (n, c, 2 * h, 2 * w)).output


def joined(x):
    return shuffled(concat(relu(x), relu(relu(x))), (2, 6))


def module(body: Callable, shape: tuple[int, ...] = (2, 3, 24, 4)) -> ModuleOp:
    return graph([shape], body)


def returned(found: ModuleOp) -> str:
    return main_function(found).body.block.last_op.operands[0].owner.name


def test_a_join_goes_behind_moves_that_keep_its_channels():
    found = module(joined)
    join_last(main_function(found).body.block)
    found.verify()
    assert returned(found) == "qnn.concat"
    assert sum(isinstance(op, qnn.PermuteOp) for op in found.walk()) == 2


@pytest.mark.parametrize(
    "body",
    [
        lambda x: concat(relu(x), relu(relu(x))),  # nothing to pass
        lambda x: qnn.PermuteOp(concat(relu(x), relu(relu(x))), (0, 2, 1, 3)).output,  # channels do not stay in place
        lambda x: qnn.ReshapeOp(concat(relu(x), relu(relu(x))), (2, 2, 12, 24)).output,  # nor are they left whole
        lambda x: relu(shuffled(concat(relu(x), relu(relu(x))), (2, 6))),  # something computes behind it
    ],
)
def test_other_joins_stay(body):
    found = module(body)
    before = str(found)
    join_last(main_function(found).body.block)
    assert str(found) == before


def test_a_join_that_is_read_elsewhere_stays():
    def body(x):
        join = concat(relu(x), relu(relu(x)))
        return [shuffled(join, (2, 6)), relu(join)]

    found = module(body)
    join_last(main_function(found).body.block)
    assert returned(found) == "qnn.reshape"


def test_parts_are_written_where_the_output_lies_and_bits_stay():
    found = module(joined)
    values = inputs(found)
    expected = run_qnn(found, values)
    fuse_kernels(found)
    materialize_copies(found)
    found.verify()
    (join,) = (op for op in found.walk() if isinstance(op, kern.ConcatOp))
    assert all(isinstance(part.owner, kern.FusedOp | kern.ViewOp) for part in join.inputs)
    assert returned(found) == join.name
    assert all((a == b).all() for a, b in zip(run_kern(found, values), expected, strict=True))


class Enlarged(nn.Module):
    """Two heads of a depth model, joined and enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        parts = [functional.elu(layer(x)).view(n, -1, 4, h * w).transpose(2, 3) for layer in (self.a, self.b)]
        return torch.cat(parts, 1).view(n, 4, h, w, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, 4, 2 * h, 2 * w)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "machine"), [("f32", "edge28"), ("w8a8", "tiny"), ("w4a8", "edge28")])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_chip_gives_the_bits_of_the_reference(recipe: str, machine: str, batch: int) -> None:
    x = torch.randn(batch, 3, 10, 14)
    q = quartic.quantize(Enlarged().eval(), (x,), [(x,)], recipe)
    (got,), want = quartic.simulate(quartic.compile(q, machine), x).outputs, quartic.reference(q)(x)
    assert torch.equal(got, *want)
