"""Say in operators of the machine what others say: run before annotation, after batch norms were folded."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeGuard

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map

from quantizer.checks import naming
from quantizer.decompose import decompose, inline
from quantizer.definitions import Definition, pick
from quantizer.reference.table import FUNCTIONS

aten = torch.ops.aten


def rewrite(model: GraphModule, definitions: Mapping[object, Definition] | None = None) -> GraphModule:
    """Rewrite ``model`` in place by ``RULES``; new nodes keep the metadata of the node that they replace.

    ``definitions`` say what ``decompose`` replaces besides its own.
    """
    fold_constants(model)
    _number_exponents(model)
    decompose(model, lambda target: target in FUNCTIONS or target in RULES, definitions)
    fold_constants(model)
    for node in list(model.graph.nodes):
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is None:
            continue
        with naming(node, "rewriting it"), model.graph.inserting_before(node):
            replacement = rule(model, node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()
    return model


def fold_constants(model: GraphModule) -> None:
    """Compute what depends on parameters and numbers alone: position embeddings at a fixed size, grids, masks."""
    known: dict[Node, object] = {}
    for node in list(model.graph.nodes):
        if node.op == "get_attr":
            known[node] = _constant(model, node)
        elif node.target in FILLED and not _shapeless(node):
            known[node] = _filled(node)
        elif _is_constant(node, known):
            kwargs = dict(zip(node.kwargs, _values(node.kwargs.values(), known), strict=True))
            with naming(node, "computing it from constants"):
                known[node] = node.target(*_values(node.args, known), **kwargs)  # type: ignore[operator]
    for node, value in known.items():
        read = any(user not in known for user in node.users)
        if node.op == "call_function" and read and isinstance(value, torch.Tensor):
            with model.graph.inserting_before(node):
                node.replace_all_uses_with(_buffer(model, node, "folded", value), lambda user: user not in known)
    model.graph.eliminate_dead_code()


def _number_exponents(model: GraphModule) -> None:
    """Powers by a constant of one value, such as the parameter of a generalized mean: by that number."""
    for node in model.graph.nodes:
        if node.target is not aten.pow.Tensor_Tensor:
            continue
        x, exponent = node.args
        value = _constant(model, exponent)
        same = x.meta["val"].shape == node.meta["val"].shape  # else the exponent's shape is the result's
        if value is not None and same and value.numel() and bool((value == value.flatten()[0]).all()):
            node.target, node.args = aten.pow.Tensor_Scalar, (x, value.flatten()[0].item())


FILLED = frozenset(
    overload
    for name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty", "empty_like")
    for overload in (getattr(aten, name).default,)
)
"""Operators that take no more than the shape of their operand."""


def _is_constant(node: Node, known: Mapping[Node, object]) -> bool:
    if node.op != "call_function" or _mutates(node) or any(n not in known for n in node.all_input_nodes):
        return False
    return all(isinstance(v, torch.Tensor) for v in tree_leaves(node.meta.get("val")))


def _filled(node: Node) -> torch.Tensor:
    """What an operator makes of a shape; memory that nobody has written reads as zeros."""
    operand = torch.zeros(tuple(node.all_input_nodes[0].meta["val"].shape))
    if "empty" in str(node.target):
        return torch.zeros(tuple(node.meta["val"].shape), dtype=node.meta["val"].dtype)
    args = [operand if isinstance(a, Node) else a for a in node.args]
    return node.target(*args, **node.kwargs)  # type: ignore[operator]


def _shapeless(node: Node) -> bool:
    return any(n.meta.get("val") is None for n in node.all_input_nodes)


def _mutates(node: Node) -> bool:
    if node.target in (operator.getitem, aten.detach_.default):
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or schema.is_mutable or "rand" in schema.name or "quantized_decomposed" in str(node.target)


def _values(args: Iterable[object], known: Mapping[Node, object]) -> list[object]:
    return [tree_map(lambda a: known[a] if isinstance(a, Node) else a, a) for a in args]


def _call(model: GraphModule, like: Node, target: object, *args: object, shape: Sequence[int] | None = None) -> Node:
    """A call with the metadata of ``like``; ``shape`` is that of its result where it differs."""
    node = model.graph.call_function(target, args)  # type: ignore[arg-type]
    node.meta = dict(like.meta)
    if shape is not None:
        node.meta["val"] = like.meta["val"].new_empty(tuple(shape))
    return node


def _attention(model: GraphModule, node: Node) -> Node | None:
    """softmax(q @ k^T * scale + mask) @ v: each product has its own quantization."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("dropout_p"):
        return None
    q, k, v = given["query"], given["key"], given["value"]
    assert isinstance(q, Node)
    assert isinstance(k, Node)
    assert isinstance(v, Node)
    if given.get("enable_gqa"):
        k, v = (_repeated_heads(model, node, x, q.meta["val"].shape[-3]) for x in (k, v))
    *batch, t, d = q.meta["val"].shape
    n = k.meta["val"].shape[-2]
    scale = given.get("scale")
    scores = (*batch, t, n)
    turned = _call(model, node, aten.transpose.int, k, -2, -1, shape=(*k.meta["val"].shape[:-2], d, n))
    x = _call(model, node, aten.matmul.default, q, turned, shape=scores)
    x = _call(model, node, aten.mul.Tensor, x, d**-0.5 if scale is None else scale, shape=scores)
    sees = None
    if _computed_mask(mask := given.get("attn_mask")):
        mask, sees = _with_blind_rows_open(model, node, mask)
        x = _call(model, node, aten.where.ScalarOther, mask, x, -torch.inf, shape=scores)
    elif (mask := _mask(model, node, given, t, n)) is not None:
        mask, sees = _without_blind_rows(model, node, mask)
        x = _call(model, node, aten.add.Tensor, x, mask, shape=scores)
    x = _call(model, node, aten.softmax.int, x, -1, shape=scores)
    y = _call(model, node, aten.matmul.default, x, v)
    return y if sees is None else _call(model, node, aten.where.ScalarOther, sees, y, 0.0)


