"""Walk a quantized graph once into a list of steps; the module runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from isa.errors import InputError, UnsupportedError
from isa.numerics import canonical
from quantizer.checks import unforeseen
from quantizer.location import describe
from quantizer.reference.table import FUNCTIONS
from quantizer.reference.values import Codes, Lazy, as_float
from quantizer.spec import Kind, has_windows, kind_of, weight_of

Resolver = Callable[[list[Any]], Any]
HINTS: dict[object, str] = {
    torch.ops.aten.scaled_dot_product_attention.default: (
        "attention was left whole, so neither its products nor its probabilities are quantized: use quartic.quantize, "
        "or give the other quantizer graph = quartic.export(model, inputs), then prepare_pt2e(graph, quantizer)"
    )
}
"""What to say of operators that the machine lacks, where there is more to say."""


@dataclass(frozen=True)
class Step:
    """One call: where its result goes, what computes it, and which values nobody needs afterwards."""

    slot: int
    call: Resolver
    dead: tuple[int, ...]
    where: str


def reference(q: GraphModule) -> Reference:
    """``q`` in the machine's arithmetic: outputs equal the compiled binary's, bit for bit.

    * ``q``: a graph with q/dq ops, Quartic's or another quantizer's.

    Raises InputError for anything else, UnsupportedError with every node that the machine cannot compute.
    """
    if not isinstance(q, GraphModule):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"reference takes a quantized torch.fx.GraphModule, not {type(q).__name__}; quantize first, or call "
            ".module() of an exported program"
        )
    problems = list(_problems(q))
    if problems:
        lines = "\n".join(f"  {describe(node)}: {rule}" for node, rule in problems)
        raise UnsupportedError(f"{len(problems)} node(s) cannot run on the machine:\n{lines}")
    return Reference(q)


class Reference(nn.Module):
    """Runs a quantized graph in device numerics; takes the graph's tensors, returns a tuple of tensors."""

    def __init__(self, q: GraphModule) -> None:
        super().__init__()
        nodes = [n for n in q.graph.nodes if n.op != "call_module" or n.users]
        self._slots = {node: i for i, node in enumerate(nodes)}
        self._initial: list[Any] = [None] * len(nodes)
        self.inputs = [n for n in nodes if n.op == "placeholder"]
        self._shapes = [getattr(n.meta.get("val"), "shape", None) for n in self.inputs]
        self._output = next(n for n in nodes if n.op == "output")
        self._current: dict[Node, Node] = {}
        """The node whose value a node has by now, where an operator changed it in place."""
        self._steps = self._compile(q, nodes)

    def _compile(self, q: GraphModule, nodes: list[Node]) -> list[Step]:
        """Constants are computed now; the rest becomes steps that drop their operands after the last use."""
        constant: set[Node] = set()
        calls: dict[Node, Resolver] = {}
        last: dict[Node, Node] = {}
        shared: dict[Node, list[Node]] = {}
        for node in nodes:
            operands = [self._current.get(n, n) for n in node.all_input_nodes]
            if node.op == "get_attr":
                self._initial[self._slots[node]] = _attribute(q, str(node.target))
                constant.add(node)
            elif node.op == "call_function" and constant.issuperset(operands):
                self._initial[self._slots[node]] = _computed(self._call(node), self._initial, describe(node))
                constant.add(node)
            elif node.op == "call_function":
                calls[node] = self._call(node)
                last |= dict.fromkeys(operands, node)
            if _in_place(node):
                names = shared.setdefault(node.all_input_nodes[0], [node.all_input_nodes[0]])
                shared[node] = names
                names.append(node)
                self._current |= dict.fromkeys(names, node)
        leaves = [n for n in tree_leaves(self._output.args[0]) if isinstance(n, Node)]
        self._results = [self._current.get(n, n) for n in leaves]
        self._constants = constant.intersection(self._results)
        keep = constant | set(self._results)
        dead: dict[Node, list[int]] = {}
        for operand, node in last.items():
            if operand not in keep:
                dead.setdefault(node, []).append(self._slots[operand])
        return [Step(self._slots[n], call, tuple(dead.get(n, ())), describe(n)) for n, call in calls.items()]

    def _call(self, node: Node) -> Resolver:
        function = FUNCTIONS[node.target]
        args = [self._resolver(a) for a in node.args]
        kwargs = {k: self._resolver(v) for k, v in node.kwargs.items()}
        if not kwargs:
            return lambda env: function(*[a(env) for a in args])
        return lambda env: function(*[a(env) for a in args], **{k: v(env) for k, v in kwargs.items()})

    def _resolver(self, arg: Any) -> Resolver:
        if isinstance(arg, Node):
            slot = self._slots[self._current.get(arg, arg)]
            return lambda env: env[slot]
        if isinstance(arg, (list, tuple)) and any(isinstance(a, Node) for a in arg):
            items = [self._resolver(a) for a in arg]
            return lambda env: [item(env) for item in items]
        return lambda _: arg

    @torch.no_grad()
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The graph's outputs for ``inputs`` of the shapes that it was exported for. Raises InputError for others."""
        env = list(self._initial)
        for _ in self._run(inputs, env):
            pass
        return tuple(_plain(env[self._slots[n]], n in self._constants) for n in self._results)

    @torch.no_grad()
    def trace(
        self, *inputs: torch.Tensor, given: Callable[[Node], torch.Tensor | None] | None = None
    ) -> Iterator[tuple[Node, torch.Tensor]]:
        """Every node and its value in binary32 for ``inputs``, one after the other; only tensors. Raises InputError.

        Where a tensor is ``given`` for a node of binary32, those who read the node read that.
        """
        nodes = {slot: node for node, slot in self._slots.items()}
        env = list(self._initial)
        for slot, value in self._run(inputs, env):
            if not isinstance(value, (torch.Tensor, Lazy)):
                continue
            node = nodes[slot]
            yield node, as_float(value)
            if given is not None and isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                other = given(node)
                env[slot] = value if other is None else other

    def _run(self, inputs: tuple[torch.Tensor, ...], env: list[Any]) -> Iterator[tuple[int, Any]]:
        """Run the steps over ``env``, giving the slot and value of each before what is dead is dropped."""
        self._check(inputs)
        for node, x in zip(self.inputs, inputs, strict=True):
            env[self._slots[node]] = x
        for step in self._steps:
            env[step.slot] = _computed(step.call, env, step.where)
            yield step.slot, env[step.slot]
            for slot in step.dead:
                env[slot] = None

    def _check(self, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs) != len(self.inputs):
            raise InputError(f"{len(inputs)} inputs given, the graph takes {len(self.inputs)}")
        for node, x, shape in zip(self.inputs, inputs, self._shapes, strict=True):
            if not isinstance(x, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"input {node.name} is a {type(x).__name__}: must be a torch.Tensor")
            if x.is_meta:
                raise InputError(f"input {node.name} is on the device 'meta', which holds no values; give it values")
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and x.dtype != value.dtype:
                # In binary64 every step would run, and give other bits than the chip's.
                raise InputError(f"input {node.name} is {x.dtype}: must be {value.dtype}; convert it with .to()")
            if shape is not None and x.shape != shape:
                raise InputError(
                    f"input {node.name} has shape {tuple(x.shape)}, the graph was exported for {tuple(shape)}"
                )


