"""Arrows point down only: quartic -> {quantizer, compiler, runtime} -> isa."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "isa": {"isa", "numpy"},
    "runtime": {"runtime", "isa", "numpy", "torch"},
    "runtime/loops": {"runtime", "isa", "numpy", "numba", "llvmlite"},
    "runtime/report": {"runtime", "isa", "numpy", "jinja2"},
    "compiler": {"compiler", "isa", "numpy", "xdsl", "networkx", "scipy"},
    "compiler/frontend": {"compiler", "isa", "numpy", "xdsl", "networkx", "scipy", "torch"},
    "quantizer": {"quantizer", "isa", "numpy", "torch", "torchao"},
}
"""Folder -> what its files may import besides the standard library; the longest matching folder counts."""

OURS = {"isa", "runtime", "compiler", "quantizer", "quartic", "benchmarks", "tests"}


@cache
def nodes(source: str) -> list[ast.AST]:
    """Every import of ``source``, which is parsed once for all tests."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, also those inside of functions."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def rule(path: Path) -> set[str]:
    """What ``path`` may import."""
    name = path.relative_to(ROOT).as_posix()
    return ALLOWED[max((folder for folder in ALLOWED if name.startswith(f"{folder}/")), key=len)]


def violations(path: Path) -> list[str]:
    allowed = rule(path) | sys.stdlib_module_names
    name = path.relative_to(ROOT)
    return [
        f"{name}:{line} imports {package}; allowed are {', '.join(sorted(rule(path)))}"
        for line, package in imports(path.read_text())
        if package not in allowed
    ]


@pytest.mark.parametrize("package", [name for name in ALLOWED if "/" not in name])
def test_packages_import_only_what_lies_below_them(package):
    assert files(package)
    assert [line for path in files(package) for line in violations(path)] == []


def test_nothing_imports_the_face_but_its_users():
    below = [path for package in ("isa", "runtime", "compiler", "quantizer") for path in files(package)]
    users = [path for path in below for _, name in imports(path.read_text()) if name in {"quartic", "benchmarks"}]
    assert users == []


@pytest.mark.slow
def test_the_product_does_not_import_its_tests():
    product = [path for package in OURS - {"tests"} for path in files(package)]
    assert [path for path in product for _, name in imports(path.read_text()) if name == "tests"] == []


@pytest.mark.slow
def test_relative_imports_are_not_used():
    """They would hide an arrow from this test."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in OURS
        for path in files(package)
        for node in nodes(path.read_text())
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert found == []


def test_every_package_has_a_rule_or_stands_on_top():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests"} == {name for name in ALLOWED if "/" not in name} | {"quartic", "benchmarks"}


def test_imports_inside_of_functions_count():
    source = "def f():\n    import torch.nn as nn\n    from isa.x import y\n    from . import z\n"
    assert list(imports(source)) == [(2, "torch"), (3, "isa")]
