"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.errors import StoreFailed
from harness.store.atomic import copy_atomically, flush_folder, flush_names, write_atomically


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "new" / "file"

    write_atomically(path, b"old")
    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)

    with pytest.raises(
        StoreFailed, match=r"no room on the disk: 1,000 bytes needed at .*file, [\d,]+ free; free some or .* --cache-dir / --run-dir"
    ):
        write_atomically(path, bytes(1000))

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", interrupt)

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(
        StoreFailed, match=r"cannot write .*deeper \((Not a directory|File exists)\); expected a folder that this user can write"
    ):
        write_atomically(tmp_path / "file" / "deeper", b"")


def test_a_copy_is_whole(tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"content")

    copy_atomically(source, tmp_path / "copies" / "copy")

    assert (tmp_path / "copies" / "copy").read_bytes() == b"content"


def test_a_copy_of_nothing_names_the_source(tmp_path: Path):
    with pytest.raises(StoreFailed, match=r"cannot read .*absent"):
        copy_atomically(tmp_path / "absent", tmp_path / "copy")


def test_a_read_only_file_of_a_builder_can_be_flushed(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("text")
    (tmp_path / "folder" / "file").chmod(0o444)

    flush_folder(tmp_path)


def test_a_folder_that_the_system_cannot_open_is_not_flushed(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    flush_names(Path("folder"))
