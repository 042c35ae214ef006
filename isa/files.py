"""Text files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from isa.errors import InputError


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` whole or not at all, so that an interrupted run leaves no half file. Raises InputError."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; create {path.parent} first")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
