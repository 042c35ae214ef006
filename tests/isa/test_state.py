"""Sticky registers."""

from isa.encoding import INSTRUCTIONS
from isa.instructions import MmuInput, MmuRun, VcuConvert, VcuOp, VcuRun, VcuStream
from isa.state import SETTERS, State

ACTIONS = {"load.copy", "load.tile", "store.copy", "store.tile", "mmu.run", "vcu.run", "halt"}


def test_registers_start_at_the_class_defaults():
    state = State()
    assert state.mmu_input == MmuInput()
    assert state.vcu_streams[7] == VcuStream(id=7)
    assert state.vcu_ops[63] == VcuOp(slot=63)


def test_every_instruction_either_sets_up_or_acts():
    setups = {cls.mnemonic for cls in SETTERS}
    rest = {cls.mnemonic for cls in INSTRUCTIONS.values()} - setups
    assert rest == ACTIONS | {f"{engine}.sync" for engine in ("load", "store", "mmu", "vcu")}


def test_a_later_setup_replaces_an_earlier_one():
    state = State()
    assert state.apply(MmuInput(height=3))
    assert state.apply(MmuInput(width=5))
    assert state.mmu_input == MmuInput(width=5)


def test_streams_conversions_and_ops_are_held_per_id():
    state = State()
    for setup in (VcuStream(id=1, stride0=8), VcuConvert(id=7, zero=3), VcuOp(slot=2, dst=5)):
        assert state.apply(setup)
    assert (state.vcu_streams[1].stride0, state.vcu_streams[0].stride0) == (8, 0)
    assert (state.vcu_converts[7].zero, state.vcu_converts[1].zero) == (3, 0)
    assert state.program(1, 2) == (VcuOp(slot=1), VcuOp(slot=2, dst=5))


def test_actions_do_not_change_the_state():
    assert not State().apply(MmuRun())
    assert not State().apply(VcuRun())


def test_a_program_never_reaches_past_the_last_slot():
    assert len(State().program(60, 20)) == 4
