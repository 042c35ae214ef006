"""Our dialects and passes, by name, for ``quartic opt`` and xDSL's own tools. Nothing is imported before its use.

To add a dialect or a pass, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from xdsl.universe import Universe

DIALECTS = {
    "qnn": "compiler.dialects.qnn:Qnn",
    "kern": "compiler.dialects.kern:Kern",
    "tile": "compiler.dialects.tile:Tile",
    "npu": "compiler.dialects.npu:Npu",
}
"""Dialect name -> ``module:object``."""

PASSES = {
    "canonicalize-qnn": "compiler.passes.canonicalize_qnn:CanonicalizeQnnPass",
    "fuse-kernels": "compiler.passes.fuse_kernels:FuseKernelsPass",
    "kern-assign-precision": "compiler.passes.kern_assign_precision:KernAssignPrecisionPass",
    "fold-constants": "compiler.passes.fold_constants:FoldConstantsPass",
    "legalize-linear": "compiler.passes.legalize_linear:LegalizeLinearPass",
    "legalize-rows": "compiler.passes.legalize_rows:LegalizeRowsPass",
    "materialize-copies": "compiler.passes.materialize_copies:MaterializeCopiesPass",
    "delay-kernels": "compiler.passes.delay_kernels:DelayKernelsPass",
    "plan-memory": "compiler.passes.plan_memory:PlanMemoryPass",
    "tile-kernels": "compiler.passes.tile_kernels:TileKernelsPass",
}
"""Pass name -> ``module:class``."""


TARGETS = {"npu": "compiler.backend.target:NpuTarget"}
"""Target name -> ``module:class``: what ``-t`` writes."""


def lazily(path: str) -> Callable[[], Any]:
    """A function that imports ``module:object`` when called."""
    module, _, name = path.partition(":")
    return lambda: getattr(import_module(module), name)


UNIVERSE = Universe(
    all_dialects={name: lazily(path) for name, path in DIALECTS.items()},
    all_passes={name: lazily(path) for name, path in PASSES.items()},
    all_targets={name: lazily(path) for name, path in TARGETS.items()},
)
