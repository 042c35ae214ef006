"""What is remembered is what a search would find."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.analysis import schedule_cache
from compiler.analysis.schedule_cache import ScheduleCache, work_of
from compiler.analysis.tile_search import choose_schedule
from compiler.ir.kernel import MatrixAnchor, Stream, VectorOp, VectorProgram
from isa.instructions import DType, Func, Operand
from tests.compiler.test_tile_search import EDGE, NOWHERE, TINY, convolution, kernels


@pytest.mark.slow
@given(kernels(), st.sampled_from([TINY, EDGE]), st.lists(st.integers(0, 16), min_size=2, max_size=6))
def test_every_budget_has_the_choice_of_its_own_search(spec, machine, sixteenths):
    cache = ScheduleCache(machine, 2)
    for part in sixteenths:
        budget = machine.sram.bytes * part // 16
        assert cache.choose(spec, ("n",), NOWHERE, budget) == choose_schedule(spec, ("n",), NOWHERE, machine, budget)


@given(kernels())
def test_a_kernel_of_another_name_gets_its_own_rows(spec):
    cache, other = ScheduleCache(TINY, 2), replace(spec, name="other")
    cache.choose(spec, ("n",), NOWHERE, TINY.sram.bytes)
    found = cache.choose(other, ("m",), NOWHERE, TINY.sram.bytes)
    assert found == choose_schedule(other, ("m",), NOWHERE, TINY, TINY.sram.bytes)
    assert found is not None
    assert (found[0].kernel, found[0].nodes) == ("other", ("m",))


def test_a_shape_is_searched_once():
    cache, spec = ScheduleCache(TINY, 2), convolution(8, 8, 8, 3)
    with patch.object(schedule_cache, "choose_schedule", wraps=choose_schedule) as search:
        for name in "abc":
            cache.choose(replace(spec, name=name), (name,), NOWHERE, TINY.sram.bytes)
    assert search.call_count == 1


def test_work_is_neither_names_nor_numbers():
    spec = convolution(8, 8, 8, 3)
    assert isinstance(spec.anchor, MatrixAnchor)
    codes = Stream(None, DType.I32, 3, 0.5)
    same = replace(
        spec,
        name="other",
        anchor=replace(spec.anchor, zero_act=7),
        program=replace(spec.program, streams=(codes,), zero=1, inverse_scale=2.0),
    )
    assert work_of(same) == work_of(spec)


def test_work_counts_what_costs():
    spec = convolution(8, 8, 8, 3)
    assert isinstance(spec.anchor, MatrixAnchor)
    longer = VectorProgram(spec.program.streams, (VectorOp(Func.ADD, 0, 0, Operand.REGISTER, 0),), DType.I8)
    scaled = replace(spec.program, params=(np.ones(8, np.float32),))
    for other in (
        replace(spec, output=(1, 8, 8, 16)),
        replace(spec, anchor=replace(spec.anchor, weight_zeros=(1,) * 8)),
        replace(spec, anchor=replace(spec.anchor, groups=2)),
        replace(spec, program=longer),
        replace(spec, program=scaled),
        replace(spec, program=replace(spec.program, output=DType.F32)),
    ):
        assert work_of(other) != work_of(spec)
