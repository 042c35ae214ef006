"""Float model to quantized FX graph, and that graph in the machine's arithmetic."""

from quantizer.annotate import QuarticQuantizer
from quantizer.flow import calibrate, convert, export, prepare, quantize, transfer
from quantizer.reference import Reference, reference
from quantizer.report import Unquantized, report

__all__ = [
    "QuarticQuantizer",
    "Reference",
    "Unquantized",
    "calibrate",
    "convert",
    "export",
    "prepare",
    "quantize",
    "reference",
    "report",
    "transfer",
]
