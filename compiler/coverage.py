"""What of a graph the machine can compute, and at which widths: asked before anything is compiled, and never raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, cast

from xdsl.dialects.builtin import IntegerType, Signedness
from xdsl.ir import Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import float_tensor, is_int, shape_of, tensor
from compiler.frontend.build import Graph, walk
from compiler.frontend.qdq import Codes, Constant, Float, Indices, Quantized, Weight
from compiler.frontend.records import Call, Input, Parameter, Record, Ref
from isa.errors import UnsupportedError

PLUMBING = ("quantized_decomposed.", "quartic.", "_operator.getitem")
"""Targets that are no operators of the model."""
PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm")
BLOCKED = "reads what a refused operator would give"


@dataclass(frozen=True)
class Operator:
    """One call of the model. ``rule`` is empty where it is supported, else what it breaks; ``advice``: what to do."""

    node: str
    target: str
    module: str
    source: str
    """``file.py:12``."""
    macs: int
    width: str
    """``w4a8`` and the like for products; for others the bits of the widest codes that it reads, or ``f32``."""
    rule: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Share:
    """Operators and multiply-accumulates."""

    ops: int
    macs: int


@dataclass(frozen=True)
class Coverage:
    """Every operator of a graph, in its order."""

    operators: tuple[Operator, ...]

    @property
    def refused(self) -> tuple[Operator, ...]:
        """Operators that break a rule."""
        return tuple(each for each in self.operators if each.rule)

    @cached_property
    def total(self) -> Share:
        """The whole graph."""
        return _share(self.operators)

    @cached_property
    def supported(self) -> Share:
        """What the machine computes."""
        return _share([each for each in self.operators if not each.rule])

    @cached_property
    def by_width(self) -> Mapping[str, Share]:
        """Supported operators by their width."""
        kept = [each for each in self.operators if not each.rule]
        return {w: _share([e for e in kept if e.width == w]) for w in sorted({e.width for e in kept})}


def _share(operators: Sequence[Operator]) -> Share:
    return Share(len(operators), sum(each.macs for each in operators))


def coverage(graph: Any) -> Coverage:
    """What of a ``torch.fx.GraphModule`` or ``ExportedProgram`` compiles, operator by operator.

    Behind a refused operator the check goes on with a tensor in its place, so that all causes are found at once.
    Raises UnsupportedError only for what is no graph, or has sizes that are not known.
    """
    from compiler.frontend.export import meant_in_binary32, read_graph  # torch is imported only when there is a graph

    return cover(read_graph(graph), meant_in_binary32(graph))


def cover(records: Sequence[Record], binary32: bool = False) -> Coverage:
    """:func:`coverage` of a recorded graph; ``binary32`` as for ``build_module``."""
    graph, sizes, found = Graph(), _Sizes({}), list[Operator]()
    graph.in_binary32 = binary32
    try:
        for record in walk(graph, records):
            known = len(found)
            found.extend(_examined(graph, record, sizes))
            if isinstance(record, Call) and graph.values.get(record.name) is None and len(found) > known:
                _stand_in(graph, record)
    except UnsupportedError as error:
        rule, _, advice = str(error).partition("; ")
        found.append(Operator("", "input", "", "", 0, "", rule, advice))
    return Coverage(tuple(found))


@dataclass(frozen=True)
class _Sizes:
    """Shapes of records by name: PyTorch's own, or ours where it says none."""

    known: dict[str, tuple[int, ...]]

    def of(self, value: Any) -> tuple[int, ...]:
        return self.known.get(value.name, ()) if isinstance(value, Ref) else ()


def _examined(graph: Graph, record: Record, sizes: _Sizes) -> Iterator[Operator]:
    value = None if not isinstance(record, Call) else graph.values.get(record.name)
    match record:
        case Input():
            sizes.known[record.name] = record.shape
        case Parameter():
            sizes.known[record.name] = record.array.shape
        case Call():
            sizes.known[record.name] = record.shape or _shape(value)
            refusal = next((r for call, r in graph.refused if call is record), None)
            plumbing = record.target.startswith(PLUMBING)
            if isinstance(value, (Constant, Weight)) or (plumbing and refusal is None):
                return
            place = record.location
            rule, advice = (refusal.rule, refusal.advice) if refusal is not None else ("", "")
            if value is None and refusal is None:
                rule, advice = BLOCKED, "see that operator"
            width = _width(graph, record) if not rule else ""
            yield Operator(
                record.name, record.target, place.module, place.source, _macs(record, sizes), width, rule, advice
            )
        case _:
            pass


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Weight):
        return value.codes.shape
    if isinstance(value, Constant):
        return value.array.shape
    return shape_of(value.ssa) if isinstance(value, (Codes, Quantized, Float, Indices)) else ()


def _stand_in(graph: Graph, call: Call) -> None:
    """A float tensor in the place of one that was refused."""
    if call.shape is not None and call.dtype in (None, "float32"):
        graph.values[call.name] = Float(graph.argument(float_tensor(call.shape)))


def _macs(call: Call, sizes: _Sizes) -> int:
    """Multiply-accumulates of a product as PyTorch defines it; 0 for other operators."""
    name = call.target.split(".")[1] if "." in call.target else call.target
    shapes = [sizes.of(value) for value in call.args]
    if name.startswith("conv"):
        transposed = "transpose" in name or (name == "convolution" and bool(call.args[6]))
        return prod(shapes[0] if transposed else sizes.known[call.name]) * prod(shapes[1][1:])
    if name == "scaled_dot_product_attention":
        return 2 * prod(shapes[0]) * shapes[1][-2]
    if name in PRODUCTS:
        return prod(sizes.known[call.name]) * shapes["add" in name][-1]
    return 0


def _width(graph: Graph, call: Call) -> str:
    made = next((op for op in _made(graph, call) if isinstance(op, kern.MATRIX)), None)
    if made is not None:
        x, w = (made.a, made.b) if isinstance(made, qnn.MatmulOp) else (made.x, made.w)
        return f"w{_bits(w)}a{_bits(x)}" if is_int(x) else "f32"
    read = [graph.resolve(value) for value in call.args]
    bits = [_bits(value.ssa) for value in read if isinstance(value, (Codes, Quantized))]
    return f"{max(bits)}-bit" if bits else "f32"


def _made(graph: Graph, call: Call) -> Iterator[Operation]:
    """The operations behind a call's value, from the last on, as far as they have its location."""
    op = graph.block.last_op
    while op is not None and op.location == call.location.attribute:
        yield op
        op = op.prev_op


def _bits(value: SSAValue) -> int:
    element = cast(IntType | IntegerType[int, Signedness], tensor(value).element_type)
    return element.width.data
