"""How far a quantized model is from the float one, layer by layer: signal to noise (arXiv 1806.08342, app. A)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log10

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantizer.batches import Batch, as_tuple
from quantizer.factors import RESCALED
from quantizer.flow import convert, prepare
from quantizer.location import module_path
from quantizer.reference.walk import reference


@dataclass(frozen=True)
class LayerSqnr:
    """One node of the graph: name, operator, module path, shape of its result and its SQNR in dB (inf: equal).

    ``own_db`` is that of the same operator where what it reads is the float model's: noise that it inherits is left
    out, that of quantizing its operands is in.
    """

    node: str
    target: str
    module: str
    shape: tuple[int, ...]
    sqnr_db: float
    own_db: float


def decibels(signal: torch.Tensor, found: torch.Tensor) -> float:
    """10 log10 of signal power over the power of ``found - signal``; infinite when they are equal.

    Infinities and NaN where both have them, as in masked scores, are neither signal nor noise.
    """
    signal, found = signal.double(), found.double()
    same = (signal == found) | (signal.isnan() & found.isnan())
    noise = (found - signal).square().masked_fill(same, 0.0).sum().item()
    power = signal[signal.isfinite()].square().sum().item()
    if noise == 0:
        return inf
    return 10 * log10(power / noise) if power and isfinite(noise) else -inf


def sqnr(model: nn.Module, q: GraphModule, inputs: Batch) -> tuple[LayerSqnr, ...]:
    """SQNR of every operator's result in ``q``, in device numerics, against ``model`` in float, in graph order.

    ``q`` is ``model`` quantized; nodes are matched by name, but for those whose channels a stage of the recipe has
    scaled. Values are of the same inputs in both.
    """
    batch = as_tuple(inputs)
    floats = _float_values(model, batch)
    scaled = {node.name for node in q.graph.nodes if (node.meta.get("custom") or {}).get(RESCALED)}
    wanted = {name: value for name, value in floats.items() if name not in scaled}
    machine = reference(q)
    noise = {node.name: decibels(wanted[node.name], value) for node, value in _compared(machine.trace(*batch), wanted)}
    return tuple(
        LayerSqnr(
            node.name,
            str(node.target),
            module_path(node),
            tuple(value.shape),
            noise[node.name],
            decibels(wanted[node.name], value),
        )
        for node, value in _compared(machine.trace(*batch, given=wanted), wanted)
    )


def _compared(
    values: Iterable[tuple[Node, torch.Tensor]], wanted: Mapping[str, torch.Tensor]
) -> Iterator[tuple[Node, torch.Tensor]]:
    """Results of operators that the float model has, too."""
    for node, value in values:
        if node.op == "call_function" and node.name in wanted and wanted[node.name].shape == value.shape:
            yield node, value


def _float_values(model: nn.Module, batch: Sequence[torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Every node's value in PyTorch's own arithmetic, with batch norms folded as the quantizer does."""
    graph = convert(prepare(model, tuple(batch), "f32"))
    found: dict[str, torch.Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                found[n.name] = value
            return value

    with torch.no_grad():
        Recorder(graph).run(*batch)
    return found
