"""``quartic machines``: what a model can be compiled for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from quartic.cli.console import Json, table


def command(
    name: Annotated[str | None, typer.Argument(help="A machine, or a TOML file of one, to print in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the machines, or print one as TOML (a start for your own)."""
    from isa.machine import Machine

    if name is not None:
        machine = Machine.load(name)
        if as_json:
            print(json.dumps({"name": machine.name, "digest": machine.digest, "toml": machine.to_toml()}, indent=2))
        else:
            print(machine.to_toml(), end="")
        return
    rows = [
        {
            "name": machine.name,
            "clock MHz": machine.clock_hz // 1_000_000,
            "MAC/cycle": machine.mmu.peak,
            "SRAM KiB": machine.sram.bytes // 1024,
            "accumulator KiB": machine.acc.bytes // 1024,
            "VCU lanes": machine.vcu.lanes,
            "DRAM MB/s": machine.dram.bytes_per_second // 1_000_000,
            "energy": machine.energy,
            "digest": machine.digest[:12],
            "description": machine.description,
        }
        for machine in map(Machine.load, Machine.shipped())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        table("Machines", list(rows[0]), [list(row.values()) for row in rows])
