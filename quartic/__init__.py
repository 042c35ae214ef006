"""Quartic: PyTorch model in; binary, cycles and joules out.

>>> q = quartic.quantize(model, example_inputs, calibration_batches)
>>> exe = quartic.compile(q, machine="edge28")
>>> run = quartic.simulate(exe, *inputs)
>>> all(torch.equal(a, b) for a, b in zip(quartic.reference(q)(*inputs), run.outputs))
True

Importing this package loads neither torch nor the compiler; each verb loads what it needs.
"""

from isa.errors import QuarticError
from quartic.api import (
    assign,
    compile,
    convert,
    export,
    load,
    prepare_qat,
    quantize,
    recipe,
    reference,
    sensitivity,
    simulate,
    timing,
    train,
)
from quartic.executable import Executable
from quartic.version import __version__

__all__ = [
    "Executable",
    "QuarticError",
    "__version__",
    "assign",
    "compile",
    "convert",
    "export",
    "load",
    "prepare_qat",
    "quantize",
    "recipe",
    "reference",
    "sensitivity",
    "simulate",
    "timing",
    "train",
]
