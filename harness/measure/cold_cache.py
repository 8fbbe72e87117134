"""Pushes what an engine left out of the host's caches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Where the system does not say: more than desktop processors have.
_ASSUMED_BYTES = 64 * 2**20
# A cache that evicts at random keeps some lines of what was there before; two walks' worth leaves one in seven.
_TIMES_THE_CACHE = 2
_LINE = 64  # bytes; one value of each line is enough to fetch it


class ColdCache:
    """A buffer of twice the last-level cache. Walking over it leaves none of an engine's data in the cache that all cores share.

    The walk runs on one core: what other cores keep in caches of their own is left alone.
    """

    def __init__(self, nbytes: int | None = None) -> None:
        self.nbytes = nbytes or _TIMES_THE_CACHE * last_level_cache_bytes()
        self._lines = np.zeros(self.nbytes // 8, np.int64)[:: _LINE // 8]

    def walk(self) -> None:
        """Read and write one value of every cache line."""
        self._lines += 1

    def __str__(self) -> str:
        return f"before each launch one core walks over {self.nbytes / 2**20:g} MiB, twice the last-level cache"


def last_level_cache_bytes(caches: Path = _CACHES) -> int:
    """Size of the largest cache of the first core, in bytes; 64 MiB where the system does not say."""
    sizes = [_size(path) for path in caches.glob("index*/size")]
    return max(sizes, default=0) or _ASSUMED_BYTES


def _size(path: Path) -> int:
    try:
        found = re.fullmatch(r"(\d+)([KMG])", path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError):
        return 0
    return int(found.group(1)) * _UNITS[found.group(2)] if found else 0
