"""Schedules that come back, determinism, locations, and what the options change."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
from xdsl.dialects.builtin import ModuleOp

from compiler.dialects import qnn
from compiler.ir.schedule import Schedule
from compiler.pipeline import Compiled, Options, compile_module
from isa.errors import ScheduleError
from isa.machine import Machine
from isa.program import decode
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, dq, graph, q

TINY = Machine.load("tiny")
ALL = {name: case for name, case in {**GRAPHS, **CASES}.items() if not name.endswith("_batch")}


@cache
def source(name: str) -> ModuleOp:
    """The qnn module of a graph; weights are drawn once."""
    return graph(*ALL[name])


@cache
def compiled(name: str, options: Options = Options()) -> Compiled:  # noqa: B008 (frozen)
    return compile_module(source(name).clone(), TINY, options)


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ALL)
def test_a_schedule_given_back_makes_the_same_bytes(name):
    first = compiled(name)
    schedule = Schedule.from_toml(first.schedule.to_toml())
    assert schedule == first.schedule
    second = compiled(name, Options(schedule=schedule))
    assert second.schedule == first.schedule
    assert second.binary.to_bytes() == first.binary.to_bytes()


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ["residual", "zoo", "attention", "views_of_input", "gate"])
@pytest.mark.parametrize("options", [Options(fuse=False), Options(double_buffer=False)], ids=["alone", "single"])
def test_a_schedule_says_all_that_the_options_said(name, options):
    first = compiled(name, options)
    second = compiled(name, Options(schedule=first.schedule))
    assert second.binary.to_bytes() == first.binary.to_bytes()


@pytest.mark.parametrize("name", ALL)
def test_every_instruction_has_a_location(name):
    binary = compiled(name).binary
    assert sum(count for count, _ in binary.spans) == len(decode(binary.code))
    assert all(0 <= index < len(binary.locations) for _, index in binary.spans)
    assert all(location.node for location in binary.locations)


def test_locations_of_a_network_name_module_and_line():
    for location in compiled("zoo").binary.locations[:-1]:
        assert location.module.startswith("m.")
        assert location.source.startswith("model.py:")


def test_the_multiplications_of_a_convolution_are_counted_once():
    counted = {options: compiled("residual", options).binary for options in (Options(), Options(fuse=False))}
    totals = {sum(location.macs for location in binary.locations) for binary in counted.values()}
    # Batch 2 on 9 x 8: 3 to 8 channels, 3 x 3; twice 8 to 8 (one depthwise), 3 x 3; 8 to 8, 1 x 1.
    assert totals == {2 * 9 * 8 * (8 * 3 * 9 + 8 * 8 * 9 + 8 * 9 + 8 * 8)}


def test_single_slots_everywhere_without_double_buffering():
    for kernel in compiled("zoo", Options(double_buffer=False)).schedule.kernels:
        assert {kernel.input_slots, kernel.stream_slots, kernel.output_slots} == {1}


def test_without_fusion_there_are_more_kernels():
    fused, alone = compiled("zoo"), compiled("zoo", Options(fuse=False))
    assert len(alone.schedule.kernels) > len(fused.schedule.kernels)


def test_stages_are_timed_in_order():
    assert list(compiled("gate").seconds) == ["legalize", "fuse", "tile", "plan", "emit"]


DIGEST = """
import hashlib
from compiler.pipeline import Options, compile_module
from isa.machine import Machine
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, graph
for name in ("zoo", "attention", "nested_concat"):
    compiled = compile_module(graph(*{**GRAPHS, **CASES}[name]), Machine.load("tiny"), Options())
    print(name, hashlib.sha256(compiled.binary.to_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_bytes_depend_on_no_process_and_no_hash_seed():
    path = os.pathsep.join(p for p in sys.path if p)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "4242")
    ]
    first, second = (run.communicate()[0] for run in runs)
    assert len(first.splitlines()) == 3
    assert first == second


