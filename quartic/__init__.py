"""PyTorch model in; binary, cycles and joules out.

>>> import torch
>>> from torch import nn
>>> import quartic
>>> _ = torch.manual_seed(0)
>>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
>>> images = torch.rand(16, 3, 8, 8)
>>> example, batches = (images[:1],), [(images,)]
>>> q = quartic.quantize(model, example, batches)
>>> exe = quartic.compile(q, machine="edge28")
>>> run = quartic.simulate(exe, *example)
>>> print(all(map(torch.equal, quartic.reference(q)(*example), run.outputs)))
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
