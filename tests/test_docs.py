"""The documents' Python runs, and what they print is what they show."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quartic.cli import main

ROOT = Path(__file__).parents[1]
RUN = (
    "docs/api.md",
    "docs/guide/01-first-model.md",
    pytest.param("docs/guide/02-depth-and-transformers.md", marks=pytest.mark.slow),
    pytest.param("docs/guide/03-choosing-a-recipe.md", marks=pytest.mark.slow),
    "docs/tutorials/how-a-convolution-becomes-instructions.md",
    "docs/tutorials/attention-in-one-kernel.md",
    pytest.param("docs/tutorials/depth-anything-to-a-chip.md", marks=pytest.mark.slow),
    pytest.param("docs/tutorials/choosing-widths.md", marks=pytest.mark.slow),
)
GENERATED = ("docs/api.md",)
"""Whose text is in docstrings: `make golden` writes it before these tests run."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text and the line that it starts on."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in BLOCK.finditer(text)]


def run(block: Block, name: str, namespace: dict[str, Any]) -> str:
    """What the code of ``block`` prints; blank lines keep the document's line numbers, in FX locations too."""
    source = "\n" * (block.line - 1) + block.text
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        exec(compile(source, name, "exec"), namespace)
    return stream.getvalue()


def console(block: Block) -> str:
    """What the commands of ``block``, each behind a ``$``, print on standard output; refusals exit with 1."""
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        for line in block.text.splitlines():
            prompt, name, *arguments = shlex.split(line)
            assert (prompt, name) == ("$", "quartic")
            code: object = 0
            try:
                main(arguments)
            except SystemExit as stop:
                code = stop.code
            assert code in (None, 0, 1), f"{line} fails"
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_document_runs_and_prints_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks share one namespace; a ``text`` block holds exactly what the block before it prints."""
    path = ROOT / name
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed, actual = "", []
    for block in blocks(path):
        if block.language == "python":
            printed = run(block, path.name, namespace)
        elif block.language == "console":
            printed = console(block)
        actual.append(printed if block.language == "text" else block.text)
    if "QUARTIC_UPDATE_GOLDEN" in os.environ and name not in GENERATED:
        texts = iter(actual)
        path.write_text(BLOCK.sub(lambda m: f"```{m[1]}\n{next(texts)}```", path.read_text()))
    for block, text in zip(blocks(path), actual, strict=True):
        assert text == block.text, f"{name}:{block.line} shows something else than its code prints"


def documents() -> list[str]:
    """Every Markdown file of the project, relative to its root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    broken = [target for target in targets if not (path.parent / target).exists()]
    assert broken == []
