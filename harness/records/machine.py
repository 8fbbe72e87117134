"""Where a run happened."""

from __future__ import annotations

import re
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU: its product name, its compute capability such as `SM90`, and its UUID as NVML writes it."""

    name: str
    sm: str
    uuid: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sm})"

    @property
    def machine_class(self) -> str:
        """As part of a path: `NVIDIA-H100-80GB-HBM3-SM90`. Engines and figures of one class may be compared."""
        return "-".join((*re.findall(r"[\w.]+", self.name), self.sm))
