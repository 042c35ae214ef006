"""Collect ``*.mlir`` as pytest items: run their RUN lines in this process, without a start-up per test."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: the workers of `pytest -n` share the cores, and threads that wait for each other's
# turn on a busy core cost more than any of these small tensors gains.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options
from hypothesis import settings

from compiler.opt import main as opt
from tests.thinning import FEW, leave_out

# A busy machine is no failure: no example has to finish within 200 ms.
settings.register_profile("quartic", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=FEW)

MACROS = {
    "ROUNDTRIP": "quartic-opt %s --split-input-file --print-op-generic | quartic-opt --split-input-file | filecheck %s",
    "VERIFY_DIAG": "quartic-opt %s --verify-diagnostics --parsing-diagnostics --split-input-file | filecheck %s",
}
"""Whole RUN lines that many files share; the same are in filecheck/lit.cfg."""


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("fast" if "not slow" in config.option.markexpr else "quartic")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    leave_out(items)
    # All that take long are slow: whoever is handed one of them last is what the other workers wait for.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return MlirFile.from_parent(parent, path=file_path) if file_path.suffix == ".mlir" else None


class MlirFile(pytest.File):
    """A file of MLIR text with ``// RUN:`` lines."""

    def collect(self) -> Iterator[pytest.Item]:
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            if "// RUN:" in line:
                yield MlirTest.from_parent(self, name=f"line{number}", command=line.split("RUN:", 1)[1].strip())


class MlirTest(pytest.Item):
    """One RUN line: stages joined by `` | ``, each reading what the one before wrote."""

    def __init__(self, command: str, **kwargs: object):
        super().__init__(**kwargs)  # pyright: ignore[reportArgumentType]
        self.command = MACROS.get(command, command).replace("%s", str(self.path)).replace("%S", str(self.path.parent))

    def runtest(self) -> None:
        text = ""
        for stage in self.command.split(" | "):
            code, text = run_stage(stage, text)
            if code:
                raise AssertionError(f"{stage}\n{text}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return f"{self.command}\n{excinfo.value}"


def run_stage(stage: str, text: str) -> tuple[int, str]:
    """Exit code and output of ``quartic-opt``, ``not quartic-opt`` or ``filecheck`` with ``text`` as its stdin."""
    tool, *args = shlex.split(stage)
    expect_failure = tool == "not"
    if expect_failure:
        tool, *args = args
    out, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            if tool == "quartic-opt":
                code = opt(args)
            else:
                code = Matcher.from_opts(parse_argv_options(["filecheck", *args])).run()
    finally:
        sys.stdin = stdin
    return int(not code) if expect_failure else code, out.getvalue()
