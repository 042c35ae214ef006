"""Put quantization where the machine stores codes: on operands, never inside a chain that becomes one kernel.

A float result is *swallowed* by an elementwise op if it has no other use and the same shape; of an op's two
operands only the later one is, the other is read from memory and so quantized. Every other operand of an
operator in the table is quantized on its edge; results that only leave the graph stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from isa.errors import QuantizationError
from quantizer import pools
from quantizer.checks import naming
from quantizer.coding import codebook_spec
from quantizer.curves import BITS, LogNP
from quantizer.location import describe
from quantizer.log2 import Log2
from quantizer.operands import is_layer
from quantizer.plan import matches, plan
from quantizer.recipe import CHANNEL, TENSOR, Change, Format, Recipe, Roles
from quantizer.rewrite import rewrite
from quantizer.scaling import is_polished, tell, why_not_per_channel
from quantizer.spec import FLOAT_RESULT, MAX_CHAIN_OPERANDS, Kind, activation_spec, has_windows, kind_of, weight_spec

aten = torch.ops.aten
ANNOTATION = "quantization_annotation"
ROLES: dict[Kind | None, str] = {Kind.WEIGHTED: "activation", Kind.PRODUCT: "activation", Kind.NORM: "wide"}
"""In which role operators read."""
BYTE = 8


class QuarticQuantizer(Quantizer):
    """torchao quantizer for the Quartic NPU, as ``prepare_pt2e`` takes it.

    * ``recipe``: a preset's name, the path of a TOML file, or a value; its stages need ``quantize``.

    Raises QuantizationError for an unknown preset, DescriptionError for a file that breaks the schema.
    """

    def __init__(self, recipe: str | Path | Recipe = "w8a8") -> None:
        super().__init__()
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Rewrite operators of ``model`` that the machine has under other names; see ``quantizer.rewrite``."""
        return rewrite(model, pools.definitions(self.recipe))

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every node of ``model`` in place: operands of what becomes one kernel, never inside of it.

        Raises QuantizationError for an override that matches nothing.
        """
        formats = plan(self.recipe, model)
        formats.mark()
        if self.recipe.is_float:
            return model
        annotator = _Annotator(formats.roles, {n: i for i, n in enumerate(model.graph.nodes)}, self.recipe.log2)
        for node in model.graph.nodes:
            with naming(node, "deciding how to quantize it"):
                annotator.visit(node)
        if self.recipe.log2 is not None and not annotator.coded:
            raise QuantizationError(
                f"recipe {self.recipe.title}: [log2] modules = {list(self.recipe.log2.modules)}: match no product "
                f"whose first factor is a softmax of {BITS}-bit codes: only such probabilities have powers of two"
            )
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to do for ``model``: the table only holds what the machine can do."""


Spec = QuantizationSpecBase | None
"""None leaves a tensor in binary32."""


