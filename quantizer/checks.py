"""What a model must keep to be quantized, said by name before or where it fails."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from isa.errors import QuantizationError, QuarticError
from quantizer.location import describe, source_line
from quantizer.regions import held

DEFECT = "write it with other operators or leave it out of the model, and report this: it is a defect of Quartic"
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def first_line(error: BaseException) -> str:
    """The first line that an error says, or its type where it says none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def unforeseen(doing: str, error: BaseException) -> str:
    """What to say of an exception that nobody expected."""
    return f"{doing} failed with {type(error).__name__}: {first_line(error)}; {DEFECT}"


@contextmanager
def naming(node: Node, doing: str) -> Generator[None]:
    """Exceptions from inside, but for QuarticErrors, become a QuantizationError that says where and what to do."""
    try:
        yield
    except QuarticError:
        raise
    except Exception as error:
        raise QuantizationError(f"{describe(node)}: {unforeseen(doing, error)}") from error


class Named(Interpreter):
    """Runs a prepared graph node by node, so that what fails has a name; for after the graph itself has failed."""

    def run_node(self, n: Node) -> object:
        """The value of ``n``. Raises QuantizationError."""
        try:
            with naming(n, "running it on a calibration batch"):
                return super().run_node(n)
        except QuantizationError as error:
            if n.op != "call_module":  # an observer, which says what it saw but not of which node
                raise
            raise QuantizationError(f"{describe(n.all_input_nodes[0])}: {error}") from error


def check_model(model: object) -> None:
    """Raise QuantizationError for what is no module, is in training mode, or has parameters other than binary32."""
    if not isinstance(model, nn.Module):
        raise QuantizationError(f"the model is a {type(model).__name__}: must be a torch.nn.Module")
    if any(module.training for module in model.modules()) and not isinstance(model, GraphModule):
        name = next(name or "(root)" for name, module in model.named_modules() if module.training)
        raise QuantizationError(f"module {name} is in training mode: call model.eval() before quantizing")
    for name, value in model.named_parameters():
        if value.dtype != torch.float32 and (value.is_floating_point() or value.is_complex()):
            raise QuantizationError(f"parameter {name} is {value.dtype}: must be torch.float32; call model.float()")


def check_graph(graph: GraphModule) -> None:
    """Raise QuantizationError for weights that are not finite, for sizes, numbers and control flow that depend on
    values."""
    if problems := [*_regions(graph), *_unknown(graph), *_infinite(graph)]:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise QuantizationError(f"the model cannot be quantized as it is:\n{lines}")


def _regions(graph: GraphModule) -> Iterator[str]:
    """Operators that run graphs of their own, if and as often as values say."""
    for node in graph.graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            inside = (inner for region in held(graph, node) for inner in region.graph.nodes)
            at = next((inner for inner in inside if source_line(inner)), node)
            yield (
                f"{describe(node, at)}: runs a graph of its own, and the chip knows no branches, loops or other types: "
                "compute both sides and choose by torch.where, unroll loops, leave autocast out"
            )


def _unknown(graph: GraphModule) -> Iterator[str]:
    """Results that PyTorch knows by a symbol alone, where no operand is one."""
    found: set[Node] = set()
    for node in graph.graph.nodes:
        leaves = tree_leaves(node.meta.get("val"))
        number = any(isinstance(leaf, SYMBOLS) for leaf in leaves)
        sizes = [n for leaf in leaves if isinstance(leaf, torch.Tensor) for n in leaf.shape]
        if not number and all(type(n) is int for n in sizes):
            continue
        if not found.intersection(node.all_input_nodes):
            what = "is a number that depends on values" if number else "has a size that is not known"
            yield f"{describe(node)}: the result {what}; {_advice(node, number)}"
        found.add(node)


def _advice(node: Node, number: bool) -> str:
    if node.op == "placeholder":
        return "export the model without dynamic_shapes"
    return "keep it a tensor, without .item()" if number else "select with a mask and torch.where, which keeps sizes"


def _infinite(graph: GraphModule) -> Iterator[str]:
    """Parameters that are not finite, and NaN in any constant; buffers may hold infinities, as masks do."""
    for node in graph.graph.nodes:
        if node.op != "get_attr" or not node.users:
            continue
        value: object = graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or _finite(value):
            continue
        wrong = value.isfinite().logical_not() if isinstance(value, nn.Parameter) else value.isnan()
        if wrong.any():
            yield (
                f"{node.target} (shape {list(value.shape)}) has {int(wrong.sum())} value(s) that are NaN or infinite, "
                f"the first at {wrong.nonzero()[0].tolist()}: constants must be finite; look at the checkpoint"
            )


@torch.no_grad()
def _finite(value: torch.Tensor) -> bool:
    """Whether the sum is finite, which finite values of sane weights give; False asks for a closer look."""
    return math.isfinite(value.sum())
