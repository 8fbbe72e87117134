"""How much of the host's memory this process has had at most: since it started, and while it did one thing."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.contracts import Backend
    from harness.records.artifacts import BuiltFiles
    from harness.records.spec import EngineSpec

_STATUS = Path("/proc/self/status")
# Compilers take seconds, and what they hold only for less than this is seldom their peak.
_LOOK_EVERY_S = 0.01


def peak_bytes() -> int | None:
    """Largest resident set of this process so far, in bytes; None where the system does not say.

    Linux keeps it for the program (`VmHWM`). `ru_maxrss` there also counts what the parent had when it started this process, which
    for a parent with torch hides a small engine.
    """
    found = _status_bytes("VmHWM")
    return _maxrss_bytes() if found is None else found


class AddedPeak:
    """What `added_peak` saw: `nbytes` are set when it ends; None where the system does not say how much a process holds now."""

    def __init__(self) -> None:
        self.nbytes: int | None = None


def built_weighed(backend: Backend, source: Path, spec: EngineSpec, folder: Path) -> BuiltFiles:
    """What a backend's build left in `folder`, and what it took of this process's memory at most."""
    with added_peak() as host:
        built = backend.build(source, spec, folder)
    return replace(built, host_bytes=host.nbytes)


@contextmanager
def added_peak() -> Iterator[AddedPeak]:
    """Watch how much more of the host's memory this process holds, at most, than it does now.

    It looks every 10 ms, since the system's own record has only the highest of all times; where that rises meanwhile, it is the answer.
    """
    added, start, before, done = AddedPeak(), _status_bytes("VmRSS"), peak_bytes(), threading.Event()
    seen = [start or 0]

    def look() -> None:
        while not done.wait(_LOOK_EVERY_S):
            seen[0] = max(seen[0], _status_bytes("VmRSS") or 0)

    watcher = threading.Thread(target=look, name="enginegate-memory", daemon=True)
    if start is not None:
        watcher.start()
    try:
        yield added
    finally:
        done.set()
        if start is not None:
            watcher.join()
            after = peak_bytes()
            highest = after if after is not None and before is not None and after > before else max(seen[0], _status_bytes("VmRSS") or 0)
            added.nbytes = max(0, highest - start)


def _status_bytes(name: str) -> int | None:
    """A figure that Linux keeps of this process; None elsewhere."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _maxrss_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