def _computed(call: Resolver, env: list[Any], where: str) -> Any:
    """The result of one call. Raises UnsupportedError that says where, whatever the call raises."""
    try:
        return call(env)
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None
    except Exception as error:
        raise UnsupportedError(f"{where}: {unforeseen('computing it', error)}") from error


def _in_place(node: Node) -> bool:
    """Whether an operator writes its result into its first operand, which later users see."""
    name = getattr(node.target, "_schema", None)
    return name is not None and name.name.endswith("_") and bool(node.args) and isinstance(node.args[0], Node)


def _plain(value: Any, constant: bool) -> torch.Tensor:
    """A result as the machine stores it, with its one NaN: no operator tells NaN apart, so outputs are enough.

    Constants of integers and of truth values are stored as numbers.
    """
    if constant and isinstance(value, torch.Tensor):
        value = value.to(torch.float32)
    stored = (value.plain() if isinstance(value, Codes) else as_float(value)).contiguous()
    return canonical(stored) if stored.dtype == torch.float32 else stored


def _attribute(q: GraphModule, target: str) -> Any:
    value: Any = q
    for part in target.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else value


def has_codes(q: GraphModule) -> bool:
    """Whether anything in the graph is quantized."""
    return any("quantize_" in str(node.target) for node in q.graph.nodes if node.op == "call_function")


