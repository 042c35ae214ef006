"""Who adds an operator is led from table to table: each names what the next one lacks."""

from __future__ import annotations

from compiler.backend import vectorize
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_elementwise import BinaryOp, UnaryOp
from compiler.frontend.aten import OPERATORS
from quantizer.reference.table import FUNCTIONS
from quantizer.spec import OPERATORS as ANNOTATED

CODES = {qnn.QuantizeOp, qnn.DequantizeOp}
ELEMENTWISE = {op for op in qnn.Qnn.operations if issubclass(op, UnaryOp | BinaryOp)} - CODES


def missing(wanted, found) -> str:
    return ", ".join(sorted(getattr(row, "name", str(row)) for row in set(wanted) - set(found)))


def aten_names(targets) -> set[str]:
    """Operators without overload: ``relu_`` of ``aten.relu_.default``."""
    return {name.split(".")[1] for name in map(str, targets) if name.startswith("aten.")}


def test_elementwise_operations_may_join_a_kernel():
    lacking = missing(ELEMENTWISE, kern.CHAIN)
    assert not lacking, f"compiler/dialects/kern.py CHAIN lacks {lacking}"


def test_operations_of_a_chain_have_vector_steps():
    lacking = missing(set(kern.CHAIN) - CODES, vectorize._EMIT)
    assert not lacking, f"compiler/backend/vectorize.py _EMIT lacks {lacking}"


def test_operators_of_the_frontend_have_device_numerics():
    lacking = missing(aten_names(OPERATORS), aten_names(FUNCTIONS))
    assert not lacking, f"quantizer/reference/table.py FUNCTIONS lacks {lacking}"


def test_operators_that_are_annotated_compile():
    lacking = missing(aten_names(ANNOTATED), aten_names(OPERATORS))
    assert not lacking, f"compiler/frontend/aten.py OPERATORS lacks {lacking}"
