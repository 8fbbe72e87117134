"""The state of the host's processor while an engine is timed: how many processes want it, and its clock where that can be read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuState:
    """One look. None: the system does not say, as virtual machines do not of clocks.

    Attributes:
        load: processes that ran or wanted to, averaged over a minute.
        clock_mhz: median over the processors this process may use.
    """

    load: float | None
    clock_mhz: float | None


def cpu_state(cpus: Path = _CPUS) -> CpuState:
    """One look. It never fails."""
    clocks = [clock for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (clock := _khz(path))]
    return CpuState(load=_load(), clock_mhz=median(clocks) / 1000 if clocks else None)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows, and systems that hide it
        return None


def _khz(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
