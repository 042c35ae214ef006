"""Graphs that another quantizer annotated: its observers as ours, with what they have seen."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.utils import is_per_channel

from quantizer.observers import ActivationObserver, Observer, PerChannelWeightObserver, WeightObserver
from quantizer.ranges import MinMax
from quantizer.train.norms import attribute


def adopt(graph: GraphModule) -> GraphModule:
    """Replace in place every observer of torchao; weights get the range of their extremes, as most have it there."""
    found: dict[nn.Module, Observer] = {}
    for node in graph.graph.nodes:
        module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, UniformQuantizationObserverBase) or isinstance(module, Observer):
            continue
        if module not in found:
            weight = attribute(graph, node.args[0])
            found[module] = _ours(module, weight is not None)
            if weight is not None:
                found[module](weight)
        graph.set_submodule(str(node.target), found[module])
    return graph


def _ours(module: UniformQuantizationObserverBase, weight: bool) -> Observer:
    codes = dict(dtype=module.dtype, quant_min=module.quant_min, quant_max=module.quant_max, qscheme=module.qscheme)
    if weight and is_per_channel(module.qscheme):
        return PerChannelWeightObserver(MinMax(), ch_axis=int(module.ch_axis), **codes)  # type: ignore[arg-type]
    if weight:
        return WeightObserver(MinMax(), **codes)
    observer = ActivationObserver(MinMax(), **codes)
    scale, zero = cast(tuple[torch.Tensor, torch.Tensor], module.calculate_qparams())
    observer.freeze(scale, zero)
    return observer