def refused(name: str, schedule: Schedule) -> str:
    with pytest.raises(ScheduleError) as caught:
        compiled(name, Options(schedule=schedule))
    return str(caught.value)


def edited(schedule: Schedule, kernel: str, **changes: object) -> Schedule:
    return replace(
        schedule, kernels=tuple(replace(k, **changes) if k.kernel == kernel else k for k in schedule.kernels)
    )


def test_a_schedule_for_another_machine():
    schedule = replace(compiled("gate").schedule, machine="edge28")
    assert refused("gate", schedule) == "the schedule is for machine 'edge28', not 'tiny'"


def test_a_schedule_that_lacks_a_kernel():
    schedule = compiled("gate").schedule
    last = schedule.kernels[-1].kernel
    assert refused("gate", replace(schedule, kernels=schedule.kernels[:-1])) == f"the schedule lacks kernel {last!r}"


def test_a_schedule_with_a_kernel_too_many():
    schedule = compiled("gate").schedule
    extra = replace(schedule.kernels[0], kernel="stranger", nodes=())
    expected = "the schedule has kernel 'stranger', which the model does not"
    assert refused("gate", replace(schedule, kernels=(*schedule.kernels, extra))) == expected


def test_a_tile_that_overflows_the_accumulators():
    alone = compiled("deep", Options(share_loops=False))
    schedule = edited(alone.schedule, "n1", tile_h=9, tile_w=8, tile_c=2048, output_slots=1)
    text = refused("deep", schedule)
    assert text.startswith("kernel 'n1': tile of 9 x 8 x 2048 with 1 slots needs 589824 bytes of accumulators, ")
    assert text.endswith("tiny has 16384: make the tile smaller")


def test_rings_that_overflow_the_sram():
    schedule = edited(compiled("deep").schedule, "n3", input_slots=999)
    text = refused("deep", schedule)
    assert text.startswith("kernel 'n3': its rings need ")
    assert "are left beside the tensors that stay: use smaller tiles, fewer slots, or keep = false" in text


def test_part_of_a_reduction_over_several_groups():
    name = compiled("grouped").schedule.kernels[-1].kernel  # 9 inputs and 6 outputs per group
    schedule = edited(compiled("grouped").schedule, name, tile_c=24, tile_k=1)
    assert refused("grouped", schedule).startswith(f"kernel {name!r}: tile_c = 24 spans groups")


def test_part_of_a_tensor_that_a_copy_moves():
    name = next(k.kernel for k in compiled("pads").schedule.kernels if (k.tile_h, k.tile_w) == (13, 10))
    text = refused("pads", edited(compiled("pads").schedule, name, tile_h=2))
    assert text.startswith(
        f"kernel {name!r}: it moves elements across the whole tensor, so its tile must be 13 x 10 x "
    )


def test_nodes_that_cannot_be_one_kernel():
    schedule = compiled("residual").schedule
    first, second = schedule.kernels[0], schedule.kernels[1]
    joined = replace(first, nodes=(*first.nodes, *second.nodes))
    text = refused("residual", replace(schedule, kernels=(joined, *schedule.kernels[2:])))
    assert "cannot be fused with" in text


def test_a_split_kernel_computes_alone():
    schedule = compiled("residual").schedule
    wide = next(k for k in schedule.kernels if len(k.nodes) > 1)
    head = replace(wide, nodes=wide.nodes[:1])
    with pytest.raises(ScheduleError, match="the schedule lacks kernel"):
        compiled("residual", Options(schedule=edited(schedule, wide.kernel, nodes=head.nodes)))


def test_what_fits_no_machine_says_so():
    filled = graph([(1, 3, 300, 200)], lambda x: dq(qnn.PadOp(q(x), (0, 0, 1, 1, 0, 0, 0, 0)).output))
    with pytest.raises(ScheduleError, match=r"^kernel 'n1' \(node n1, module m.1, .*\) .* does not fit tiny \(65536 "):
        compile_module(filled, TINY, Options())
