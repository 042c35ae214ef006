"""Origins survive being written into, fused in, printed from and parsed back into the IR."""

from __future__ import annotations

import io

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import UNKNOWN_LOC, Builtin, ModuleOp
from xdsl.parser import Parser
from xdsl.printer import Printer

from compiler.dialects.qnn import ConstantOp, Qnn
from compiler.ir.location import Origin, copy_location, fuse, origin, origins

FIRST = Origin("conv2d", "features.0.conv", "model.py", 12)
SECOND = Origin("relu", "features.0.act", "model.py", 13)


def op_at(*places: Origin) -> ConstantOp:
    op = ConstantOp(np.zeros(1, np.float32))
    if places:
        op.location = fuse([at(place) for place in places])
    return op


def at(place: Origin) -> ConstantOp:
    op = ConstantOp(np.zeros(1, np.float32))
    op.location = place.attribute
    return op


def test_origin_reads_back_what_was_written():
    assert origins(at(FIRST)) == (FIRST,)
    assert str(FIRST) == "conv2d | features.0.conv | model.py:12"


def test_origin_without_source_line():
    assert origin(at(Origin("x", "a.b"))) == Origin("x", "a.b")
    assert Origin("x").source == ""


def test_fused_keeps_each_origin_once_and_in_order():
    assert origins(op_at(SECOND, FIRST, SECOND)) == (SECOND, FIRST)


def test_fusing_fused_locations_stays_flat():
    both = op_at(FIRST, SECOND)
    both.location = fuse([both, at(SECOND)])
    assert origins(both) == (FIRST, SECOND)


def test_unknown_has_no_origin():
    assert origin(op_at()) is None
    assert fuse([op_at()]) == UNKNOWN_LOC


def test_copy_location_does_not_overwrite():
    source, empty, taken = at(FIRST), op_at(), at(SECOND)
    copy_location(source, empty, taken)
    assert (origin(empty), origin(taken)) == (FIRST, SECOND)


def test_locations_survive_printing_and_parsing():
    module = ModuleOp([at(FIRST), op_at(FIRST, SECOND)])
    text = io.StringIO()
    Printer(text, print_debuginfo=True).print_op(module)
    context = Context()
    context.load_dialect(Builtin)
    context.load_dialect(Qnn)
    parsed = Parser(context, text.getvalue()).parse_module()
    assert [origins(op) for op in parsed.ops] == [(FIRST,), (FIRST, SECOND)]
