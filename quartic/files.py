"""Files as a user meets them: written whole or not at all, and missing ones named clearly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from isa.errors import InputError


def writable(*paths: Path | None, reads: Collection[Path | str | None] = ()) -> None:
    """Raise InputError unless each path can become a file: asked before the work whose result it is to hold.

    No two may be one file, nor one of those that the command ``reads``, which it would lose.
    """
    named = [Path(str(each)) for each in reads if each is not None]
    named += [Path(str(each).rpartition(":")[0]) for each in reads]  # file.py:function
    kept = {path.resolve() for path in named if path.is_file()}
    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        if path.resolve() in kept:
            raise InputError(f"{path}: is read by this command and would be lost; give its result another name")
        if path.resolve() in {other.resolve() for other in given[:number]}:
            raise InputError(f"{path}: is the name of two results; give each its own")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file to write")
        if not path.parent.is_dir():
            raise InputError(f"{path}: its folder does not exist; create {path.parent} first")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path}: its folder cannot be written to; choose another place")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` (same suffix) that becomes it when the block succeeds, else vanishes."""
    writable(path)
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def existing(path: Path, what: str) -> Path:
    """``path`` if it is a file; else InputError saying that ``what`` was expected there."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected {what}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {what}")
    return path


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of ``path``. Raises InputError."""
    try:
        return existing(path, what).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text (byte {error.start} is not UTF-8); expected {what}") from error