@dataclass
class _Annotator:
    roles: Mapping[Node, Roles]
    order: dict[Node, int]
    log2: Log2 | None = None
    coded: list[Node] = field(default_factory=list)
    """Products whose probabilities are in powers of two."""
    chain_operands: dict[Node, int] = field(default_factory=dict)
    moved: dict[Node, Spec] = field(default_factory=dict)
    """How the results of moves are quantized."""
    plain: set[Node] = field(default_factory=set)
    """Elementwise ops whose kernel so far has no product, pool or row operation."""
    roots: dict[Node, tuple[Node, Node]] = field(default_factory=dict)
    """The edge at the head of a chain of moves, whose scale the whole chain shares."""

    def visit(self, node: Node) -> None:
        match kind_of(node):
            case Kind.WEIGHTED if is_layer(node):  # else it is refused by name, wherever it is to run
                x, w = node.all_input_nodes[:2]
                self._inputs(node, {x: self._spec(node, "activation"), w: self._weight(node)})
            case Kind.PRODUCT:
                self._inputs(node, {x: self._factor(node, x) for x in _float_operands(node)})
            case Kind.POOL if self._sums_chain(node):
                self._inputs(node, {})
            case Kind.POOL:
                self._inputs(node, {x: self._read(x, node) for x in _float_operands(node)})
            case Kind.NORM:
                x = _float_operands(node)[0]
                self._inputs(node, {x: self._read(x, node)})
            case Kind.ELEMENTWISE:
                self._elementwise(node)
            case Kind.MOVE | Kind.SPLIT if not _only_leaves(node):
                self._shared(node)
            case Kind.MAX_POOL:
                self._shared(node)
            case _:
                pass

    def _how(self, node: Node, role: str) -> Format:
        """The format of what ``node`` reads in ``role``; windows read codes, of whole bytes, whatever stays float."""
        how: Format = getattr(self.roles[node], role)
        if not (how.is_float and has_windows(node)):
            return how
        activation = self.roles[node].activation
        return activation.changed(Change(bits=max(BYTE, activation.bits), per=TENSOR))

    def _spec(self, node: Node, role: str) -> Spec:
        """The quantizer of what ``node`` reads in ``role``."""
        how = self._how(node, role)
        if how.per == CHANNEL and (reason := why_not_per_channel(node)):
            raise QuantizationError(
                f"{describe(node)}: activation: per = {CHANNEL!r} cannot be: {reason}; say per = {TENSOR!r} here, "
                "or [fold], which takes what it can, instead"
            )
        if role == "activation" and how.bits == BITS and is_polished(node):
            return codebook_spec(how, LogNP())
        return activation_spec(how)

    def _factor(self, node: Node, x: Node) -> Spec:
        """The quantizer of a factor of a product of activations."""
        how = self.roles[node].activation
        if self.log2 is not None and how.bits == BITS and are_probabilities(node, x, self.log2):
            self.coded.append(node)
            tell([node], f"log2: probabilities in powers of 2^(1/{self.log2.steps})")
            return codebook_spec(how, self.log2.curve)
        return self._spec(node, "activation")

    def _weight(self, node: Node) -> Spec:
        """Transposed convolutions have their output channels in dimension 1."""
        return weight_spec(self.roles[node].weight, int("conv_transpose" in str(node.target)))

    def _inputs(self, node: Node, specs: Mapping[Node, Spec], output: Spec = None) -> None:
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map={x: spec for x, spec in specs.items() if spec is not None},
            output_qspec=output,
            _annotated=True,
        )

    def _read(self, x: Node, node: Node) -> Spec:
        """How ``node`` reads ``x`` from memory: as the codes that a move left, wide where a norm reads it too."""
        if (moved := self.moved.get(x)) is not None:
            return moved
        own = self._spec(node, _role(node))
        norm = next((user for user in x.users if kind_of(user) is Kind.NORM), None)
        if own is None or norm is None:
            return own
        wide = self._spec(norm, "wide")
        return own if wide is None and has_windows(node) else wide

    def _elementwise(self, node: Node) -> None:
        operands = _float_operands(node)
        swallowed = self._swallowed(node, operands)
        others = [x for x in operands if x is not swallowed]
        taken = self.chain_operands.get(swallowed, 0) if swallowed else -1
        self.chain_operands[node] = taken + len(others)
        if not _is_softmax(node) and (swallowed is None or swallowed in self.plain):
            self.plain.add(node)
        self._inputs(node, {x: self._read(x, node) for x in others if x.op != "get_attr"})

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
        spec = self.moved[first] if first in self.moved else self._wanted(node)
        self.moved[node] = spec
        if spec is None:
            return
        known = self.roots.get(first)
        self.roots[node] = root = (first, node) if known is None else known
        same = SharedQuantizationSpec(root)
        inputs = dict.fromkeys(rest, same)
        if isinstance(_value(first), torch.Tensor):  # not one of several results, which are quantized already
            inputs = {first: spec if known is None else same, **inputs}
        self._inputs(node, inputs, same if isinstance(_value(node), torch.Tensor) else None)

    def _wanted(self, node: Node) -> Spec:
        """As the readers behind want it: binary32 where any does, else in the widest of their formats.

        Maxima are moves too, so that what passes one is of codes, of whole bytes.
        """
        readers = _readers(node)
        kinds = {reader: kind_of(reader) for reader in (node, *readers) if reader.op != "output"}
        pooled = Kind.MAX_POOL in kinds.values()
        if not pooled and any(self._how(node if r.op == "output" else r, _role(r)).is_float for r in readers):
            return None
        products = [] if pooled else [r for r in kinds if kinds[r] in (Kind.WEIGHTED, Kind.PRODUCT)]
        norms = [r for r in kinds if kinds[r] is Kind.NORM and not self._how(r, "wide").is_float]
        role = "activation" if products else "wide" if norms else "elementwise"
        formats = {reader: self._how(reader, role) for reader in products or norms or kinds}
        bits = {reader: how.bits for reader, how in formats.items() if not how.is_float}
        return self._spec(max(bits, key=bits.__getitem__), role) if bits else None


def are_probabilities(node: Node, x: Node, log2: Log2) -> bool:
    """Whether [log2] is for ``x``, a softmax, or its observer, that the product ``node`` reads: the first factor alone,
    which passes the decode table."""
    made = x.all_input_nodes[0] if x.op == "call_module" else x
    return x is node.all_input_nodes[0] and _is_softmax(made) and matches(node, log2.modules)


def _readers(node: Node) -> list[Node]:
    """What reads a value, behind moves and maxima: operators, these maxima, and the end of the graph; each once."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()

    def visit(value: Node) -> None:
        for user in value.users:
            kind = kind_of(user)
            if kind in (Kind.MOVE, Kind.SPLIT, Kind.MAX_POOL) and user not in seen:
                seen.add(user)
                visit(user)
            if user.op == "output" or kind not in (Kind.MOVE, Kind.SPLIT, None):
                found[user] = None

    visit(node)
    return list(found)


def _role(node: Node) -> str:
    """In which role of a recipe a node reads."""
    return "wide" if _is_softmax(node) else ROLES.get(kind_of(node), "elementwise")


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
