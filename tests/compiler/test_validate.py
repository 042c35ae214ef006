"""``validate``: a seeded miscompile is named by its pass and operation."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler import pipeline
from compiler.dialects import qnn
from compiler.dialects.attrs import IntsAttr
from compiler.interpreter.qnn import run_qnn
from compiler.ir import tiling
from compiler.ir.tiling import Box, Range
from compiler.pipeline import Options, Stopwatch, compile_module
from compiler.validate import Validator
from isa.errors import ValidationError
from isa.machine import Machine
from tests.compiler.kern_graphs import GRAPHS, conv, graph, q, relu

TINY = Machine.load("tiny")
VALIDATE = Options(validate=True)


def two_convolutions(x: SSAValue) -> SSAValue:
    """n0 quantizes, n1 and n3 convolve, n2 and n5 quantize, n4 is a relu."""
    return q(relu(conv(q(conv(q(x), 8, 3)), 8, 3)))


def module(shape: tuple[int, ...] = (1, 3, 9, 8)) -> ModuleOp:
    return graph([shape], two_convolutions)


def move_padding(module: ModuleOp) -> None:
    """A row of padding moves from below to above the second convolution."""
    second = [op for op in module.walk() if isinstance(op, qnn.Conv2dOp)][1]
    second.padding = IntsAttr((2, 1, 0, 1))


def refusal(shape: tuple[int, ...] = (1, 3, 9, 8)) -> str:
    with pytest.raises(ValidationError) as caught:
        compile_module(module(shape), TINY, VALIDATE)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_to_report_on_graphs_that_compile_well(name):
    compiled = compile_module(graph(*GRAPHS[name]), TINY, VALIDATE)
    assert compiled.validator is not None
    assert [p.name for p in compiled.validator.probes] == ["random", "extreme"]
    assert compiled.seconds["validate"] > 0


def test_the_probes_expect_what_the_imported_graph_computes():
    original = module()
    for probe in Validator(original).probes:
        (expected,) = run_qnn(original, probe.inputs)
        assert np.array_equal(probe.expected[0], expected)


def test_validation_changes_no_byte():
    plain = compile_module(module(), TINY, Options())
    assert plain.validator is None
    # The weights of a graph are drawn when it is made, so one graph is compiled twice.
    once = module()
    twice = once.clone()
    first, second = compile_module(once, TINY, Options()), compile_module(twice, TINY, VALIDATE)
    assert first.binary.to_bytes() == second.binary.to_bytes()


def test_a_pass_on_qnn_that_moves_a_pad(monkeypatch):
    class Broken:
        name = "broken"

        def apply(self, ctx, op):
            move_padding(op)

    monkeypatch.setattr(pipeline, "LEGALIZE", (*pipeline.LEGALIZE, Broken()))
    text = refusal()
    assert text.startswith("pass broken: output 'output0' differs on random inputs: ")
    assert "; the first to differ is qnn.conv2d (n3 | m.3 | model.py:4): " in text


def test_a_pass_on_kernels_that_moves_a_pad(monkeypatch):
    honest = pipeline.fuse_kernels

    def broken(module, options):
        honest(module, options)
        move_padding(module)

    monkeypatch.setattr(pipeline, "fuse_kernels", broken)
    text = refusal()
    assert text.startswith("pass fuse-kernels: ")
    assert "; the first to differ is qnn.conv2d in kernel 'n3' (n3 | m.3 | model.py:4): " in text


def test_a_bias_that_a_pass_forgets(monkeypatch):
    honest = pipeline.materialize_copies

    def broken(module, *rest):
        honest(module, *rest)
        constants = [op for op in module.walk() if isinstance(op, qnn.ConstantOp)]
        bias = next(c for c in constants if c.output.type.get_shape() == (8,))
        other = qnn.ConstantOp(np.zeros(8, np.float32))
        bias.parent.insert_op_before(other, bias)
        bias.output.replace_all_uses_with(other.output)

    monkeypatch.setattr(pipeline, "materialize_copies", broken)
    text = refusal()
    assert text.startswith("pass materialize-copies: ")
    assert "in kernel 'n1' (n1 | m.1 | model.py:2)" in text


def test_a_wrong_halo(monkeypatch):
    honest = tiling._window_box

    def broken(window, out, shape, channels):
        n, h, w, c = honest(window, out, shape, channels)
        return Box(n, Range(h.start - 1, h.stop - 1) if h.start else h, w, c)

    monkeypatch.setattr(tiling, "_window_box", broken)
    text = refusal((1, 3, 40, 40))
    assert text.startswith("pass tile-kernels: ")
    assert "; the first to differ is tile.kernel 'n1' (n1 | m.1 | model.py:2; n2 | m.2 | model.py:3): " in text


def test_a_ring_that_is_not_loaded(monkeypatch):
    honest = pipeline.tile_kernels

    def broken(module, *rest):
        schedule = honest(module, *rest)
        load = next(op for op in module.walk() if op.name == "tile.load")
        load.detach()
        load.erase()
        return schedule

    monkeypatch.setattr(pipeline, "tile_kernels", broken)
    assert refusal().startswith("pass tile-kernels: its result cannot be executed: kernel n0: operand 0 uses Box(")


def test_a_module_that_is_not_valid(monkeypatch):
    class Broken:
        name = "broken"

        def apply(self, ctx, op):
            next(op for op in op.walk() if isinstance(op, qnn.Conv2dOp)).padding = IntsAttr((9, 1, 0, 1))

    monkeypatch.setattr(pipeline, "LEGALIZE", (*pipeline.LEGALIZE, Broken()))
    assert refusal().startswith("pass broken: its result is not valid: ")


def test_outputs_of_another_number_or_shape_are_told():
    validator = Validator(module())
    probe = validator.probes[0]
    with pytest.raises(ValidationError, match=r"emit: @main gives 0 outputs, must give 1"):
        validator.compare("emit", probe, [])
    with pytest.raises(ValidationError, match=r"is int8\[1, 8, 9\], must be int8\[1, 8, 9, 8\]"):
        validator.compare("emit", probe, [probe.expected[0][..., 0]])


def test_a_watch_sees_every_pass():
    seen: list[str] = []
    compile_module(module(), TINY, Options(), Stopwatch(lambda name, module: seen.append(name)))
    legal = [step.name for step in pipeline.LEGALIZE]
    assert seen == [*legal, "fuse-kernels", "materialize-copies", "delay-kernels", "tile-kernels"]
