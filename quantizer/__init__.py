"""Float model to quantized FX graph, and that graph in the machine's arithmetic.

A ``Batch`` is a tensor, or a sequence of tensors, one per input; a ``Loss`` a function of output and target that gives
a tensor of one number; a ``Watch`` what is told of ``Progress``.

>>> from quantizer import calibrate, convert, prepare, report
>>> prepared = calibrate(prepare(model, example, "w8a8"), batches)
>>> print([(layer.node, layer.weight.bits) for layer in report(convert(prepared)).layers if layer.weight])
[('conv2d', 8), ('linear', 8)]
"""

from quantizer.annotate import QuarticQuantizer
from quantizer.flow import calibrate, capture, convert, export, prepare, quantize, rescale, transfer
from quantizer.recipe import Change, Format, Override, Recipe
from quantizer.reference import Reference, reference
from quantizer.report import Layer, Report, Unquantized, report

__all__ = [
    "Change",
    "Format",
    "Layer",
    "Override",
    "QuarticQuantizer",
    "Recipe",
    "Reference",
    "Report",
    "Unquantized",
    "calibrate",
    "capture",
    "convert",
    "export",
    "prepare",
    "quantize",
    "reference",
    "report",
    "rescale",
    "transfer",
]
