"""What became of a model: format and size of every layer, the recipe's exceptions, what stayed float, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantizer.location import module_path, source_line
from quantizer.plan import APPLIED
from quantizer.recipe import CHANNEL, TENSOR
from quantizer.reference.walk import is_quantized
from quantizer.scaling import SCALED
from quantizer.size import FLOAT_BITS, Size, constant, is_qdq, sizes, width
from quantizer.spec import Kind, has_windows, kind_of

RECIPE = "quartic_recipe"
"""Key of a graph's metadata that holds the recipe's title: without codes, only ``f32`` says that none were meant."""


@dataclass(frozen=True)
class Unquantized:
    """One node whose result or operand is binary32 in memory."""

    node: str
    """Name of the FX node."""
    module: str
    """Path of its module; "" is the root."""
    source: str
    """Line of the model's source, as ``file.py:12``."""
    reason: str
    """Why it is not quantized."""


@dataclass(frozen=True)
class Weight:
    """The weight of a layer."""

    bits: int
    """Width of its codes; 32 for binary32."""
    shape: tuple[int, ...]
    """As PyTorch has it."""
    per: str | None = None
    """Of codes: "channel" or "tensor"."""
    affine: bool = False
    """Whether a zero point is other than 0."""


@dataclass(frozen=True)
class Layer:
    """An operator with a weight, or other constants or quantizers of its own."""

    node: str
    """Name of the FX node."""
    operator: str
    """As ``aten.conv2d.default``."""
    module: str
    """Path of its module; "" is the root."""
    source: str
    """Line of the model's source, as ``file.py:12``."""
    weight: Weight | None
    """None of an operator without one."""
    activation: int | None
    """Bits of its widest other operand, 32 for binary32; None where all are constants."""
    overrides: tuple[str, ...]
    """The exceptions of the recipe that applied, in words."""
    scaled: tuple[str, ...]
    """What stages did to the channels of what it reads, or why they did not."""
    size: Size
    """Bits of the constants and quantizers that it is the first to read."""


@dataclass(frozen=True)
class Report:
    """A quantized graph, layer by layer in its order; the sizes of the layers add up to the total."""

    recipe: str
    """Its title; "" for a graph of another quantizer."""
    layers: tuple[Layer, ...]
    """Operators with constants or quantizers, in the graph's order."""
    overrides: dict[str, tuple[str, ...]]
    """The recipe's exceptions in words, with the nodes that each applied to: none at all where a model has no such."""
    unquantized: tuple[Unquantized, ...]
    """What stayed binary32 in memory, and why."""

    @property
    def size(self) -> Size:
        """The sizes of all layers together."""
        return sum((layer.size for layer in self.layers), Size())


def report(q: GraphModule) -> Report:
    """What became of each layer of a converted graph, Quartic's or another quantizer's.

    * ``q``: the graph with q/dq ops.
    """
    custom = {**(q.meta.get("custom") or {}), **q.meta}
    calls = [node for node in q.graph.nodes if node.op == "call_function" and not is_qdq(node)]
    overrides = {told: tuple(n.name for n in calls if told in _applied(n)) for told in custom.get(APPLIED) or ()}
    return Report(str(custom.get(RECIPE) or ""), tuple(_layers(q, calls)), overrides, tuple(_unquantized(calls)))


def _applied(node: Node) -> tuple[str, ...]:
    return tuple((node.meta.get("custom") or {}).get(APPLIED) or ())


def _layers(q: GraphModule, calls: Sequence[Node]) -> Iterator[Layer]:
    found = sizes(q)
    for node in calls:
        weight = _weight(q, node)
        if weight is not None or node in found:
            place = node.name, str(node.target), module_path(node), source_line(node)
            scaled = tuple((node.meta.get("custom") or {}).get(SCALED) or ())
            yield Layer(*place, weight, _activation(node), _applied(node), scaled, found.get(node, Size()))


def _weight(q: GraphModule, node: Node) -> Weight | None:
    if kind_of(node) is not Kind.WEIGHTED:
        return None
    w = node.all_input_nodes[1]
    held = w.all_input_nodes[0] if is_qdq(w) else w
    if held.op != "get_attr":
        return None
    shape = tuple(constant(q, held).shape)
    if held is w:
        return Weight(FLOAT_BITS, shape)
    if "per_channel" in str(w.target):
        return Weight(_bits(w), shape, CHANNEL, bool(constant(q, w.all_input_nodes[2]).any()))
    return Weight(_bits(w), shape, TENSOR, bool(w.args[2]))


def _activation(node: Node) -> int | None:
    operands = node.all_input_nodes[:1] if kind_of(node) is Kind.WEIGHTED else node.all_input_nodes
    return max((_bits(x) for x in operands if x.op != "get_attr"), default=None)


def _bits(node: Node) -> int:
    """Width of the codes that a value stands for, behind what only moves it."""
    while kind_of(node) in (Kind.MOVE, Kind.SPLIT, Kind.MAX_POOL):
        node = node.all_input_nodes[0]
    name = str(node.target)
    if "dequantize_per" in name:
        least, most = node.args[4:6] if "per_channel" in name else node.args[3:5]
        return width(int(least), int(most))  # type: ignore[arg-type]
    return 4 if "dequantize_codebook" in name else FLOAT_BITS


def _unquantized(calls: Sequence[Node]) -> Iterator[Unquantized]:
    """Calls that are not quantized (chains that fuse are not listed)."""
    for node in calls:
        if reason := _reason(node):
            yield Unquantized(node.name, module_path(node), source_line(node), reason)


def _reason(node: Node) -> str | None:
    kind = kind_of(node)
    if kind is None:
        return f"{node.target} is not in the table of operators: its operands and result are float"
    if kind in (Kind.WEIGHTED, Kind.PRODUCT) or has_windows(node):
        operands = node.all_input_nodes[:2] if kind in (Kind.WEIGHTED, Kind.PRODUCT) else node.all_input_nodes[:1]
        floats = [x.name for x in operands if not is_quantized(x)]
        if floats:
            return f"its operand {', '.join(floats)} is float, but {node.target} works on codes"
    if any(user.op == "output" for user in node.users) and not is_quantized(node):
        return "leaves the graph: an output is stored as binary32"
    return None
