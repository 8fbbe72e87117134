"""One run at a time on a GPU of this machine, as far as runs share a cache folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StoreFailed
from harness.store.atomic import failing_in_words

_PATIENCE_S = 3.0  # shorter waits are worth no line


@contextmanager
def gpu_held(uuid: str, cache: Path, note: Callable[[str], None]) -> Generator[None]:
    """Hold a GPU while something is built or timed there; whoever else wants it waits, and says so.

    Raises:
        StoreFailed: the cache folder cannot hold the lock.
    """
    from filelock import FileLock, Timeout

    folder = cache / "locks"
    with failing_in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock")
    try:
        try:
            lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            note(f"another run holds GPU {uuid}; waiting until it ends")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise StoreFailed(
            f"cannot lock GPU {uuid} in {folder} ({error}); expected a cache folder this user can write; see --cache-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
