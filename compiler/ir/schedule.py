"""Schedules are values: what the compiler decided per kernel, printed, saved, edited and given back.

A schedule file is TOML: one ``[[kernel]]`` table per kernel, in program order.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from isa.errors import ScheduleError

LOOP_DIMS = "cnhw"
"""Loops that a schedule orders: output channels, batch, rows, columns; reduction chunks are always innermost."""

COUNTS = (
    "tile_h", "tile_w", "tile_c", "tile_k", "input_slots", "weight_slots", "stream_slots", "output_slots",
)  # fmt: skip
"""Fields that are integers of at least 1."""


@dataclass(frozen=True)
class KernelSchedule:
    """How one kernel runs: output tile (rows, columns, channels), reduction chunk, loops and ring depths."""

    kernel: str
    nodes: tuple[str, ...]
    """FX nodes fused into the kernel, in order."""
    tile_h: int
    tile_w: int
    tile_c: int
    tile_k: int
    """Input channels per accumulation step (a matrix kernel's reduction chunk)."""
    order: str = "cnhw"
    """Loop order, outermost first."""
    input_slots: int = 2
    weight_slots: int = 2
    stream_slots: int = 2
    output_slots: int = 2
    whole_params: bool = True
    """Per-channel parameters are loaded once for all channels, not per channel tile."""
    keep: bool = False
    """The result stays in SRAM until its last use."""
    shares: bool = False
    """Runs stripe by stripe in turn with the next kernel: what only they use between them is never whole anywhere."""
    stripes: tuple[int, ...] = ()
    """Where the stripes of a kernel in a shared loop end, in rows of the output (columns if it has one row)."""

    @property
    def tile(self) -> tuple[int, int, int, int]:
        """Rows, columns and channels of the output tile, and the reduction chunk."""
        return self.tile_h, self.tile_w, self.tile_c, self.tile_k

    @property
    def slots(self) -> tuple[int, int, int, int]:
        """Depths of the rings: of inputs, factors, streams and results."""
        return self.input_slots, self.weight_slots, self.stream_slots, self.output_slots

    @property
    def pipelined(self) -> bool:
        """Whether every ring of a kernel with two products has the slots that a software pipeline needs.

        One product alone reads a factor, so one slot of it is enough; programs of two tiles read parameters.
        """
        return min(self.stream_slots, self.output_slots) > 1 and (self.whole_params or self.weight_slots > 1)

    def said(self) -> Iterator[tuple[str, object]]:
        """Names and values of the fields, without those of a shared loop where there is none."""
        for f in fields(self):
            if (value := getattr(self, f.name)) or f.name not in ("shares", "stripes"):
                yield f.name, value

    def __post_init__(self) -> None:
        for name, value in zip(COUNTS, (*self.tile, *self.slots), strict=True):
            if not _whole(value) or value < 1:
                raise ScheduleError(
                    f"kernel {self.kernel!r}: {name} = {value!r} must be an integer of at least 1"
                )
        ends = (0, *self.stripes)
        if any(not _whole(b) or b < a for a, b in zip(ends, self.stripes, strict=False)):
            raise ScheduleError(f"kernel {self.kernel!r}: stripes = {self.stripes!r} must be integers that do not fall")
        if self.shares and not self.stripes:
            raise ScheduleError(f"kernel {self.kernel!r}: it shares a loop with the next kernel, so it needs stripes")
        if sorted(self.order) != sorted(LOOP_DIMS):
            raise ScheduleError(
                f"kernel {self.kernel!r}: order = {self.order!r} must name each of the loops "
                f"{', '.join(LOOP_DIMS)} once, outermost first"
            )


@dataclass(frozen=True)
class Schedule:
    """The schedules of all kernels of one model on one machine, in program order."""

    machine: str
    kernels: tuple[KernelSchedule, ...]

    def kernel(self, name: str) -> KernelSchedule | None:
        """The schedule of kernel ``name``, or None."""
        return self.by_name().get(name)

    def by_name(self) -> dict[str, KernelSchedule]:
        """Kernel name -> schedule."""
        return {k.kernel: k for k in self.kernels}

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The fused node groups, in program order."""
        return tuple(k.nodes for k in self.kernels)

    def to_toml(self) -> str:
        """Text that :meth:`from_toml` reads back to an equal value."""
        lines = [f"machine = {literal(self.machine)}"]
        for kernel in self.kernels:
            lines += ["", "[[kernel]]"]
            lines += [f"{name} = {literal(value)}" for name, value in kernel.said()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, source: str = "schedule") -> Schedule:
        """Parse a schedule; raises ScheduleError naming the kernel and key that is wrong."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ScheduleError(f"{source}: not TOML: {error}") from error
        _known(source, data, {"machine", "kernel"})
        machine, rows = data.get("machine"), data.get("kernel")
        if not isinstance(machine, str) or not isinstance(rows, list):
            raise ScheduleError(f"{source}: needs a string `machine` and at least one [[kernel]] table")
        kernels = tuple(kernel_schedule(source, row) for row in cast("list[Any]", rows))
        names = [k.kernel for k in kernels]
        if doubled := {n for n in names if names.count(n) > 1}:
            raise ScheduleError(f"{source}: kernel {min(doubled)!r} is scheduled twice")
        return cls(machine, kernels)


def _whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, int) and not isinstance(value, bool))


def literal(value: object) -> str:
    """A string, flag, integer or tuple of them as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(literal(v) for v in cast("tuple[object, ...]", value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _known(where: str, table: Mapping[str, Any], keys: set[str]) -> None:
    if unknown := sorted(set(table) - keys):
        raise ScheduleError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(keys))}")


def kernel_schedule(source: str, row: Any) -> KernelSchedule:
    """The schedule in a table of keys and values; ScheduleError names the key that is wrong."""
    if not isinstance(row, dict):
        raise ScheduleError(f"{source}: `kernel` must be tables, [[kernel]]")
    table = cast("dict[str, Any]", row)
    where = f"{source}: kernel {table.get('kernel', '?')!r}"
    types = {f.name: f.type for f in fields(KernelSchedule)}
    _known(where, table, set(types))
    for name in ("kernel", "nodes", "tile_h", "tile_w", "tile_c", "tile_k"):
        if name not in table:
            raise ScheduleError(f"{where}: key {name!r} is missing")
    kinds = {"kernel": str, "nodes": list, "order": str, "whole_params": bool, "keep": bool, "shares": bool}
    for name, kind in {**kinds, "stripes": list}.items():
        if name in table and not isinstance(table[name], kind):
            raise ScheduleError(f"{where}: {name} = {table[name]!r} must be a {kind.__name__}")
    values: dict[str, Any] = {**table, "nodes": tuple(str(n) for n in table["nodes"])}
    if "stripes" in table:
        values["stripes"] = tuple(table["stripes"])
    return KernelSchedule(**values)
