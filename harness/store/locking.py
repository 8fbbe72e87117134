"""One writer at a time for a folder that several processes of this user may write to."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StoreFailed
from harness.store.atomic import failing_in_words
from harness.store.cache import default_cache_dir


@contextmanager
def locked(root: Path, kind: str) -> Generator[None]:
    """Alone among the processes of this user. The lock lies in the cache, since what `root` holds is committed.

    Raises:
        StoreFailed: the cache folder cannot be written.
    """
    from filelock import FileLock

    digest = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()
    folder = default_cache_dir() / "locks"
    with failing_in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{kind}-{digest[:24]}.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise StoreFailed(
            f"cannot lock {root} ({error}); expected a cache folder this user can write; choose one with ENGINEGATE_CACHE_DIR"
        ) from error
    try:
        yield
    finally:
        lock.release()
