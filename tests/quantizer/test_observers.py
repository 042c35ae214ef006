"""Observers of a prepared graph: what they leave of a tensor."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.fx import GraphModule

from quantizer import calibrate, convert, prepare
from quantizer.observers import SYMMETRIC, ActivationObserver, Observer, PerChannelWeightObserver
from quantizer.quantizers import simulate
from quantizer.ranges import MinMax

X = torch.linspace(-1, 3, 24).reshape(2, 3, 2, 2)


def prepared(recipe: str = "w4a8") -> GraphModule:
    torch.manual_seed(0)
    return prepare(torch.nn.ConvTranspose2d(3, 5, 2).eval(), X, recipe)


def test_what_an_observer_leaves_of_a_tensor_is_what_the_converted_graph_computes_with() -> None:
    graph = calibrate(prepared(), [X])
    nodes = {node.name: node for node in graph.graph.nodes}
    left = {
        str(node.target): observer.simulate(X if isinstance(observer, ActivationObserver) else observer.value)  # type: ignore[attr-defined]
        for node in nodes.values()
        if node.op == "call_module" and isinstance(observer := graph.get_submodule(str(node.target)), Observer)
    }
    found = []

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if "dequantize" in str(n.target):
                found.append(value)
            return value

    Recorder(convert(graph)).run(X)
    assert len(found) == 2
    assert all(any(torch.equal(value, each) for each in left.values()) for value in found)


@given(
    array=arrays(np.float32, (3, 16), elements=st.floats(-1e4, 1e4, width=32)),
    bits=st.sampled_from([4, 8, 16]),
    affine=st.booleans(),
    clipped=st.floats(0.1, 1.5),
)
def test_what_the_codes_leave_is_what_quantize_and_dequantize_leave(
    array: np.ndarray, bits: int, affine: bool, clipped: float
) -> None:
    x, ends = torch.from_numpy(array), (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    tensor, channel = (torch.per_tensor_affine, torch.per_channel_affine) if affine else SYMMETRIC
    how = dict(dtype=torch.int8 if bits < 16 else torch.int16, quant_min=ends[0], quant_max=ends[1])
    whole = ActivationObserver(MinMax(), qscheme=tensor, **how)
    rows = PerChannelWeightObserver(MinMax(), ch_axis=0, qscheme=channel, **how)
    for observer in (whole, rows):
        observer(x * clipped)
        scale, zero = observer.calculate_qparams()
        expected = simulate(x, scale.reshape(-1, 1), zero.reshape(-1, 1), observer.grid)
        assert torch.equal(observer.simulate(x), expected)
