"""Put quantization where the machine stores codes: on operands, never inside a chain that becomes one kernel.

A float result is *swallowed* by an elementwise op if it has no other use and the same shape; of an op's two
operands only the later one is, the other is read from memory and so quantized. Every other operand of an
operator in the table is quantized on its edge; results that only leave the graph stay float.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from quantizer import pools
from quantizer.checks import naming
from quantizer.rewrite import rewrite
from quantizer.spec import FLOAT_RESULT, MAX_CHAIN_OPERANDS, Kind, Recipe, kind_of, recipe

aten = torch.ops.aten
ANNOTATION = "quantization_annotation"


class QuarticQuantizer(Quantizer):
    """torchao quantizer for the Quartic NPU; ``recipe`` names a row of ``quantizer.spec.RECIPES``."""

    def __init__(self, recipe_name: str = "w8a8") -> None:
        super().__init__()
        self.recipe = recipe(recipe_name)

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Rewrite operators that the machine has under other names; see ``quantizer.rewrite``."""
        return rewrite(model, pools.definitions(self.recipe))

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every node of ``model`` in place; see the module's docstring for the rule."""
        if self.recipe.activation is None:
            return model
        annotator = _Annotator(self.recipe, {n: i for i, n in enumerate(model.graph.nodes)})
        for node in model.graph.nodes:
            with naming(node, "deciding how to quantize it"):
                annotator.visit(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to do: the table only holds what the machine can do."""


@dataclass
class _Annotator:
    recipe: Recipe
    order: dict[Node, int]
    chain_operands: dict[Node, int] = field(default_factory=dict)
    moved: dict[Node, QuantizationSpecBase] = field(default_factory=dict)
    """How the results of moves are quantized."""
    plain: set[Node] = field(default_factory=set)
    """Elementwise ops whose kernel so far has no product, pool or row operation."""
    roots: dict[Node, tuple[Node, Node]] = field(default_factory=dict)
    """The edge at the head of a chain of moves, whose scale the whole chain shares."""

    def visit(self, node: Node) -> None:
        match kind_of(node):
            case Kind.WEIGHTED:
                x, w = node.all_input_nodes[:2]
                self._inputs(node, {x: self.recipe.activation, w: self._weight(node)})
            case Kind.PRODUCT:
                self._inputs(node, dict.fromkeys(_float_operands(node), self.recipe.activation))
            case Kind.POOL if self._sums_chain(node):
                self._inputs(node, {})
            case Kind.POOL:
                self._inputs(node, {x: self._read(x, self.recipe.elementwise) for x in _float_operands(node)})
            case Kind.NORM:
                x = _float_operands(node)[0]
                self._inputs(node, {x: self._read(x, self.recipe.wide)})
            case Kind.ELEMENTWISE:
                self._elementwise(node)
            case Kind.MOVE | Kind.SPLIT if not _only_leaves(node):
                self._shared(node)
            case Kind.MAX_POOL:
                self._shared(node)
            case _:
                pass

    def _weight(self, node: Node) -> QuantizationSpecBase | None:
        """Transposed convolutions have their output channels in dimension 1."""
        spec = self.recipe.weight
        transposed = "conv_transpose" in str(node.target)
        return spec if spec is None or not transposed else dataclasses.replace(spec, ch_axis=1)

    def _inputs(
        self,
        node: Node,
        specs: Mapping[Node, QuantizationSpecBase | None],
        output: QuantizationSpecBase | None = None,
    ) -> None:
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map={x: spec for x, spec in specs.items() if spec is not None},
            output_qspec=output,
            _annotated=True,
        )

    def _read(self, x: Node, spec: QuantizationSpecBase | None) -> QuantizationSpecBase | None:
        """How an operand is read from memory: as the move that made it left it, wide where a norm reads it too."""
        if x in self.moved:
            return self.moved[x]
        feeds_norm = any(kind_of(user) is Kind.NORM for user in x.users)
        return self.recipe.wide if feeds_norm else spec

    def _elementwise(self, node: Node) -> None:
        operands = _float_operands(node)
        swallowed = self._swallowed(node, operands)
        others = [x for x in operands if x is not swallowed]
        taken = self.chain_operands.get(swallowed, 0) if swallowed else -1
        self.chain_operands[node] = taken + len(others)
        if not _is_softmax(node) and (swallowed is None or swallowed in self.plain):
            self.plain.add(node)
        spec = self.recipe.wide if _is_softmax(node) else self.recipe.elementwise
        self._inputs(node, {x: self._read(x, spec) for x in others if x.op != "get_attr"})

    def _sums_chain(self, node: Node) -> bool:
        """Whether a reduction of rows ends the kernel of the elementwise ops that make them: no codes between them."""
        operands = _float_operands(node)  # none of a sum of truth values
        return bool(operands) and operands[0] in self.plain and len(operands[0].users) == 1 and _reduces_rows(node)

    def _swallowed(self, node: Node, operands: list[Node]) -> Node | None:
        fits = [
            x
            for x in operands
            if kind_of(x) in FLOAT_RESULT
            and len(x.users) == 1
            and _shape(x) == _shape(node)
            and self.chain_operands.get(x, 0) + len(operands) - 1 <= MAX_CHAIN_OPERANDS
        ]
        return max(fits, key=self.order.__getitem__, default=None)

    def _shared(self, node: Node) -> None:
        """A move quantizes its operands as those that read the result want it."""
        first, *rest = _float_operands(node) or list(node.all_input_nodes)
        if not isinstance(_value(first), torch.Tensor) and kind_of(first) is not Kind.SPLIT:
            return  # a result of an operator outside the table, which will be refused by name
        spec = self.moved.get(first) or self._wanted(node)
        self.moved[node] = spec
        known = self.roots.get(first)
        self.roots[node] = root = (first, node) if known is None else known
        same = SharedQuantizationSpec(root)
        inputs = dict.fromkeys(rest, same)
        if isinstance(_value(first), torch.Tensor):  # not one of several results, which are quantized already
            inputs = {first: spec if known is None else same, **inputs}
        self._inputs(node, inputs, same if isinstance(_value(node), torch.Tensor) else None)

    def _wanted(self, node: Node) -> QuantizationSpecBase:
        kinds = {kind_of(node), *_readers(node)}
        recipe = self.recipe
        spec = recipe.elementwise
        if kinds & {Kind.WEIGHTED, Kind.PRODUCT} and Kind.MAX_POOL not in kinds:  # windows read whole bytes
            spec = recipe.activation
        elif Kind.NORM in kinds:
            spec = recipe.wide
        assert spec is not None, "a recipe without activations annotates nothing"
        return spec


def _readers(node: Node) -> Iterator[Kind]:
    """Kinds of the operators that read a value, behind moves and maxima, and of these maxima."""
    for user in node.users:
        kind = kind_of(user)
        if kind in (Kind.MOVE, Kind.SPLIT, Kind.MAX_POOL):
            yield from _readers(user)
        if kind not in (Kind.MOVE, Kind.SPLIT, None):
            yield kind


def _reduces_rows(node: Node) -> bool:
    """Whether a node reduces the one axis that lies innermost in memory: the last, of images the channels."""
    if node.target not in (aten.sum.dim_IntList, aten.amax.default, aten.amin.default):
        return False
    shape, dims = _shape(node.all_input_nodes[0]), node.args[1] if len(node.args) > 1 else None
    if shape is None or not isinstance(dims, (list, tuple)) or len(dims) != 1:
        return False
    axis = cast(int, dims[0]) % len(shape)
    return axis == 1 if len(shape) == 4 else axis == len(shape) - 1


def _is_softmax(node: Node) -> bool:
    return "softmax" in str(node.target)


def _value(node: Node) -> object:
    return node.meta.get("val")


def _shape(node: Node) -> torch.Size | None:
    value = node.meta.get("val")
    return value.shape if isinstance(value, torch.Tensor) else None


def _float_operands(node: Node) -> list[Node]:
    """The distinct float tensors that ``node`` reads, in order."""
    values = [(n, n.meta.get("val")) for n in node.all_input_nodes]
    return [n for n, v in values if not isinstance(v, torch.Tensor) or v.dtype == torch.float32]


def _only_leaves(node: Node) -> bool:
    """Whether the value, possibly after more moves, only becomes an output of the graph."""
    moves = (Kind.MOVE, Kind.SPLIT)
    return all(user.op == "output" or (kind_of(user) in moves and _only_leaves(user)) for user in node.users)
