"""Where a run happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine and what was installed on it. `gpus` are product names; versions are distribution names to versions."""

    system: str
    architecture: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int | None
    python: str
    gpus: tuple[str, ...] = ()
    driver: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
