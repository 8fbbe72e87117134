"""Names stretches of work for Nsight, through NVTX where it is installed; without it nothing happens.

A range is put around a whole block of launches, never between two of them.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

from harness.errors import MissingLibrary
from harness.need import is_installed, need

_DOMAIN = "enginegate"


def named(words: str) -> contextlib.AbstractContextManager[Any]:
    """A range of that name."""
    nvtx = _nvtx()
    return contextlib.nullcontext() if nvtx is None else nvtx.annotate(words, domain=_DOMAIN)


@lru_cache
def _nvtx() -> Any:
    if not is_installed("nvtx"):
        return None
    try:
        return need("nvtx", extra=None, to="name work for Nsight")
    except MissingLibrary:  # there, and broken: a name in a tool is not worth an engine's times
        return None
