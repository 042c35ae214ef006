"""The tables next to the instruction table have a row for each instruction and no other."""

import pytest

from compiler.interpreter import vector
from isa.access import ACCESSES
from isa.assembler import mnemonics
from isa.cost import COSTS
from isa.encoding import Engine
from isa.energy import EVENT_COMPONENT, Event
from isa.instructions import INSTRUCTIONS, Func
from isa.state import SETTERS, State
from runtime.functional import SEMANTICS
from runtime.timing import ENGINE_INDEX

CLASSES = set(INSTRUCTIONS.values())


def names(classes) -> set[str]:
    return {cls.mnemonic for cls in classes}


@pytest.mark.parametrize(
    "table",
    [COSTS, ACCESSES, SEMANTICS, ENGINE_INDEX, set(mnemonics().values())],
    ids=["costs", "accesses", "semantics", "engines", "assembler"],
)
def test_each_table_has_exactly_the_instructions_as_keys(table):
    assert names(table) == names(CLASSES)
    assert len(table) == len(CLASSES)


def test_setters_cover_every_sticky_register():
    """A setter changes a fresh state's registers, and only setters do."""
    assert set(SETTERS) < CLASSES
    for cls in CLASSES:
        changed = {
            row.name: row.bits.range.stop - 1 for row in cls.layout()[4:] if not row.enum and not row.bits.is_float
        }
        for bank in ("id", "axis", "index"):
            changed.pop(bank, None)
        changed |= {row.name: 2.0 for row in cls.layout()[4:] if row.bits.is_float}
        before, after = State(), State()
        after.apply(cls(**changed))
        differs = any(getattr(before, slot) != getattr(after, slot) for slot in State.__slots__)
        assert differs == (cls in SETTERS), cls.mnemonic


def test_every_energy_event_belongs_to_a_component():
    assert set(EVENT_COMPONENT) == set(Event)


def test_every_vector_function_has_its_semantics():
    assert sorted({*vector.FUNCTIONS, *vector.UNARY, Func.SELECT}) == sorted(Func)


def test_mnemonics_begin_with_their_engine():
    for cls in CLASSES:
        if cls.engine is not Engine.DISPATCH:
            assert cls.mnemonic.startswith(f"{cls.engine.value}.")
