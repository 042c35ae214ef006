"""Batch norms behind products: folded into the weights that are quantized, and trained all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from quantizer.train.clock import Clock
from quantizer.train.options import FROZEN, NAIVE
from quantizer.train.simulate import WeightQuantizer

aten = torch.ops.aten
NORMS = "quartic_norms"
"""Key of a prepared graph's metadata: its norms, by the name of the weight that each was folded into."""
AXES: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.default: 0,
    aten.conv2d.padding: 0,
    aten.conv_transpose2d.input: 1,
    aten.linear.default: 0,
}
"""The dimension of the output channels in the weights of the products that torchao folds norms into."""
LEAST = 1e-12
"""Of the magnitude of a factor that is divided by: behind a dead channel nothing is left to scale."""


@dataclass(frozen=True)
class Norm:
    """A product's weight and bias, and the batch norm behind it: gamma * (y - mean) / sqrt(variance + eps) + beta."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    mean: torch.Tensor
    variance: torch.Tensor
    momentum: float
    eps: float


def norms_of(graph: GraphModule) -> dict[str, Norm]:
    """The batch norms of a captured graph that preparation will fold, by the name of the weight. Nothing is copied."""
    found: dict[str, Norm] = {}
    for node in graph.graph.nodes:
        if node.target is not aten.batch_norm.default or not isinstance(node.args[0], Node):
            continue
        product = node.args[0]
        if product.target not in AXES or len(product.users) > 1 or _is_grouped_transpose(product):
            continue
        weight = cast(Node, product.args[1])
        if weight.op != "get_attr" or len(weight.users) > 1:
            continue
        bias = product.args[2] if len(product.args) > 2 else None
        own, shift, gamma, beta, mean, variance = (attribute(graph, n) for n in (weight, bias, *node.args[1:5]))
        if own is None or mean is None or variance is None:
            continue
        momentum, eps = map(float, node.args[6:8])
        found[str(weight.target)] = Norm(own, shift, gamma, beta, mean, variance, momentum, eps)
    return found


def attribute(graph: GraphModule, node: object) -> torch.Tensor | None:
    """The tensor that a ``get_attr`` reads; None of other nodes and of None."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: object = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, torch.Tensor) else None


def _is_grouped_transpose(product: Node) -> bool:
    return AXES[product.target] == 1 and len(product.args) > 6 and product.args[6] != 1  # type: ignore[index]


class NormedProduct(nn.Module):
    """A product with quantized weights and the batch norm behind it (arXiv 1806.08342, section 3.2.2).

    Weights are quantized times gamma / sigma, as they will be in the converted graph, where sigma is the long-term
    deviation. "corrected": the product is divided by that factor again (which is done to the weights, behind their
    quantization) and normalized by the batch; the paper's multiplication by c and division by it. "frozen", and in
    eval mode: the long-term statistics are part of weights and bias. "naive": sigma is the batch's, of the product
    with weights that are not quantized, and so the codes change with every batch.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, norm: Norm, product: Node, quantizer: WeightQuantizer | None, clock: Clock) -> None:
        super().__init__()
        self.weight = _parameter(norm.weight)
        self.bias, self.gamma, self.beta = (
            None if value is None else _parameter(value) for value in (norm.bias, norm.gamma, norm.beta)
        )
        self.register_buffer("mean", norm.mean.detach().clone())
        self.register_buffer("variance", norm.variance.detach().clone())
        self.momentum, self.eps = norm.momentum, norm.eps
        self.quantizer = quantizer
        self.clock = clock
        self._target = cast(Callable[..., torch.Tensor], product.target)
        self._args, self._kwargs = product.args[3:], dict(product.kwargs)
        self._axis = AXES[product.target]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normed product of ``x``."""
        how = self.clock.norms if self.training else FROZEN
        if how == FROZEN:
            weight, bias = self.folded()
            return self._product(x, self._quantized(weight), bias)
        if how == NAIVE:
            return self._naive(x)
        factor = self._factor(self.variance)
        safe = torch.where(factor.abs() < LEAST, LEAST, factor)
        weight = self._quantized(self.weight * self._along(factor)) / self._along(safe)
        y = self._product(x, weight, self.bias)
        return functional.batch_norm(y, self.mean, self.variance, self.gamma, self.beta, True, self.momentum, self.eps)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias with the long-term statistics in them; before the weight is quantized."""
        factor = self._factor(self.variance)
        return self.weight * self._along(factor), self._bias(self.mean, self.variance)

    def _naive(self, x: torch.Tensor) -> torch.Tensor:
        y = self._product(x, self.weight, self.bias)
        others = [i for i in range(y.dim()) if i != 1]
        variance, mean = torch.var_mean(y, others, unbiased=False)
        with torch.no_grad():
            count = y.numel() / y.shape[1]
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * count / max(count - 1, 1), self.momentum)
        weight = self._quantized(self.weight * self._along(self._factor(variance)))
        return self._product(x, weight, self._bias(mean, variance))

    def _quantized(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if self.quantizer is None else self.quantizer(weight)

    def _product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self._target(x, weight, bias, *self._args, **self._kwargs)

    def _factor(self, variance: torch.Tensor) -> torch.Tensor:
        factor = torch.rsqrt(variance + self.eps)
        return factor if self.gamma is None else self.gamma * factor

    def _bias(self, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """beta - mean * gamma / sigma, and the product's own bias in the mean; as torch folds it."""
        middle = -mean if self.bias is None else self.bias - mean
        shift = middle * torch.rsqrt(variance + self.eps)
        shift = shift if self.gamma is None else shift * self.gamma
        return shift if self.beta is None else shift + self.beta

    def _along(self, values: torch.Tensor) -> torch.Tensor:
        shape = [1] * self.weight.dim()
        shape[self._axis] = -1
        return values.view(shape)


def _parameter(value: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), value.requires_grad)
