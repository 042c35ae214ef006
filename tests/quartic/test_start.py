"""Starting is fast because nothing heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "xdsl", "numpy", "numba", "rich", "networkx")


@pytest.mark.parametrize("module", ["quartic", "quartic.cli"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "quartic", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: quartic [OPTIONS] COMMAND" in done.stdout
