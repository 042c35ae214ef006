"""Names of the arguments and results of ``@main``, kept as attributes of the function."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp

NAME = "qnn.name"


def main_function(module: ModuleOp) -> FuncOp:
    """``@main`` of a module; ValueError when there is none."""
    for op in module.body.block.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main":
            return op
    raise ValueError("the module has no func.func @main")


def input_names(main: FuncOp) -> tuple[str, ...]:
    """Names of the arguments, ``input0`` and so on where none is given."""
    return _read(main.arg_attrs, "input", len(main.function_type.inputs.data))


def output_names(main: FuncOp) -> tuple[str, ...]:
    """Names of the results, ``output0`` and so on where none is given."""
    return _read(main.res_attrs, "output", len(main.function_type.outputs.data))


def _read(attributes: ArrayAttr[DictionaryAttr] | None, prefix: str, count: int) -> tuple[str, ...]:
    entries: Sequence[DictionaryAttr] = attributes.data if attributes is not None else ()
    given = [entry.data.get(NAME) for entry in entries] or [None] * count
    return tuple(name.data if isinstance(name, StringAttr) else f"{prefix}{i}" for i, name in enumerate(given))
