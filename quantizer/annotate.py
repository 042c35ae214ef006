"""Put quantization where the machine stores codes: on operands, never inside a chain that becomes one kernel.

A float result is *swallowed* by an elementwise op if it has no other use and the same shape; of an op's two
operands only the later one is, the other is read from memory and so quantized. Every other operand of an
operator in the table is quantized on its edge; results that only leave the graph stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from quantizer.rewrite import rewrite
from quantizer.spec import FLOAT_RESULT, MAX_CHAIN_OPERANDS, Kind, Recipe, kind_of, recipe

ANNOTATION = "quantization_annotation"


class QuarticQuantizer(Quantizer):
    """torchao quantizer for the Quartic NPU; ``recipe`` names a row of ``quantizer.spec.RECIPES``."""

    def __init__(self, recipe_name: str = "w8a8") -> None:
        super().__init__()
        self.recipe = recipe(recipe_name)

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Rewrite operators that the machine has under other names; see ``quantizer.rewrite``."""
        return rewrite(model)

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every node of ``model`` in place; see the module's docstring for the rule."""
        annotator = _Annotator(self.recipe, {n: i for i, n in enumerate(model.graph.nodes)})
        for node in model.graph.nodes:
            annotator.visit(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to do: the table only holds what the machine can do."""


@dataclass
class _Annotator:
    recipe: Recipe
    order: dict[Node, int]
    chain_operands: dict[Node, int] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        match kind_of(node):
            case Kind.WEIGHTED:
                x, w = node.all_input_nodes[:2]
                self._inputs(node, {x: self.recipe.activation, w: self.recipe.weight})
            case Kind.PRODUCT | Kind.POOL:
                self._inputs(node, dict.fromkeys(_float_operands(node), self.recipe.activation))
            case Kind.ELEMENTWISE:
                self._elementwise(node)
            case Kind.MOVE if not _only_leaves(node):
                self._shared(node)
            case Kind.MAX_POOL:
                self._shared(node)
            case _:
                pass

    def _inputs(
        self, node: Node, specs: Mapping[Node, QuantizationSpecBase], output: QuantizationSpecBase | None = None
    ) -> None:
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map=dict(specs), output_qspec=output, _annotated=True
        )

    def _elementwise(self, node: Node) -> None:
        operands = _float_operands(node)
        swallowed = self._swallowed(node, operands)
        others = [x for x in operands if x is not swallowed]
        taken = self.chain_operands.get(swallowed, 0) if swallowed else -1
        self.chain_operands[node] = taken + len(others)
        read = [x for x in others if x.op != "get_attr"]
        self._inputs(node, dict.fromkeys(read, self.recipe.activation))

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
        first, *rest = _float_operands(node)
        same = SharedQuantizationSpec((first, node))
        self._inputs(node, {first: self.recipe.activation, **dict.fromkeys(rest, same)}, same)


def _shape(node: Node) -> torch.Size | None:
    value = node.meta.get("val")
    return value.shape if isinstance(value, torch.Tensor) else None


def _float_operands(node: Node) -> list[Node]:
    """The distinct float tensors that ``node`` reads, in order."""
    values = [(n, n.meta.get("val")) for n in node.all_input_nodes]
    return [n for n, v in values if not isinstance(v, torch.Tensor) or v.dtype == torch.float32]


def _only_leaves(node: Node) -> bool:
    """Whether the value, possibly after more moves, only becomes an output of the graph."""
    return all(user.op == "output" or (kind_of(user) is Kind.MOVE and _only_leaves(user)) for user in node.users)
