"""How far a quantized model is from the float one, layer by layer: signal to noise (arXiv 1806.08342, app. A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10

import torch
from torch import nn
from torch.fx import GraphModule

from quantizer.batches import Batch, as_tuple
from quantizer.factors import RESCALED
from quantizer.flow import convert, prepare
from quantizer.location import module_path
from quantizer.reference.walk import reference


@dataclass(frozen=True)
class LayerSqnr:
    """One node of the graph: name, operator, module path, shape of its result and its SQNR in dB (inf: equal)."""

    node: str
    target: str
    module: str
    shape: tuple[int, ...]
    sqnr_db: float


def decibels(signal: torch.Tensor, found: torch.Tensor) -> float:
    """10 log10 of signal power over the power of ``found - signal``; infinite when they are equal."""
    noise = (found.double() - signal.double()).square().sum().item()
    power = signal.double().square().sum().item()
    if noise == 0:
        return inf
    return 10 * log10(power / noise) if power else -inf


def sqnr(model: nn.Module, q: GraphModule, inputs: Batch) -> tuple[LayerSqnr, ...]:
    """SQNR of every operator's result in ``q``, in device numerics, against ``model`` in float, in graph order.

    ``q`` is ``model`` quantized; nodes are matched by name, but for those whose channels a stage of the recipe has
    scaled. Values are of the same inputs in both.
    """
    batch = as_tuple(inputs)
    wanted = _float_values(model, batch)
    rows: list[LayerSqnr] = []
    for node, value in reference(q).trace(*batch):
        signal = None if (node.meta.get("custom") or {}).get(RESCALED) else wanted.get(node.name)
        if node.op == "call_function" and signal is not None and signal.shape == value.shape:
            name = str(node.target)
            rows.append(LayerSqnr(node.name, name, module_path(node), tuple(value.shape), decibels(signal, value)))
    return tuple(rows)


def _float_values(model: nn.Module, batch: Sequence[torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Every node's value in PyTorch's own arithmetic, with batch norms folded as the quantizer does."""
    graph = convert(prepare(model, tuple(batch), "f32"))
    found: dict[str, torch.Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                found[n.name] = value
            return value

    with torch.no_grad():
        Recorder(graph).run(*batch)
    return found
