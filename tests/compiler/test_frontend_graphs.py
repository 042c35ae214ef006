"""Graphs of torchao's own quantizers become qnn modules: bits and locations, before and after the passes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

from compiler.dialects import qnn
from compiler.frontend.export import import_graph
from compiler.interpreter.qnn import run_qnn
from compiler.ir.location import origins
from compiler.passes.canonicalize_qnn import CanonicalizeQnnPass
from compiler.passes.fold_constants import FoldConstantsPass
from compiler.passes.legalize_linear import LegalizeLinearPass
from isa.errors import UnsupportedError
from quantizer.reference import reference


class Net(nn.Module):
    """Convolutions with and without groups, a residual, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(128, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depth(x)
        return self.fc(torch.flatten(self.pool(x), 1))


def converted(quantizer: object) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(torch.export.export(Net().eval(), (x,)).module(), quantizer)
        prepared(x)
        return convert_pt2e(prepared)


def operations(module):
    return [op for op in module.walk() if isinstance(op, qnn.QnnOp)]


@pytest.fixture(scope="module")
def xnnpack_graph():
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    return converted(xnnpack.XNNPACKQuantizer().set_global(config))


@pytest.fixture(scope="module")
def x86_graph():
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # imports all of Inductor

    config = x86.get_default_x86_inductor_quantization_config()
    return converted(x86.X86InductorQuantizer().set_global(config))


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["xnnpack_graph", pytest.param("x86_graph", marks=pytest.mark.slow)])
def test_torchaos_own_quantizers_import_and_passes_keep_the_bits(graph, request):
    q = request.getfixturevalue(graph)
    module, x = import_graph(q), torch.randn(2, 3, 16, 16)
    (want,) = reference(q)(x)
    for step in (None, CanonicalizeQnnPass(), FoldConstantsPass(), LegalizeLinearPass(), CanonicalizeQnnPass()):
        if step is not None:
            step.apply(None, module)  # pyright: ignore[reportArgumentType]
        module.verify()
        assert np.array_equal(run_qnn(module, [x.numpy()])[0], want.numpy()), step


@pytest.mark.slow
def test_every_operation_names_node_module_and_line_before_and_after_passes(xnnpack_graph):
    module = import_graph(xnnpack_graph)
    for step in (None, CanonicalizeQnnPass(), FoldConstantsPass(), LegalizeLinearPass()):
        if step is not None:
            step.apply(None, module)  # pyright: ignore[reportArgumentType]
        for op in operations(module):
            first = origins(op)[0]
            assert first.node, op
            assert first.module in {"stem.0", "stem.2", "depth", "pool", "fc", "Net"}, op
            assert first.file.endswith("test_frontend_graphs.py"), op


@pytest.mark.slow
def test_absorbed_operators_keep_their_place(xnnpack_graph):
    module = import_graph(xnnpack_graph)
    before = {place.node for op in operations(module) for place in origins(op)}
    CanonicalizeQnnPass().apply(None, module)  # pyright: ignore[reportArgumentType]
    after = {place.node for op in operations(module) for place in origins(op)}
    assert {node for node in before - after if "quantize" not in node} == set()


def test_not_a_graph_is_refused():
    with pytest.raises(UnsupportedError, match=r"expected a torch\.fx GraphModule .* got Linear; quantize"):
        import_graph(nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]