def _without_blind_rows(model: GraphModule, node: Node, mask: object) -> tuple[object, Node | None]:
    """A mask whose rows all see something, and 0 for the result of each row that saw nothing, as PyTorch has it."""
    value = _constant(model, mask)
    if value is None or not bool((blind := (value == -torch.inf).all(-1, keepdim=True)).any()):
        return mask, None
    return _buffer(model, node, "mask", value.masked_fill(blind, 0.0)), _buffer(model, node, "sees", ~blind)


def _with_blind_rows_open(model: GraphModule, node: Node, mask: Node) -> tuple[Node, Node]:
    """As ``_without_blind_rows`` of a computed mask: such rows see everything, and which rows saw something."""
    if not mask.meta["val"].ndim:
        mask = _call(model, mask, aten.unsqueeze.default, mask, 0, shape=(1,))
    shape = mask.meta["val"].shape
    rows = (*shape[:-1], 1)
    numbers = _call(model, node, aten.to.dtype, mask, torch.float32, shape=shape)
    largest = _call(model, node, aten.amax.default, numbers, [-1], True, shape=rows)
    sees = _call(model, mask, aten.ne.Scalar, largest, 0.0, shape=rows)
    blind = _call(model, mask, aten.logical_not.default, sees, shape=rows)
    return _call(model, mask, aten.logical_or.default, mask, blind), sees


def _computed_mask(mask: object) -> TypeGuard[Node]:
    return isinstance(mask, Node) and mask.op != "get_attr" and mask.meta["val"].dtype == torch.bool


def _repeated_heads(model: GraphModule, like: Node, x: Node, heads: int) -> Node:
    """Keys or values whose every head serves several heads of queries."""
    *batch, own, n, d = x.meta["val"].shape
    if own == heads:
        return x
    copies = heads // own
    apart = _call(model, like, aten.unsqueeze.default, x, -3, shape=(*batch, own, 1, n, d))
    again = _call(model, like, aten.expand.default, apart, [-1] * len(batch) + [own, copies, n, d],
                  shape=(*batch, own, copies, n, d))  # fmt: skip
    return _call(model, like, aten.reshape.default, again, [*batch, heads, n, d], shape=(*batch, heads, n, d))


def _mask(model: GraphModule, node: Node, given: Mapping[str, object], t: int, n: int) -> object | None:
    """What is added to the scores: a tensor of the graph, or 0 and -inf where a constant mask says so."""
    if given.get("is_causal"):
        return _buffer(model, node, "mask", torch.full((t, n), -torch.inf).triu(1))
    mask = given.get("attn_mask")
    allowed = _constant(model, mask)
    if allowed is None or allowed.dtype != torch.bool:
        return mask
    return _buffer(model, node, "mask", torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf))


def _identity(model: GraphModule, node: Node) -> Node | None:
    """dropout in eval mode, detach and what export checked of a type pass their operand on."""
    if node.target in (aten.dropout.default, aten.feature_dropout.default) and node.args[2]:
        return None
    return node.all_input_nodes[0]


def _same_type(model: GraphModule, node: Node) -> Node | None:
    """A conversion of binary32 to binary32, as ``x.float()``."""
    x = node.all_input_nodes[0]
    return x if x.meta["val"].dtype == node.meta["val"].dtype == torch.float32 else None


