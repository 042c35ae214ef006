"""A sum takes the place of the residual that it reads last; whatever is read otherwise or later keeps its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from xdsl.ir import SSAValue

from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.memory import plan_memory, resident_bytes
from compiler.analysis.overwrite import overwrites
from compiler.analysis.residency import choose
from compiler.dialects import qnn
from compiler.interpreter.qnn import run_qnn
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.pipeline import Options, compile_module
from isa.machine import Machine
from runtime.session import run
from tests.bits import assert_same
from tests.compiler.kern_graphs import add, const, dq, graph, inputs, q, weights

TINY = Machine.load("tiny")


def linear(x: SSAValue) -> SSAValue:
    return qnn.LinearOp(x, weights(16, 16), const(16, scale=0.01)).output


def stream(x: SSAValue) -> SSAValue:
    """Two residual sums, one after the other."""
    first = q(x)
    second = q(add(linear(first), dq(q(x))))
    third = q(add(linear(q(linear(second))), dq(second)))
    return dq(q(add(linear(q(linear(third))), dq(third))))


def read_later(x: SSAValue) -> SSAValue:
    a = q(linear(q(x)))
    b = q(add(linear(q(linear(a))), dq(a)))
    return add(dq(q(linear(b))), dq(a))


def also_a_factor(x: SSAValue) -> SSAValue:
    """The sum's own product reads all channels of what it would overwrite."""
    a = q(linear(q(x)))
    return dq(q(linear(q(add(linear(a), dq(a))))))


def kernels(body: object) -> KernelGraph:
    module = graph([(6, 16)], body)
    fuse_kernels(module)
    materialize_copies(module)
    return build_graph(module)


def test_a_sum_overwrites_the_residual_that_it_reads_last():
    found = kernels(stream)
    pairs = overwrites(found)
    assert pairs
    for new, old in pairs.items():
        step = found.steps[found.storages[new].first]
        assert found.storages[old].last == step.index
        assert found.storages[old].bytes == found.storages[new].bytes


@pytest.mark.parametrize("body", [read_later, also_a_factor])
def test_what_is_needed_otherwise_is_not_overwritten(body: object):
    found = kernels(body)
    for new, old in overwrites(found).items():
        step = found.steps[found.storages[new].first]
        anchor = step.spec.anchor
        assert found.storages[old].last == step.index
        assert found.placed[step.values[anchor.act]].storage.index != old
    sums = [s for s in found.steps if len(s.spec.program.streams) > 1]
    assert any(found.placed[s.op.output].storage.index not in overwrites(found) for s in sums)


def test_the_pair_has_one_address_and_its_bytes_count_once():
    found = kernels(stream)
    schedule = choose(found, TINY)
    kept = replace(schedule, kernels=tuple(replace(k, keep=True) for k in schedule.kernels))
    plan = plan_memory(found, kept, TINY)
    alone = [0] * len(found.steps)
    for storage in found.storages:
        if storage.index in plan.resident:
            for i in range(storage.first, storage.last + 1):
                alone[i] += -(-storage.bytes // 64) * 64
    pairs = {new: old for new, old in overwrites(found).items() if {new, old} <= plan.resident}
    assert pairs
    for new, old in pairs.items():
        assert plan.storages[new] == plan.storages[old]
    saved = sum(alone) - sum(resident_bytes(found, plan.resident))
    assert saved == sum(-(-found.storages[new].bytes // 64) * 64 for new in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["tiny", "edge28"])
def test_the_binary_gives_the_bits_of_the_graph(machine: str):
    module = graph([(6, 16)], stream)
    arrays = inputs(module)
    want = run_qnn(module, arrays)
    compiled = compile_module(module, Machine.load(machine), Options())
    assert compiled.memory.resident
    assert_same(run(compiled.binary, [torch.from_numpy(a) for a in arrays]).outputs, want)
