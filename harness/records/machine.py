"""Where a run happened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


def class_of(target: str | None, architecture: str, device: str | None = None) -> str:
    """Which machines' observations are comparable: `aot-SM89` for a build ahead of time, `NVIDIA-H100-80GB-HBM3-SM90`, or `cpu-x86_64`.

    An engine compiled ahead of time for a target does not depend on the machine that compiled it. The class is part of a path.

    Args:
        target: of the engine; None where it runs where it was built.
        architecture: of the machine, as `Machine` has it.
        device: GPU that the engine is bound to, as `Gpu` writes itself; None where it is bound to none.
    """
    if device is not None:
        return "-".join(re.findall(r"[\w.]+", device))
    return f"aot-{target}" if target else f"cpu-{architecture}"


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
        """`NVIDIA-H100-80GB-HBM3-SM90`. Engines and figures of one class may be compared."""
        return class_of(None, "", str(self))
