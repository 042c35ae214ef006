"""Whole binaries: inputs checked, programs checked, outputs, cycles and energy."""

import pytest
import torch

from isa.container import Binary, Location, TensorInfo
from isa.encoding import Instruction
from isa.errors import AccessError, DeadlockError, InputError, RaceError, SimulationError, UninitialisedError
from isa.instructions import (
    DType,
    Func,
    Halt,
    LoadCopy,
    MmuInput,
    MmuOutput,
    MmuRun,
    Region,
    StoreCopy,
    VcuConvert,
    VcuOp,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuSync,
)
from isa.machine import Machine
from isa.program import encode
from runtime import session
from runtime.session import run, run_timing
from runtime.timing import simulate_time

LAYER = Location("copy_kernel", "copy", "net.copy", "net.py:7", 0)
END = Location("", "overhead:halt", "", "")
LOAD = LoadCopy(region=Region.INPUT, sram=0, bytes=8, signal_a=1)
COPY = [VcuShape(n2=8), VcuRun(a=0, dst=64, wait_a=1, signal_a=2)]
STORE = StoreCopy(region=Region.OUTPUT, sram=64, bytes=8, wait_a=2)
X = torch.arange(-4, 4).to(torch.int8).view(2, 4)


def binary(*program: Instruction) -> Binary:
    """A binary that copies its int8 [2, 4] input, or runs ``program``."""
    program = program or (LOAD, *COPY, STORE)
    return Binary(
        Machine.load("tiny"),
        encode([*program, Halt()]),
        b"",
        (TensorInfo("x", (2, 4), DType.I8, 0),),
        (TensorInfo("y", (2, 4), DType.I8, 0),),
        8,
        8,
        0,
        (LAYER, END),
        ((len(program), 0), (1, 1)),
        {},
    )


def test_outputs_and_profile_of_a_run():
    found = run(binary(), [X])
    assert torch.equal(found.outputs[0], X)
    assert found.cycles == found.profile.cycles > 0
    assert found.seconds == found.cycles / 1e9
    assert found.joules > 0


def test_timing_alone_has_the_cycles_of_a_run():
    assert run_timing(binary()).cycles == run(binary(), [X]).cycles
    assert run_timing(binary()).outputs == ()


def test_time_is_simulated_once_and_only_if_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(session, "simulate_time", lambda *a: asked.append(a) or simulate_time(*a))
    found = run(binary(), [X])
    assert asked == []
    assert found.cycles == found.profile.cycles
    assert len(asked) == 1


def test_a_later_run_does_not_change_earlier_outputs():
    program = binary()
    first = run(program, [X]).outputs[0]
    second = run(program, [X + 1]).outputs[0]
    assert torch.equal(first, X)
    assert torch.equal(second, X + 1)


def test_inputs_need_not_be_contiguous():
    x = X.t().contiguous().t()
    assert not x.is_contiguous()
    assert torch.equal(run(binary(), [x]).outputs[0], X)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], r"0 inputs given: must be 1 \(x\)"),
        ([X, X], r"2 inputs given: must be 1"),
        ([X.t()], r"input 'x' has shape \(4, 2\): must be \(2, 4\)"),
        ([X.float()], r"input 'x' is torch.float32: must be torch.int8"),
        ([X.numpy()], r"input 'x' is a ndarray: must be a torch.Tensor"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, message):
    with pytest.raises(InputError, match=message):
        run(binary(), inputs)


def test_a_race_names_instructions_and_their_source():
    program = binary(LOAD, COPY[0], COPY[1].with_sync(wait_a=0), STORE)
    for _ in range(2):  # the remembered verdict is raised again
        with pytest.raises(RaceError, match=r"instruction 2 \(vcu.run\) of copy, net.copy, net.py:7 reads SRAM"):
            run(program, [X])
    assert torch.equal(run(program, [X], checks=False).outputs[0], X)


