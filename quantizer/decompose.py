"""Operators that the machine lacks, said in others: by ``DEFINITIONS``, or as PyTorch itself defines them.

A definition is ordinary PyTorch. It is traced for the shapes of the call, and its operators take the place of the
node; those that the machine lacks are replaced in turn. An operator that nothing defines stays, to be refused by name.
What a definition computes of constants alone stays as it is, for ``rewrite`` to fold.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from isa.errors import QuantizationError
from quantizer.checks import unforeseen
from quantizer.definitions import DEFINITIONS, Definition
from quantizer.functionalize import STRIDED, out_of_place, writes_are_shared
from quantizer.location import describe

aten = torch.ops.aten
Tensor = torch.Tensor

DEEPEST = 8
"""Definitions within definitions: more is a cycle."""


def decompose(
    model: GraphModule, known: Callable[[object], bool], definitions: Mapping[object, Definition] | None = None
) -> None:
    """Replace, in place, the nodes whose operator is not ``known`` or that ask it for more than the machine has.

    ``definitions`` are taken before ``DEFINITIONS``.
    """
    _replace(model, list(model.graph.nodes), known, {**DEFINITIONS, **(definitions or {})}, 0)
    model.graph.eliminate_dead_code()


def _replace(
    model: GraphModule,
    nodes: Iterable[Node],
    known: Callable[[object], bool],
    definitions: Mapping[object, Definition],
    depth: int,
) -> None:
    for node in nodes:
        if node.op != "call_function" or not isinstance(node.target, OpOverload) or depth > DEEPEST:
            continue
        definition, own = definitions.get(node.target), True
        if definition is None and not known(node.target):
            definition, own = _pytorchs(node.target), False

        def allowed(target: object) -> bool:
            return known(target) or target in definitions or target is operator.getitem or _pytorchs(target) is not None

        if definition is not None and (inner := inline(model, node, definition, own, allowed)) is not None:
            _replace(model, inner, known, definitions, depth + 1)


def _pytorchs(target: object) -> Definition | None:
    """How PyTorch says ``target`` by other operators."""
    if not isinstance(target, OpOverload) or target.namespace != "aten" or target._schema.is_mutable:
        return None
    if target in decomposition_table:
        return decomposition_table[target]
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return target.decompose if composite else None


def inline(
    model: GraphModule,
    node: Node,
    definition: Definition,
    whole: bool = True,
    allowed: Callable[[object], bool] = lambda _: True,
) -> list[Node] | None:
    """The nodes that took the place of ``node`` and read its operands; None where the definition does not apply.

    ``whole`` keeps the composite operators that it calls (linear, matmul, ...), and a definition of ours must not fail:
    raises QuantizationError if it does. All operators of a definition must be ``allowed``.
    """
    operands = node.all_input_nodes
    if any(not isinstance(n.meta.get("val"), Tensor) for n in operands):
        return None
    applies = True

    def call(*values: Tensor) -> Any:
        nonlocal applies
        result = _call(definition, node, values)
        applies = result is not NotImplemented
        return result if applies else values

    if whole and _declines(definition, node):
        return None
    samples = [torch.empty(tuple(n.meta["val"].shape), dtype=n.meta["val"].dtype) for n in operands]
    try:
        with torch.no_grad():
            traced = make_fx(call, tracing_mode="fake", pre_dispatch=whole)(*samples)
    except Exception as error:
        if whole:  # ours
            raise QuantizationError(f"{describe(node)}: {unforeseen('its definition', error)}") from error
        return None  # PyTorch's, which these arguments break: the operator stays and is refused by name
    traced.graph.eliminate_dead_code()  # so that what is left is used
    applies = applies and all(allowed(n.target) for n in traced.graph.nodes if n.op == "call_function")
    applies = applies and _gives_enough(node, traced) and not writes_are_shared(traced)
    if not applies:
        return None
    out_of_place(traced)
    return _spliced(model, node, traced)


def _gives_enough(node: Node, traced: GraphModule) -> bool:
    """Whether every result that is used is there: of a pool, positions are not."""
    result = next(n for n in traced.graph.nodes if n.op == "output").args[0]
    used = [_picked(u) for u in node.users if u.target is operator.getitem and u.users]
    return not isinstance(result, (list, tuple)) or all(i < len(result) for i in used)


def _picked(node: Node) -> int:
    """Which result of its operand a ``getitem`` is."""
    index = node.args[1]
    assert isinstance(index, int), "results are numbered"
    return index


def _call(definition: Definition, node: Node, values: Iterable[Tensor]) -> Any:
    """What a definition gives for the arguments of ``node``, with ``values`` for its operands."""
    given = dict(zip(node.all_input_nodes, values, strict=True))
    args, kwargs = tree_map(lambda a: given.get(a, a) if isinstance(a, Node) else a, (node.args, node.kwargs))
    return definition(*args, **kwargs)


def _declines(definition: Definition, node: Node) -> bool:
    """Whether a definition leaves the call to the machine: asked with tensors without data, for tracing takes long."""
    values = (n.meta["val"] for n in node.all_input_nodes)
    try:
        return _call(definition, node, [torch.empty(v.shape, dtype=v.dtype, device="meta") for v in values]) is (
            NotImplemented
        )
    except Exception:  # constants of its own have data and may not mix; tracing tells
        return False


def _spliced(model: GraphModule, node: Node, traced: GraphModule) -> list[Node]:
    inner, env, result = iter(node.all_input_nodes), dict[Node, Node](), None
    added, moving = list[Node](), set[Node]()
    with model.graph.inserting_before(node):
        for each in traced.graph.nodes:
            if each.op == "placeholder":
                env[each] = next(inner)
                moving.add(each)
            elif each.op == "output":
                result = tree_map(lambda a: env[a] if isinstance(a, Node) else a, each.args[0])
            elif each.op == "get_attr":
                env[each] = _attribute(model, node, getattr(traced, str(each.target)))
            else:
                env[each] = copy = model.graph.node_copy(each, env.__getitem__)
                copy.target = STRIDED.get(copy.target, copy.target)  # type: ignore[arg-type]
                copy.meta = {**node.meta, "val": each.meta.get("val")}
                if any(n in moving for n in each.all_input_nodes):
                    moving.add(each)
                    added.append(copy)
    if isinstance(result, Node):
        node.replace_all_uses_with(result)
    else:
        assert isinstance(result, (list, tuple)), "an operator gives a tensor or several"
        for user in [u for u in node.users if u.target is operator.getitem]:
            if user.users:
                user.replace_all_uses_with(result[_picked(user)])
            model.graph.erase_node(user)
    model.graph.erase_node(node)
    return added


def _attribute(model: GraphModule, like: Node, value: Tensor) -> Node:
    name = f"{like.name}_constant{len(dict(model.named_buffers()))}"
    model.register_buffer(name, value)
    node = model.graph.get_attr(name)
    node.meta = {**like.meta, "val": value}
    return node
