"""What a pass did not foresee reaches the user with its name, the operation it was at and the cause."""

from __future__ import annotations

from typing import Any

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from compiler import pipeline
from compiler.dialects import qnn
from compiler.ir.location import where
from compiler.passes.canonicalize_qnn import MergeReshapes
from compiler.passes.fold_constants import FoldConstantsPass
from compiler.pipeline import Options, compile_module
from isa.errors import UnsupportedError
from isa.machine import Machine
from tests.compiler.kern_graphs import graph, relu

TINY = Machine.load("tiny")
DEFECT = "write it with other operators or leave it out of the model, and report this: it is a defect of Quartic"
HERE = " at node n1, module m.1, model.py:2"


def fail() -> None:
    raise KeyError("of nobody's making")


def fail_at_the_second(module: ModuleOp, *_: object) -> Any:
    for op in module.walk():
        if "node n1" in where(op):
            fail()


def fail_at_once(*_: object) -> Any:
    fail()


def said() -> str:
    """What the compiler says of two operations, the second of which ``fail`` hits."""
    module = graph([(1, 3, 4, 4)], lambda x: qnn.TanhOp(relu(x)).output)
    with pytest.raises(UnsupportedError) as caught:
        compile_module(module, TINY, Options(fuse=False))
    assert isinstance(caught.value.__cause__, KeyError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("fuse_kernels", "fuse-kernels"),
        ("materialize_copies", "materialize-copies"),
        ("tile_kernels", "tile-kernels"),
        ("plan_module", "plan-memory"),
        ("emit", "emit"),
    ],
)
def test_a_stage_that_fails(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    monkeypatch.setattr(pipeline, function, fail_at_the_second)
    assert said() == f"""pass {name} failed{HERE} with KeyError: "of nobody's making"; {DEFECT}"""


def test_a_pass_that_fails_at_no_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FoldConstantsPass, "apply", fail_at_once)
    assert said() == f"""pass fold-constants failed with KeyError: "of nobody's making"; {DEFECT}"""


def test_a_pattern_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def rewrite(pattern: object, op: Operation, rewriter: object) -> None:
        if isinstance(op, qnn.TanhOp):
            fail()

    monkeypatch.setattr(MergeReshapes, "match_and_rewrite", rewrite)
    assert said() == f"""pass canonicalize-qnn failed{HERE} with KeyError: "of nobody's making"; {DEFECT}"""


def test_a_refusal_inside_a_pattern_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def rewrite(*_: object) -> None:
        try:
            fail()
        except KeyError as error:
            raise UnsupportedError("in these words") from error

    monkeypatch.setattr(MergeReshapes, "match_and_rewrite", rewrite)
    assert said() == "in these words"
