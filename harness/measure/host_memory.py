"""How much of the host's memory this process has had at most."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Largest resident set of this process so far, in bytes; None where the system does not say.

    Linux keeps it for the program (`VmHWM`). `ru_maxrss` there also counts what the parent had when it started this process, which
    for a parent with torch hides a small engine.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return int(found.group(1)) * 1024 if found else _maxrss_bytes()


def _maxrss_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
