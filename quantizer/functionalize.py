"""Writes into tensors that have other names (views, slices, what was copied into) as values of their own.

A graph of torch.export keeps ``y[:, 0] = 0.5`` as a write into a view of y. Quantization follows values from operator
to operator and would not see that y has changed; so such a program is given in its functional form.
"""

from __future__ import annotations

import operator
import warnings
from typing import cast

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from quantizer.regions import inline_regions
from quantizer.spec import FLOAT_RESULT, kind_of

aten = torch.ops.aten

STRIDED: dict[object, OpOverload] = dict.fromkeys((aten.view.default, aten._unsafe_view.default), aten.reshape.default)
"""What the traced strides allowed, and those of quantized operands need not."""


def functional(program: ExportedProgram) -> GraphModule:
    """``program`` as a module, in its functional form where an operator writes into a tensor with several names.

    Views become reshapes: the strides of today's operands allow them, those of quantized and decomposed ones need not.
    Inputs and buffers are only read: what the model writes into them, it sees itself in the same call, and nobody else.
    """
    module = _module(program)
    if writes_are_shared(module):
        module = _functional(program)
    out_of_place(module)
    for node in module.graph.nodes:
        node.target = STRIDED.get(node.target, node.target)
    module.recompile()
    return module


def _functional(program: ExportedProgram) -> GraphModule:
    _without_dropout(program.graph_module)
    _copy_inputs(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = program.run_decompositions({})
    module = _module(program)
    for node in list(module.graph.nodes):
        if node.target is aten._native_batch_norm_legit_no_training.default:
            _whole_batch_norm(node)
        if node.target is aten.copy_.default and node.args[0].op == "get_attr":
            node.replace_all_uses_with(node.args[1])
            module.graph.erase_node(node)
        elif node.target is aten.clone.default and node.args[0].op == "placeholder":
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return module


def _copy_inputs(program: ExportedProgram) -> None:
    """Let the model write into copies: of inputs that it changes, PyTorch loses one that is called ``input``."""
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node in placeholders:
        if node.name not in program.graph_signature.user_inputs or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        with program.graph.inserting_after(placeholders[-1]):
            copy = program.graph.call_function(aten.clone.default, (node,))
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)


def out_of_place(module: GraphModule) -> None:
    """Results of their own for operators that write into the new result of another: both values stay to be read.

    Such writes alone are seen: ``module`` must not have those of ``writes_are_shared``.
    """
    behind = set(module.graph.nodes)
    for node in module.graph.nodes:
        behind.discard(node)
        twin = _functional_twin(node)
        if twin is not None:
            node.target = twin
            node.args[0].replace_all_uses_with(node, delete_user_cb=behind.__contains__)


def _functional_twin(node: Node) -> OpOverload | None:
    """The operator that computes what this one writes into its first operand."""
    if not _writes(node) or not isinstance(node.target, OpOverload) or not isinstance(node.args[0], Node):
        return None
    packet = getattr(aten, node.target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(packet, node.target._overloadname, None)


def _without_dropout(module: GraphModule) -> None:
    """Leave out dropout in eval mode: it hands its operand on, to be written into, and its schema does not say so."""
    for node in list(module.graph.nodes):
        idle = node.target in (aten.dropout.default, aten.feature_dropout.default) and not node.args[2]
        if idle and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()


def _module(program: ExportedProgram) -> GraphModule:
    module = cast(GraphModule, program.module(check_guards=False))
    inline_regions(module)
    return module


def writes_are_shared(module: GraphModule) -> bool:
    """Whether an operator in place changes more than the new result of an operator in front of it, or a constant."""
    constant: set[Node] = set()
    for node in module.graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and constant.issuperset(node.all_input_nodes)):
            constant.add(node)
        if not _writes(node) or not isinstance(target := node.args[0], Node):
            continue
        if "copy_" in str(node.target) or "fill_" in str(node.target) or kind_of(node) is None:
            return True
        if target in constant or not _is_new(target) or any(_is_view(user) for user in target.users):
            return True
    return False


def _is_new(node: Node) -> bool:
    """Whether a result has memory of its own for certain, or was written in place where that was asked."""
    if node.target is operator.getitem:  # which promises that nobody reads the whole any more
        return node.all_input_nodes[0].target in (aten.unsafe_split.Tensor, aten.unsafe_chunk.default)
    return kind_of(node) in FLOAT_RESULT or "batch_norm" in str(node.target) or _writes(node)


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable and bool(node.args)


def _is_view(node: Node) -> bool:
    """Whether the result of a node shares the memory of an operand without being written through it."""
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or schema.is_mutable:
        return False
    aliases = any(r.alias_info is not None for r in schema.returns)
    composite = schema.name.removeprefix("aten::") in ("reshape", "flatten", "unflatten", "narrow", "movedim", "chunk")
    return aliases or composite


def _whole_batch_norm(node: Node) -> None:
    """The decomposed batch norm as the operator that folds into a convolution."""
    x, weight, bias, mean, variance, momentum, eps = node.args
    for user in [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]:
        with node.graph.inserting_before(user):
            whole = node.graph.call_function(
                aten.batch_norm.default, (x, weight, bias, mean, variance, False, momentum, eps, False)
            )
        whole.meta = dict(user.meta)
        user.replace_all_uses_with(whole)
        node.graph.erase_node(user)
