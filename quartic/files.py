"""Files as a user meets them: written whole or not at all, and missing ones named clearly."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from isa.errors import InputError
from isa.files import check_place, replacing


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
        check_place(path)


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
