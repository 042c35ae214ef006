"""The pass on modules: what it leaves alone, and its errors; what it decides is in tests/filecheck."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects import get_all_dialects
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from compiler.analysis.assignment import Budget, Price
from compiler.analysis.graph import build_graph
from compiler.analysis.width_cost import HUGE, Corrections
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.kern_assign_precision import assign_precision, layers_of, model_terms
from compiler.passes.materialize_copies import materialize_copies
from compiler.universe import UNIVERSE
from isa.errors import AssignmentError
from isa.machine import Machine
from tests.compiler.kern_graphs import graph
from tests.compiler.row_graphs import GRAPHS

PASSES = Path(__file__).parents[1] / "filecheck/passes"
EDGE = Machine.load("edge28")


def module(name: str = "kern-assign-precision", *changes: tuple[str, str]) -> ModuleOp:
    text = (PASSES / f"{name}.mlir").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    context = Context()
    for dialect, factory in {**get_all_dialects(), **UNIVERSE.all_dialects}.items():
        context.register_dialect(dialect, factory)
    return Parser(context, text).parse_module()


def test_only_attributes_change() -> None:
    before, after = module(), module()
    assign_precision(after, EDGE, Budget(loss=1.0))
    after.verify()
    for op in after.walk():
        op.attributes.clear()
    for op in before.walk():
        op.attributes.clear()
    assert before.is_structurally_equivalent(after)


def test_terms_at_the_widths_of_the_graph_are_the_price_of_the_graph_as_it_is() -> None:
    """At the widths that the graph has, the kernels in front store what they store now."""
    graph = build_graph(module("kern-assign-precision-model"))
    terms = model_terms(graph, EDGE)
    assert [(term.kernel, term.layer) for term in terms] == [("one", "a"), ("two", "b"), ("one", "b"), ("three", "c")]
    stored = terms[2].prices
    assert (stored["w8a8"].cycles, stored["w8a8"].femtojoules) == (0, 0)
    assert stored["w4a4"].femtojoules < 0
    assert layers_of(graph) == {"one": "a", "two": "b", "three": "c"}


def test_a_kernel_that_fits_only_in_one_slot_has_a_price() -> None:
    rows = graph([(1, 3, 2048)], GRAPHS["layer_norm_float"][1])
    fuse_kernels(rows)
    materialize_copies(rows)
    (term,) = model_terms(build_graph(rows), Machine.load("tiny"))
    assert all(0 < price.cycles < HUGE for price in term.prices.values())


@pytest.mark.slow
def test_the_root_module_is_a_layer_like_others() -> None:
    """Its path is "": attention in a model's own forward."""
    found = module("kern-assign-precision-model", ('layer = "b"', 'layer = ""'))
    terms = model_terms(build_graph(found), EDGE)
    named = model_terms(build_graph(module("kern-assign-precision-model")), EDGE)
    assert [(t.kernel, t.layer or "b", t.prices) for t in terms] == [(t.kernel, t.layer, t.prices) for t in named]
    solution = assign_precision(found, EDGE, Budget(loss=9.0))
    corrections = Corrections()
    corrections.learn(terms, solution.widths, {"two": Price(7, 7)})
    assert sum((t.at(solution.widths) for t in corrections.apply(terms) if t.kernel == "two"), Price()) == Price(7, 7)


@pytest.mark.parametrize(
    ("changes", "machine", "message"),
    [
        ((), "quartdepth28-f32", "kernel 'one' (node one, module net.a): quartdepth28-f32 has none of its widths; it"),
        ([(", losses = {w4a8", ", lost = {w4a8")], "edge28", "kernel 'two': needs losses = {w8a8 = #qnn.number<0.1>"),
        ([("losses = {w4a8", "losses = {w5a5")], "edge28", "kernel 'two': unknown width 'w5a5'; known are w8a8, w4a8"),
        (
            [("w4a8 = #qnn.number<0.5>", "w4a8 = #qnn.number<nan>")],
            "edge28",
            "'two': loses nan at w4a8: must be finite",
        ),
        (
            [("w4a8 = #qnn.number<0.5>", "w4a8 = #qnn.number<inf>")],
            "edge28",
            "'two': loses inf at w4a8: must be finite",
        ),
        ([("w4a8 = array<i64: 300, 1000000>, ", "")], "edge28", "kernel 'two': costs lack width 'w4a8', which its"),
        (
            [("w4a8 = array<i64: 300, 1000000>", "w4a8 = array<i64: 300>")],
            "edge28",
            "kernel 'two': costs of 'w4a8' must be array<i64: cycles, femtojoules>",
        ),
        ([('"net.b"', '"net.a"')], "edge28", "kernel 'two': other losses than another kernel of layer 'net.a' has"),
    ],
)
def test_annotations_that_lack(changes: list[tuple[str, str]], machine: str, message: str) -> None:
    with pytest.raises(AssignmentError, match=re.escape(message)):
        assign_precision(module("kern-assign-precision", *changes), Machine.load(machine), Budget(loss=9.0))


def test_layers_that_share_a_tensor_and_no_width() -> None:
    text = 'layer = "c", losses = {w4a4 = #qnn.number<0.0>, w4a8 = #qnn.number<0.0>, w8a8 = #qnn.number<0.0>}'
    found = module("kern-assign-precision-model", (text, 'layer = "c", losses = {w8a16 = #qnn.number<0.0>}'))
    message = "layers that read one tensor have no width of activations in common: 'b' and 'c'"
    with pytest.raises(AssignmentError, match=message):
        assign_precision(found, EDGE, Budget(latency_seconds=1.0))
