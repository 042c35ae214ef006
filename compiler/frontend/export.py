"""FX graph or ExportedProgram -> records. The only file of the compiler that touches torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import PurePath
from typing import Any, cast

import torch
from torch import fx
from xdsl.dialects.builtin import ModuleOp

from compiler.frontend.build import build_module
from compiler.frontend.records import Call, Input, Output, Parameter, Record, Ref
from compiler.ir.location import Origin
from isa.errors import UnsupportedError

FRAME = re.compile(r'File "([^"]+)", line (\d+)')
TORCH = str(PurePath(torch.__file__).parent)
RECIPE = "quartic_recipe"
"""Key of a graph's metadata under which the quantizer leaves the name of its recipe."""
IGNORED_MODULES = ("_guards_fn",)


def import_graph(graph: fx.GraphModule | torch.export.ExportedProgram) -> ModuleOp:
    """``func.func @main`` in the qnn dialect, equal to ``graph`` in device numerics.

    Raises UnsupportedError that lists every operator that cannot be compiled as asked.
    """
    return build_module(read_graph(graph), meant_in_binary32(graph))


def meant_in_binary32(graph: fx.GraphModule | torch.export.ExportedProgram) -> bool:
    """Whether the user asked for the binary32 baseline, by the recipe that made the graph."""
    meta = (graph.graph_module if isinstance(graph, torch.export.ExportedProgram) else graph).meta
    kept = cast(dict[str, Any], meta.get("custom") or {})  # what torch.export.save keeps of it
    return "f32" in (meta.get(RECIPE), kept.get(RECIPE))


def read_graph(graph: fx.GraphModule | torch.export.ExportedProgram) -> list[Record]:
    """The records of a graph, in its order."""
    module: Any = graph.module() if isinstance(graph, torch.export.ExportedProgram) else graph
    if not isinstance(module, fx.GraphModule):
        raise UnsupportedError(
            f"expected a torch.fx GraphModule or an ExportedProgram, got {type(graph).__name__}; "
            "quantize the model first, or export it with torch.export.export"
        )
    return list(_records(module))


def _records(module: fx.GraphModule) -> Iterator[Record]:
    places: dict[fx.Node, Origin] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            yield Parameter(node.name, _array(module, str(node.target)))
        elif node.op == "placeholder":
            shape, dtype = _shape(node)
            if shape is not None:
                yield Input(node.name, shape, dtype or "float32", _place(node, places))
        elif node.op == "output" or _target(node).endswith("tree_unflatten"):
            yield Output(tuple(_leaves(_plain(node.args[0]))))
            return
        elif not (node.op == "call_module" and str(node.target).startswith(IGNORED_MODULES)):
            yield _call(node, _place(node, places))


def _call(node: fx.Node, place: Origin) -> Call:
    shape, dtype = _shape(node)
    return Call(
        node.name,
        _target(node),
        cast(tuple[Any, ...], _plain(node.args)),
        {key: _plain(value) for key, value in node.kwargs.items()},
        shape,
        dtype,
        place,
    )


def _target(node: fx.Node) -> str:
    if isinstance(node.target, str):
        return f"{node.op}.{node.target}"
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
        return str(cast(Any, target))
    return f"{target.__module__}.{target.__name__}"


def _plain(value: Any) -> Any:
    """Arguments without torch: nodes become references, lists tuples, dtypes and the like their names."""
    if isinstance(value, fx.Node):
        return Ref(value.name)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in cast(list[Any], value))
    if isinstance(value, dict):
        return tuple(_plain(item) for item in cast(dict[Any, Any], value).values())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value).removeprefix("torch.")


def _leaves(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    if isinstance(value, tuple):
        for item in cast(tuple[Any, ...], value):
            yield from _leaves(item)


def _array(module: fx.GraphModule, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value.detach().cpu().numpy()


def _shape(node: fx.Node) -> tuple[tuple[int, ...] | None, str | None]:
    value: Any = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None, None
    if any(type(size) is not int for size in value.shape):
        raise UnsupportedError(
            f"node {node.name}: shape {tuple(value.shape)} is dynamic; every size must be known: "
            "export the model without dynamic_shapes"
        )
    return tuple(value.shape), str(value.dtype).removeprefix("torch.")


def _place(node: fx.Node, known: dict[fx.Node, Origin]) -> Origin:
    """Module path and source line of a node; the outermost module is called by its class.

    Quantize and dequantize nodes may lack them: they belong to what made their input, or at the graph's inputs to
    what uses them.
    """
    path = _own_path(node)
    file, line = _source(node.meta.get("stack_trace") or "")
    if not (path and file):
        nearest = [known[source] for source in node.all_input_nodes if source in known]
        nearest += [_origin(user) for user in _downstream(node)]
        path = path or next((place.module for place in nearest if place.module), "")
        file, line = next(
            ((place.file, place.line) for place in (Origin("", "", file, line), *nearest) if place.file), ("", 0)
        )
    known[node] = Origin(node.name, path, file, line)
    return known[node]


def _origin(node: fx.Node) -> Origin:
    return Origin(node.name, _own_path(node), *_source(node.meta.get("stack_trace") or ""))


def _own_path(node: fx.Node) -> str:
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not stack:
        return ""
    path, kind = list(stack.values())[-1]
    path = path.removeprefix("L['self']").lstrip(".")
    name = kind if isinstance(kind, str) else kind.__qualname__
    return path or name.split(".")[-1]


def _downstream(node: fx.Node) -> list[fx.Node]:
    """The users of a node and theirs, as far as an operator behind a quantize and a dequantize."""
    levels = [list(node.users)]
    for _ in range(2):
        levels.append([user for near in levels[-1] for user in near.users])
    return [user for level in levels for user in level if user.op == "call_function"]


@cache
def _source(trace: str) -> tuple[str, int]:
    """File and line of the innermost frame that is not PyTorch's own; of the innermost at all if none is."""
    frames: list[tuple[str, str]] = FRAME.findall(trace)
    if not frames:
        return "", 0
    own = [frame for frame in frames if not frame[0].startswith(TORCH)]
    file, line = (own or frames)[-1]
    return _short(file), int(line)


@cache
def _short(file: str) -> str:
    """Path below the import root, so that binaries do not depend on where a checkout lies."""
    path = PurePath(file)
    roots = [PurePath(root or os.getcwd()) for root in sys.path]  # "" is where an interactive session runs
    inside = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
    return str(min(inside, key=lambda p: len(p.parts), default=PurePath(path.name)))
