"""The tile interpreter sees wrong loops, rings and halos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, i64

from compiler.dialects.tile import ChannelOp, ForOp, KernelOp, LoadOp, ScheduleAttr, StoreOp
from compiler.interpreter.qnn import run_qnn
from compiler.interpreter.tile import logical, run_tile
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from compiler.passes.tile_kernels import tile_kernels
from isa.errors import InputError, SimulationError
from isa.machine import Machine
from tests.bits import assert_same
from tests.compiler.kern_graphs import conv, graph, inputs, q

TINY = Machine.load("tiny")
SHAPE = (1, 3, 40, 40)


@pytest.fixture(scope="module")
def case() -> tuple[ModuleOp, list[np.ndarray], np.ndarray]:
    module = graph([SHAPE], lambda x: conv(q(x), 8, 3))
    values = inputs(module, 3.0)
    (expected,) = run_qnn(module, values)
    fuse_kernels(module)
    materialize_copies(module)
    tile_kernels(module, TINY, share_loops=False)
    return module, values, expected


def kernel(module: ModuleOp) -> KernelOp:
    """The convolution's."""
    return [op for op in module.walk() if isinstance(op, KernelOp)][-1]


def first(module: ModuleOp, kind: type):
    return next(op for op in kernel(module).steps.walk() if isinstance(op, kind))


def test_a_tiled_kernel_computes_the_same_bits(case):
    module, values, expected = case
    assert first(module, ForOp).size.value.data == 40
    assert_same(run_tile(module, values), [expected])


def test_a_loop_that_ends_early_leaves_rows_out(case):
    module, values, expected = case
    broken = module.clone()
    first(broken, ForOp).size = IntegerAttr(20, i64)
    (actual,) = run_tile(broken, values)
    assert np.array_equal(actual[:, :, :20], expected[:, :, :20])
    assert not actual[:, :, 20:].any()


def test_a_missing_load_is_an_error(case):
    module, values, _ = case
    broken = module.clone()
    load = first(broken, LoadOp)
    load.detach()
    load.erase()
    with pytest.raises(SimulationError, match="which no slot of its ring holds"):
        run_tile(broken, values)


def test_a_load_behind_its_use_is_an_error(case):
    module, values, _ = case
    broken = module.clone()
    store = first(broken, StoreOp)
    store.detach()
    loop = first(broken, ForOp)
    loop.body.block.insert_op_before(store, loop.body.block.first_op)
    with pytest.raises(SimulationError, match=r"^tile\.store uses "):
        run_tile(broken, values)


def test_a_loop_over_another_dimension_is_not_the_same(case):
    module, values, expected = case
    broken = module.clone()
    first(broken, ForOp).dim = StringAttr("c")
    try:
        (actual,) = run_tile(broken, values)
    except (SimulationError, ValueError):
        return
    assert not np.array_equal(actual, expected)


def test_rings_of_any_depth_hold_the_same(case):
    module, values, expected = case
    deep = module.clone()
    for ring in (op for op in deep.walk() if isinstance(op, ChannelOp)):
        ring.slots = IntegerAttr(5, i64)
    target = kernel(deep)
    target.schedule = ScheduleAttr(replace(target.schedule.data, input_slots=5, output_slots=5))
    assert_same(run_tile(deep, values), [expected])


def test_inputs_of_another_shape_are_refused(case):
    module, values, _ = case
    with pytest.raises(InputError, match=r"input 0 must be float32\[1, 3, 40, 40\]"):
        run_tile(module, [values[0][:, :2]])


def test_logical_undoes_the_storage_order():
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert np.array_equal(logical(image.transpose(0, 2, 3, 1).copy(), image.shape), image)
    assert np.array_equal(logical(image.reshape(2, 1, 12, 5), (2, 12, 5)), image.reshape(2, 12, 5))
