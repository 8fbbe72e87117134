"""Files that are either whole or absent, also after a crash and on a full disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import StoreFailed

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_CHOOSE = "choose another folder with --cache-dir / --run-dir"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, so that a reader sees the old content or the new, never a part.

    Raises:
        StoreFailed: no room on the disk, or the folder cannot be written.
    """
    with failing_in_words(path, nbytes=len(data)), _replacement(path) as temporary, temporary.open("xb") as stream:
        stream.write(data)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy the content of `source` to `path`, which is the whole copy or what it was.

    Raises:
        StoreFailed: `source` cannot be read, no room on the disk, or the folder cannot be written.
    """
    try:
        nbytes = source.stat().st_size
    except OSError as error:
        raise StoreFailed(f"cannot read {source} ({error.strerror}); expected a file to copy to {path}") from error
    with failing_in_words(path, nbytes=nbytes), _replacement(path) as temporary:
        shutil.copyfile(source, temporary)


def write_once(path: Path, data: bytes) -> bool:
    """Write `data` to `path` unless there is such a file, and say whether it holds `data` now. Nothing is ever replaced.

    Of two processes that come at one time, the second may meet a part of what the first writes, and is told that it differs.

    Raises:
        StoreFailed: no room on the disk, or the folder cannot be written.
    """
    with failing_in_words(path, nbytes=len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as stream:
                stream.write(data)
        except FileExistsError:
            return path.read_bytes() == data
        flush(path)
        flush_names(path.parent)
    return True


def flush_folder(folder: Path) -> None:
    """Have everything below `folder`, names included, reach the disk."""
    for entry in sorted(folder.rglob("*")):
        if entry.is_file():
            flush(entry)
        else:
            flush_names(entry)
    flush_names(folder)


def flush(file: Path) -> None:
    """Have the content of `file` reach the disk."""
    # Windows flushes no handle that only reads; elsewhere a file made read-only by its builder must not be in the way.
    descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_names(folder: Path) -> None:
    """Have the names in `folder` reach the disk, where the system can: Windows opens no folder."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def failing_in_words(path: Path, *, nbytes: int | None = None) -> Generator[None]:
    """Turn the operating system's refusals into words.

    Args:
        path: what is being written.
        nbytes: how much, in bytes; None where that is unknown.

    Raises:
        StoreFailed: no room on the disk, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise in_words(error, path, nbytes=nbytes) from error


def in_words(error: OSError, path: Path, *, nbytes: int | None = None) -> StoreFailed:
    """What an `OSError` met while writing `path` means to people."""
    if is_full(error):
        needed = "" if nbytes is None else f"{nbytes:,} bytes needed at "
        return StoreFailed(f"no room on the disk: {needed}{path}, {_free(path)} free; free some or {_CHOOSE}")
    return StoreFailed(f"cannot write {path} ({error.strerror or error}); expected a folder that this user can write; {_CHOOSE}")


def is_full(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return error.errno in _NO_ROOM


@contextmanager
def _replacement(path: Path) -> Generator[Path]:
    """A name beside `path` to write to; it takes the place of `path` when all went well, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_names(path.parent)


def _free(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{shutil.disk_usage(folder).free:,}"