def test_a_deadlock_is_found_before_anything_runs():
    with pytest.raises(DeadlockError, match=r"VCU is blocked at instruction 0 \(vcu.sync\) of copy"):
        run(binary(VcuSync(wait_a=9)), [X])


def test_a_read_of_unwritten_bytes_is_an_error():
    with pytest.raises(UninitialisedError, match=r"instruction 1 \(vcu.run\) of copy.* reads SRAM \[0x0, 0x8\)"):
        run(binary(COPY[0], COPY[1].with_sync(wait_a=0)), [X])


def test_an_output_that_is_not_stored_is_an_error():
    short = StoreCopy(region=Region.OUTPUT, sram=64, bytes=5, wait_a=2)
    with pytest.raises(UninitialisedError, match=r"output 'y': no instruction wrote OUTPUT address 0x5"):
        run(binary(LOAD, *COPY, short), [X])


@pytest.mark.parametrize("checks", [True, False])
def test_an_access_outside_is_an_error_with_and_without_checks(checks):
    outside = LoadCopy(region=Region.INPUT, sram=0, bytes=9)
    with pytest.raises(AccessError, match=r"instruction 0 \(load.copy\) of copy, net.copy, net.py:7.* 0x8"):
        run(binary(outside), [X], checks=checks)


def test_a_store_to_a_read_only_region_is_an_error():
    with pytest.raises(AccessError, match=r"instruction 0 .* INPUT is read-only"):
        run(binary(StoreCopy(region=Region.INPUT, bytes=1)), [X])


def test_a_kept_zero_is_the_same_in_every_run():
    """One element of no stream: the zero of an unwritten register, which the conversion may not change."""
    setup = VcuConvert(id=7, zero=5), VcuStream(id=7, stride2=1), VcuShape(n2=1)
    runs = [VcuRun(streams=0, dst=i, signal_a=int(i == 7)) for i in range(8)]
    program = binary(*setup, *runs, StoreCopy(region=Region.OUTPUT, bytes=8, wait_a=1))
    assert [run(program, [X]).outputs[0].unique().tolist() for _ in range(3)] == [[5]] * 3


@pytest.mark.parametrize(
    "huge",
    [
        [MmuInput(height=65535, width=65535, channels=65535), MmuOutput(height=65535, width=65535), MmuRun(n=16383)],
        [VcuShape(n0=65535, n1=65535, n2=65535), VcuOp(func=Func.TANH), VcuRun(count=63)],
    ],
    ids=["mmu", "vcu"],
)
def test_a_run_larger_than_any_memory_is_an_error_of_time_too(huge):
    with pytest.raises(SimulationError, match="no run within the memories"):
        _ = run_timing(binary(*huge)).profile
    with pytest.raises(SimulationError, match=r"ends at|no instruction before it wrote"):
        run_timing(binary(*huge), checks=True)


def test_a_vector_run_may_write_where_it_reads_only_element_by_element():
    in_place = [VcuShape(n2=8), VcuRun(a=0, dst=0, wait_a=1, signal_a=2)]
    store = StoreCopy(region=Region.OUTPUT, sram=0, bytes=8, wait_a=2)
    assert torch.equal(run(binary(LOAD, *in_place, store), [X]).outputs[0], X)
    shifted = [VcuShape(n2=7), VcuRun(a=0, dst=1, wait_a=1, signal_a=2)]
    message = r"instruction 2 \(vcu.run\) .* writes SRAM \[0x1, 0x8\), of which it also reads 0x1..0x6 in SRAM"
    with pytest.raises(AccessError, match=message):
        run(binary(LOAD, *shifted, store), [X])


def test_without_checks_every_run_starts_with_cleared_memories():
    """The vector run reads what only a later load writes: zeros, in the second run too."""
    late = [*COPY[:1], VcuRun(a=0, dst=64, signal_a=2), STORE, LoadCopy(region=Region.INPUT, sram=0, bytes=8)]
    for _ in range(2):
        assert not run(binary(*late), [X], checks=False).outputs[0].any()
    with pytest.raises(SimulationError):
        run(binary(*late), [X])