def _constant_factor(model: GraphModule, node: Node) -> Node | None:
    """x @ b with one constant matrix b [K, N]: a linear layer, whose weights have the widths of weights."""
    x, b = node.args
    value = _constant(model, b)
    if value is None or not isinstance(x, Node) or x.op == "get_attr" or value.shape[:-2].numel() != 1:
        return None
    if value.dim() > len(x.meta["val"].shape):
        return None
    weight = _buffer(model, node, "weight", value.reshape(value.shape[-2:]).t().contiguous())
    return _call(model, node, aten.linear.default, x, weight)


def _moving_weight(model: GraphModule, node: Node) -> Node | None:
    """A linear layer whose weight is computed: a product of two activations."""
    if isinstance(node.args[1], Node) and node.args[1].op == "get_attr":
        return None

    def definition(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        y = torch.matmul(x, w.transpose(0, 1))
        return y if bias is None else y + bias

    inline(model, node, definition)
    return None


def _index(model: GraphModule, node: Node) -> Node | None:
    """A tensor indexed by constants, of which each has an axis of the result to itself: joins of slices."""
    indices = node.args[1]
    constants = {axis: _constant(model, i) for axis, i in enumerate(indices) if i is not None}  # type: ignore[arg-type]
    found = {axis: i for axis, i in constants.items() if i is not None and i.dtype != torch.bool}
    axes = list(found)
    if not axes or len(found) < len(constants) or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    if any(i.dim() > len(found) for i in found.values()):
        return None
    for k, i in enumerate(found.values()):
        shape = (1,) * (len(found) - i.dim()) + tuple(i.shape)
        if any(n != 1 for axis, n in enumerate(shape) if axis != k):
            return None

    chosen = [(axis, i.flatten().tolist()) for axis, i in found.items()]

    def definition(x: torch.Tensor, *_: object) -> torch.Tensor:
        for axis, places in chosen:
            x = pick(x, axis, [place % x.shape[axis] for place in places])
        return x

    inline(model, node, definition)
    return None


def _index_select(model: GraphModule, node: Node) -> Node | None:
    value = _constant(model, node.args[2])
    if value is not None:
        places = value.flatten().tolist()
        inline(model, node, lambda x, dim, _: pick(x, dim % x.dim(), places))
    return None


def _batch_norm(model: GraphModule, node: Node) -> Node | None:
    """A batch norm that follows no convolution: x * (gamma/sigma) + (beta - mean*gamma/sigma), per channel."""
    x, *names, training, _, eps, _ = node.args
    if training or not isinstance(x, Node) or names[2] is None or names[3] is None:
        return None
    gamma, beta, mean, variance = (_constant(model, n) for n in names)
    assert mean is not None
    assert variance is not None
    factor = (variance.double() + float(eps)).rsqrt()  # type: ignore[arg-type]
    factor = factor if gamma is None else factor * gamma.double()
    shift = -mean.double() * factor if beta is None else beta.double() - mean.double() * factor
    shape = (-1, *[1] * (node.meta["val"].dim() - 2))
    product = _call(model, node, aten.mul.Tensor, x, _buffer(model, node, "factor", factor.view(shape)))
    return _call(model, node, aten.add.Tensor, product, _buffer(model, node, "shift", shift.view(shape)))


def _divide(model: GraphModule, node: Node) -> Node | None:
    """Division by a number: multiplication by its reciprocal."""
    x, divisor = node.args[:2]
    if not isinstance(divisor, (int, float)) or not divisor:
        return None
    return _call(model, node, aten.mul.Tensor, x, 1.0 / divisor)


def _constant(model: GraphModule, node: object) -> torch.Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: object = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value.detach()


def _buffer(model: GraphModule, like: Node, suffix: str, value: torch.Tensor) -> Node:
    name = f"{like.name}_{suffix}"
    value = value.float() if value.is_floating_point() else value
    model.register_buffer(name, value)
    node = model.graph.get_attr(name)
    node.meta = {**like.meta, "val": value}
    return node


RULES: dict[object, Callable[[GraphModule, Node], Node | None]] = {
    aten.dropout.default: _identity,
    aten.feature_dropout.default: _identity,
    aten.detach.default: _identity,
    aten._assert_tensor_metadata.default: _identity,
    aten.to.dtype: _same_type,
    aten.to.dtype_layout: _same_type,
    aten._to_copy.default: _same_type,
    aten.batch_norm.default: _batch_norm,
    aten.div.Tensor: _divide,
    aten.scaled_dot_product_attention.default: _attention,
    aten.matmul.default: _constant_factor,
    aten.mm.default: _constant_factor,
    aten.bmm.default: _constant_factor,
    aten.linear.default: _moving_weight,
    aten.index.Tensor: _index,
    aten._unsafe_index.Tensor: _index,
    aten.index_select.default: _index_select,
}
"""Operator to its rewrite; None as a result leaves the node as it is."""
