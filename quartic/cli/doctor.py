"""``quartic doctor``: does this installation work, and which versions is it?"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from quartic.cli.console import Json, progress, table

PACKAGES = ("torch", "torchao", "xdsl", "numpy", "numba", "networkx")


def _machines() -> str:
    from isa.energy import EnergyTable
    from isa.machine import Machine

    names = Machine.shipped()
    for name in names:
        EnergyTable.load(Machine.load(name).energy)
    return ", ".join(names)


def _end_to_end() -> str:
    import torch
    from torch import nn

    import quartic

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
        inputs = (torch.randn(1, 3, 8, 8),)
    q = quartic.quantize(model, inputs, [inputs])
    run = quartic.simulate(quartic.compile(q, "tiny"), *inputs)
    if not all(map(torch.equal, quartic.reference(q)(*inputs), run.outputs)):
        raise quartic.QuarticError("the simulator's bits differ from the reference's on a two-layer network")
    return f"bits agree; {run.cycles:,} cycles"


def command(
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the end-to-end run.")] = False, as_json: Json = False
) -> None:
    """Report versions, check the machine descriptions, and run a small network end to end."""
    rows: list[dict[str, object]] = [{"check": "python", "ok": True, "detail": platform.python_version()}]
    rows += [{"check": name, "ok": True, "detail": version(name)} for name in ("quartic-npu", *PACKAGES)]
    checks: dict[str, Callable[[], str]] = {"machines": _machines}
    if not fast:
        checks["end to end"] = _end_to_end
    for name, check in checks.items():
        start = time.perf_counter()
        with progress(name):
            try:
                ok, detail = True, check()
            except Exception as error:
                # A doctor reports whatever is broken, and goes on to the next check.
                ok, detail = False, f"{type(error).__name__}: {error}"
        rows.append({"check": name, "ok": ok, "detail": f"{detail} ({time.perf_counter() - start:.1f} s)"})
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        table("Installation", ["check", "ok", "detail"], [list(row.values()) for row in rows])
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)
