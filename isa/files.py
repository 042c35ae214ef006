"""Files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from isa.errors import InputError


def check_place(path: Path) -> None:
    """Raise InputError where ``path`` cannot become a file."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a device or a pipe, which a file would replace; give the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; create {path.parent} first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: its folder cannot be written to; choose another place")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary path beside ``path`` (same suffix) that becomes it when the block succeeds, else vanishes."""
    check_place(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the result the permissions an ordinary new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` whole or not at all, so that an interrupted run leaves no half file. Raises InputError."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
