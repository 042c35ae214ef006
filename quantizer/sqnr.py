"""How far a quantized model is from the float one, layer by layer: signal to noise (arXiv 1806.08342, app. A)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
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


def powers(signal: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """Power of ``signal`` and of the noise in ``found``.

    Infinities and NaN where both have them, as in masked scores, are neither.
    """
    signal, found = signal.double(), found.double()
    same = (signal == found) | (signal.isnan() & found.isnan())
    noise = (found - signal).square().masked_fill(same, 0.0).sum().item()
    return signal[signal.isfinite()].square().sum().item(), noise


def decibels(signal: torch.Tensor, found: torch.Tensor) -> float:
    """10 log10 of signal power over the power of ``found - signal``; infinite when they are equal."""
    power, noise = powers(signal, found)
    if noise == 0:
        return inf
    return 10 * log10(power / noise) if power and isfinite(noise) else -inf


def sqnr(model: nn.Module, q: GraphModule, inputs: Batch) -> tuple[LayerSqnr, ...]:
    """SQNR of every operator's result in ``q``, in device numerics, against ``model`` in float, in graph order.

    ``q`` is ``model`` quantized; nodes are matched by name, but for those whose channels a stage of the recipe has
    scaled. Values are of the same inputs in both. The three walks go in step, so that few values are held at a time.
    """
    batch = as_tuple(inputs)
    floats = _Floats(model, batch, {node.name for node in q.graph.nodes if _comparable(node)})
    machine = reference(q)
    walks = zip(machine.trace(*batch), machine.trace(*batch, given=floats.of), strict=True)
    rows: list[LayerSqnr] = []
    for (node, found), (_, own) in walks:
        signal = floats.of(node)
        if signal is not None and signal.shape == found.shape:
            shape, noise = tuple(found.shape), (decibels(signal, found), decibels(signal, own))
            rows.append(LayerSqnr(node.name, str(node.target), module_path(node), shape, *noise))
    return tuple(rows)


def _comparable(node: Node) -> bool:
    """Whether it is an operator whose channels nobody has scaled."""
    return node.op == "call_function" and not (node.meta.get("custom") or {}).get(RESCALED)


class _Floats:
    """Values of nodes in PyTorch's own arithmetic, with batch norms folded as the quantizer does, in graph order."""

    def __init__(self, model: nn.Module, batch: Sequence[torch.Tensor], names: Set[str]) -> None:
        graph = convert(prepare(model, tuple(batch), "f32"))
        self._names = {node.name for node in graph.graph.nodes if node.name in names}
        self._walk = _walk(graph, batch)
        self._last: tuple[str, torch.Tensor] | None = None

    def of(self, node: Node) -> torch.Tensor | None:
        """What ``node`` is in float; asked again only of the same one, or of one behind it."""
        if node.name not in self._names:
            return None
        while self._last is None or self._last[0] != node.name:
            self._last = next(self._walk)
        return self._last[1]


def _walk(graph: GraphModule, batch: Sequence[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every node's name and value, as ``torch.fx.Interpreter.run`` has them, which keeps them until it is through."""
    interpreter = torch.fx.Interpreter(graph)
    interpreter.args_iter = iter(batch)
    with torch.no_grad():
        for node in graph.graph.nodes:
            value = interpreter.env[node] = interpreter.run_node(node)
            if isinstance(value, torch.Tensor):
                yield node.name, value
            for dead in interpreter.user_to_last_uses.get(node, ()):
                del interpreter.env[dead]
