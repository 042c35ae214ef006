"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isa.errors import InputError
from quartic.files import existing, read_text, replacing, writable, write_bytes


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "m.qbin"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_written_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/m\.qbin: its folder does not exist; create .*nowhere first"):
        write_bytes(tmp_path / "nowhere" / "m.qbin", b"")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected a binary"):
        existing(tmp_path, "a binary")


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(InputError, match=r"p: is a device or a pipe, which a file would replace; give the name"):
        write_bytes(tmp_path / "p", b"x")
    assert (tmp_path / "p").is_fifo()


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match=r"s\.toml: not text \(byte 2 is not UTF-8\); expected a schedule"):
        read_text(tmp_path / "s.toml", "a schedule")


@pytest.mark.parametrize("read", ["net.py", "net.py:build"])
def test_what_is_read_is_not_written_over(tmp_path: Path, read: str) -> None:
    (tmp_path / "net.py").write_text("")
    with pytest.raises(InputError, match=r"net\.py: is read by this command and would be lost; give its"):
        writable(tmp_path / "m.qbin", tmp_path / "a" / ".." / "net.py", reads=(None, str(tmp_path / read)))


def test_two_results_have_two_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.toml: is the name of two results; give each its own"):
        writable(tmp_path / "a.toml", None, tmp_path / "a.toml")


def test_a_result_named_as_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writable(Path("w8a8"), reads=("w8a8",))
