"""Say in operators of the machine what others say: run before annotation, after batch norms were folded."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten


def rewrite(model: GraphModule) -> GraphModule:
    """Rewrite ``model`` in place by ``RULES``; new nodes keep the metadata of the node that they replace."""
    fold_constants(model)
    for node in list(model.graph.nodes):
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is None:
            continue
        with model.graph.inserting_before(node):
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
        elif _is_constant(node, known):
            known[node] = node.target(  # type: ignore[operator]
                *_values(node.args, known), **dict(zip(node.kwargs, _values(node.kwargs.values(), known), strict=True))
            )
    for node, value in known.items():
        read = any(user not in known for user in node.users)
        if node.op == "call_function" and read and isinstance(value, torch.Tensor):
            with model.graph.inserting_before(node):
                node.replace_all_uses_with(_buffer(model, node, "folded", value), lambda user: user not in known)
    model.graph.eliminate_dead_code()


def _is_constant(node: Node, known: Mapping[Node, object]) -> bool:
    if node.op != "call_function" or _mutates(node) or any(n not in known for n in node.all_input_nodes):
        return False
    return isinstance(node.meta.get("val"), torch.Tensor)


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is None or schema.is_mutable or "rand" in schema.name or "quantized_decomposed" in str(node.target)


def _values(args: Iterable[object], known: Mapping[Node, object]) -> list[object]:
    return [tree_map(lambda a: known[a] if isinstance(a, Node) else a, a) for a in args]


def _call(
    model: GraphModule, like: Node, target: object, *args: object, shape: Sequence[int] | None = None
) -> Node:
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
    if given.get("enable_gqa") or given.get("dropout_p"):
        return None
    q, k, v = given["query"], given["key"], given["value"]
    assert isinstance(q, Node)
    assert isinstance(k, Node)
    *batch, t, d = q.meta["val"].shape
    n = k.meta["val"].shape[-2]
    scale = given.get("scale")
    scores = (*batch, t, n)
    turned = _call(model, node, aten.transpose.int, k, -2, -1, shape=(*k.meta["val"].shape[:-2], d, n))
    x = _call(model, node, aten.matmul.default, q, turned, shape=scores)
    x = _call(model, node, aten.mul.Tensor, x, d**-0.5 if scale is None else scale, shape=scores)
    if (mask := _mask(model, node, given, t, n)) is not None:
        x = _call(model, node, aten.add.Tensor, x, mask, shape=scores)
    x = _call(model, node, aten.softmax.int, x, -1, shape=scores)
    return _call(model, node, aten.matmul.default, x, v)


def _mask(model: GraphModule, node: Node, given: Mapping[str, object], t: int, n: int) -> object | None:
    """What is added to the scores: a tensor of the graph, or 0 and -inf where a constant mask says so."""
    if given.get("is_causal"):
        return _buffer(model, node, "mask", torch.full((t, n), -torch.inf).triu(1))
    mask = given.get("attn_mask")
    if not isinstance(mask, Node) or mask.meta["val"].dtype != torch.bool:
        return mask
    allowed = _constant(model, mask)
    if allowed is None or mask.op != "get_attr":
        return _call(model, node, aten.where.ScalarOther, mask, 0.0, -torch.inf, shape=mask.meta["val"].shape)
    return _buffer(model, node, "mask", torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf))


def _decomposed(model: GraphModule, node: Node) -> Node | None:
    """An einsum as the products and moves that PyTorch makes of it."""
    values = tree_map(lambda a: a.meta["val"] if isinstance(a, Node) else a, node.args)
    tensors = [v for v in tree_leaves(values) if isinstance(v, torch.Tensor)]
    mode = next((v.fake_mode for v in tensors if isinstance(v, FakeTensor)), None)
    if mode is None:
        return None
    traced = make_fx(lambda *xs: torch.einsum(values[0], *xs))(*tensors)
    inner = iter(node.all_input_nodes)
    env: dict[Node, Node] = {}
    for each in traced.graph.nodes:
        if each.op == "placeholder":
            env[each] = next(inner)
        elif each.op == "output":
            result = each.args[0]
            return env[result[0] if isinstance(result, (list, tuple)) else result]
        else:
            env[each] = copy = model.graph.node_copy(each, env.__getitem__)
            copy.meta = {**node.meta, "val": each.meta["val"]}
    return None


def _added(model: GraphModule, node: Node) -> Node | None:
    """x + a @ b of batches, as the product and the sum."""
    if node.kwargs:
        return None
    x, a, b = node.args
    return _call(model, node, aten.add.Tensor, _call(model, node, aten.bmm.default, a, b), x)


def _extremes(model: GraphModule, node: Node) -> Node | None:
    """Values and positions along an axis: each an operator of its own."""
    values = aten.amax.default if node.target == aten.max.dim else aten.amin.default
    x, dim, *rest = node.args
    for user in list(node.users):
        if user.target != operator.getitem or (user.args[1] and values is aten.amin.default):
            return None
    for user in list(node.users):
        args = (x, dim, *rest) if user.args[1] else (x, [dim], *rest)
        each = _call(model, user, aten.argmax.default if user.args[1] else values, *args)
        user.replace_all_uses_with(each)
    return None


def _identity(model: GraphModule, node: Node) -> Node | None:
    """dropout in eval mode, detach and what export checked of a type pass their operand on."""
    if node.target in (aten.dropout.default, aten.feature_dropout.default) and node.args[2]:
        return None
    return node.all_input_nodes[0]


def _same_type(model: GraphModule, node: Node) -> Node | None:
    """A conversion of binary32 to binary32, as ``x.float()``."""
    x = node.all_input_nodes[0]
    return x if x.meta["val"].dtype == node.meta["val"].dtype == torch.float32 else None


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


def _reversed_subtract(model: GraphModule, node: Node) -> Node | None:
    """c - x: x * -1 + c."""
    if len(node.args) != 2 or node.kwargs:
        return None
    return _call(model, node, aten.add.Tensor, _call(model, node, aten.mul.Tensor, node.args[0], -1.0), node.args[1])


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
    aten.rsub.Scalar: _reversed_subtract,
    aten.scaled_dot_product_attention.default: _attention,
    aten.einsum.default: _decomposed,
    aten.baddbmm.default: _added,
    aten.max.dim: _extremes,
    aten.min.dim: _extremes,
}
"""Operator to its rewrite; None as a result leaves the node as it is."""
