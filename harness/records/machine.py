"""Where a run happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def class_of(target: str | None, architecture: str) -> str:
    """Which machines' observations are comparable: `aot-SM89` for a build ahead of time, else `cpu-x86_64`.

    An engine compiled ahead of time for a target does not depend on the machine that compiled it.

    Args:
        target: of the engine; None where it runs on the host.
        architecture: of the machine, as `Machine` has it.
    """
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
