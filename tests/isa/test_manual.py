"""The generated manual."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from isa.encoding import INSTRUCTIONS
from isa.manual import manual

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "isa.md"


def test_the_page_is_fresh():
    assert PAGE.read_text() == manual(), "docs/isa.md is stale; run `make golden`"


@pytest.mark.slow
def test_the_module_prints_the_page():
    command = [sys.executable, "-m", "isa.manual"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout == manual()


@pytest.mark.slow
def test_the_module_writes_the_page_where_it_is_told(tmp_path):
    subprocess.run([sys.executable, "-m", "isa.manual", tmp_path / "isa.md"], cwd=ROOT, check=True)
    assert (tmp_path / "isa.md").read_text() == manual()


@pytest.mark.parametrize("cls", INSTRUCTIONS.values(), ids=lambda cls: cls.mnemonic)
def test_every_instruction_has_an_entry_with_its_fields_and_cost(cls):
    entry = manual().split(f"### `{cls.mnemonic}`\n")[1].split("\n##")[0]
    assert f"Opcode `{cls.opcode:#04x}`." in entry
    assert " ".join(cls.__doc__.split()) in " ".join(entry.replace("\\*", "*").split())
    assert re.findall(r"^\| `(\w+)`", entry, re.M) == [row.name for row in cls.layout()[4:]]
    assert "Cost: " in entry


def test_links_lead_to_headings():
    text = manual()
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", text, re.M)}
    assert set(re.findall(r"\(#(\w+)\)", text)) <= headings


def test_tables_have_as_many_cells_as_columns():
    for table in re.findall(r"(?:^\|.*\n)+", manual(), re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