WEIGHTS_ALONE = (
    "works on codes, but weights alone are quantized, which is for evaluation in PyTorch: no machine multiplies codes "
    "by binary32; quantize activations too, or run the graph itself"
)

UNKNOWN = "the machine has no such operator; write it with those that docs/api.md lists, or leave it out of the model"
COMPUTED = "layers multiply by constants: write it as torch.matmul of two tensors, a convolution with unfold before it"


def _problems(q: GraphModule) -> Iterator[tuple[Node, str]]:
    """Every node that breaks a rule, with the rule; matrix products in binary32 belong to graphs without any codes."""
    quantized = has_codes(q)
    inputs = [node.meta.get("val") for node in q.graph.nodes if node.op == "placeholder"]
    alone = not any(".quantize_" in str(node.target) for node in q.graph.nodes)
    alone = alone and all(getattr(value, "dtype", None) == torch.float32 for value in inputs)
    for node in q.graph.nodes:
        shape = getattr(node.meta.get("val"), "shape", ())
        if node.op == "placeholder" and any(type(n) is not int for n in shape):
            yield node, f"shape {tuple(shape)} is dynamic: export the model without dynamic_shapes"
        if node.op == "call_module" and node.users:
            yield node, "calls of submodules are not supported: export the model with torch.export"
        if node.op != "call_function":
            continue
        if node.target not in FUNCTIONS:
            yield node, HINTS.get(node.target, UNKNOWN)
            continue
        if kind_of(node) is Kind.WEIGHTED and (computed := _computed_from(weight_of(node))) is not None:
            yield node, f"its weight is computed from the input {computed}; {COMPUTED}"
            continue
        for operand in _integer_operands(node) if quantized else ():
            if not is_quantized(operand):
                rule = f"works on codes, but operand {operand.name} is float: quantize it"
                yield node, WEIGHTS_ALONE if alone else rule


def _computed_from(value: Any) -> Node | None:
    """The first input of the graph that ``value`` depends on, in the order of its operands; None for a constant."""
    stack, seen = [value], set[Node]()
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or node in seen:
            continue
        if node.op == "placeholder":
            return node
        seen.add(node)
        stack.extend(reversed(node.all_input_nodes))
    return None


def _integer_operands(node: Node) -> list[Node]:
    match kind_of(node):
        case Kind.WEIGHTED | Kind.PRODUCT:
            return [a for a in node.args[:2] if isinstance(a, Node)]
        case Kind.POOL | Kind.MAX_POOL if has_windows(node):
            return [a for a in node.args[:1] if isinstance(a, Node)]
        case _:
            return []


def is_quantized(node: Node) -> bool:
    """Whether ``node`` is a dequantize, or moves values of one."""
    if node.op == "call_function" and "dequantize_per" in str(node.target):
        return True
    if "dequantize_codebook" in str(node.target):
        return True
    if kind_of(node) in (Kind.MOVE, Kind.SPLIT, Kind.MAX_POOL):
        return all(is_quantized(operand) for operand in node.all_input_nodes)
    return False
