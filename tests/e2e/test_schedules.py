"""Any legal schedule computes the same bits: tile by tile, and as a binary under the checks of the simulator."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from compiler.interpreter.qnn import run_qnn
from compiler.interpreter.tile import run_tile
from compiler.ir.schedule import KernelSchedule, Schedule
from compiler.pipeline import Options, Stopwatch, compile_module
from isa.errors import ScheduleError
from isa.machine import Machine
from runtime.session import run
from tests.bits import assert_same
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, graph, inputs
from tests.thinning import examples

TINY = Machine.load("tiny")
NAMES = ("residual", "zoo", "attention", "nested_concat", "grouped", "uneven_pool", "pads_batch", "gate_batch")
SLOTS = ("input_slots", "weight_slots", "stream_slots", "output_slots")
Case = tuple[ModuleOp, list[np.ndarray], tuple[np.ndarray, ...], Schedule]


@cache
def case(name: str) -> Case:
    """Module, inputs, what they give at the qnn level, and the schedule that the compiler chooses."""
    module = graph(*{**GRAPHS, **CASES}[name])
    values = inputs(module, 3.0)
    return module, values, run_qnn(module, values), compile_module(module.clone(), TINY, Options()).schedule


@st.composite
def altered(draw: st.DrawFn, row: KernelSchedule) -> KernelSchedule:
    """The kernel with other tiles, loops, slots and place; not all of them are legal."""
    sizes = {name: getattr(row, name) for name in ("tile_h", "tile_w", "tile_c", "tile_k")}
    tiles = {
        name: draw(st.one_of(st.just(size), st.integers(max(1, size // 2), size + 1), st.integers(1, size)))
        for name, size in sizes.items()
    }
    slots = {name: draw(st.integers(1, 3)) for name in SLOTS}
    order = "".join(draw(st.permutations("cnhw")))
    return replace(row, **tiles, **slots, order=order, keep=draw(st.booleans()), whole_params=draw(st.booleans()))


@given(st.data(), st.sampled_from(NAMES))
@settings(
    max_examples=examples(30), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_bits_do_not_depend_on_the_schedule(data: st.DataObject, name: str) -> None:
    module, values, expected, chosen = case(name)
    schedule = Schedule("tiny", tuple(data.draw(altered(row)) for row in chosen.kernels))
    tiles: list[tuple[np.ndarray, ...]] = []

    def after(step: str, module: ModuleOp) -> None:
        if step == "tile-kernels":
            tiles.append(run_tile(module, values))

    try:
        compiled = compile_module(module.clone(), TINY, Options(schedule=schedule), Stopwatch(after))
    except ScheduleError:
        assume(False)
        return
    outputs = run(compiled.binary, [torch.from_numpy(v) for v in values]).outputs
    assert_same(tiles[0], expected, "tiles")
    assert_same(outputs, expected, "binary")
