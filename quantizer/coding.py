"""The observer of tensors that get a codebook."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import QuantizationSpec

import quantizer.codebook  # noqa: F401  (registers its operators)
from quantizer.curves import BITS, Codebook, Curve
from quantizer.observers import ActivationObserver
from quantizer.quantizers import affine, symmetric
from quantizer.ranges import Estimator
from quantizer.recipe import Format
from quantizer.spec import Kind, kind_of

ops = torch.ops.quartic


@cache  # tensors share a quantizer by having the same object
def codebook_spec(how: Format, curve: Curve) -> QuantizationSpec:
    """The quantizer of activations whose 4-bit codes are even in ``curve``, else in this format."""
    assert how.bits == BITS, "codebooks are of 4 bits"
    grid = symmetric(BITS) if how.symmetric else affine(BITS)
    scheme = torch.per_tensor_symmetric if how.symmetric else torch.per_tensor_affine
    observer: Any = CodebookObserver.with_args(estimator=how.range, curve=curve)
    return QuantizationSpec(grid.dtype, observer, grid.least, grid.most, scheme)


class CodebookObserver(ActivationObserver):
    """Observes bent values, and becomes the operators of a codebook. Scale and zero point are of the bent values."""

    def __init__(self, estimator: Estimator, curve: Curve, **kwargs: Any) -> None:
        super().__init__(estimator, **kwargs)
        self.curve = curve

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Observe ``x`` (any shape) and return it unchanged; raises QuantizationError for NaN or infinities."""
        super().forward(self.curve.bend(x.detach()))
        return x

    def like(self, other: object) -> bool:
        """Whether ``other`` observes for the same codes and by the same estimator."""
        return super().like(other) and isinstance(other, CodebookObserver) and other.curve == self.curve

    def codebook(self) -> Codebook:
        """The table for the range that was seen."""
        scale, zero = self.calculate_qparams()
        return self.curve.codebook(scale.item(), int(zero), self.grid)

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        """What the codes leave of ``x``, of its shape."""
        return self.codebook().simulate(x)

    def convert(self, model: GraphModule, node: Node) -> None:
        """Put the operators in place of ``node``, the call of this observer: what torchao asks of an observer.

        Codes that were only moved stay what they are.
        """
        x, book = node.all_input_nodes[0], self.codebook()
        decode = ops.dequantize_codebook.default
        rest = (list(book.entries), book.zero, book.scale)
        if not _holds(x, decode, rest):
            with model.graph.inserting_before(node):
                codes = model.graph.call_function(ops.quantize_codebook.default, (x, list(book.thresholds)))
                x = model.graph.call_function(decode, (codes, *rest))
        node.replace_all_uses_with(x)
        model.graph.erase_node(node)


def _holds(x: Node, decode: object, rest: tuple[Any, ...]) -> bool:
    """Whether ``x`` is decoded by this very table, or moves what is."""
    if kind_of(x) is Kind.MOVE:
        return all(_holds(each, decode, rest) for each in x.all_input_nodes)
    return x.target is decode and tuple(x.args[1:]) == rest
