"""What stayed float in a quantized graph, and why."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantizer.location import module_path, source_line
from quantizer.reference.walk import is_quantized
from quantizer.spec import Kind, kind_of


@dataclass(frozen=True)
class Unquantized:
    """One node whose result or operand is binary32 in memory: FX name, module path, ``file.py:12`` and the reason."""

    node: str
    module: str
    source: str
    reason: str


def report(q: GraphModule) -> tuple[Unquantized, ...]:
    """Calls in the converted graph ``q`` that are not quantized, in graph order (chains that fuse are not listed)."""
    rows = ((node, _reason(node)) for node in q.graph.nodes if node.op == "call_function" and not _is_qdq(node))
    return tuple(Unquantized(n.name, module_path(n), source_line(n), reason) for n, reason in rows if reason)


def _is_qdq(node: Node) -> bool:
    return "quantized_decomposed" in str(node.target)


def _reason(node: Node) -> str | None:
    kind = kind_of(node)
    if kind is None:
        return f"{node.target} is not in the table of operators: its operands and result are float"
    if kind in (Kind.WEIGHTED, Kind.PRODUCT, Kind.POOL, Kind.MAX_POOL):
        operands = node.all_input_nodes[:2] if kind in (Kind.WEIGHTED, Kind.PRODUCT) else node.all_input_nodes[:1]
        floats = [x.name for x in operands if not is_quantized(x)]
        if floats:
            return f"its operand {', '.join(floats)} is float, but {node.target} works on int8"
    if any(user.op == "output" for user in node.users) and not is_quantized(node):
        return "leaves the graph: an output is stored as binary32"
    return None
