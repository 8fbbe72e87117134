"""Which GPU a process may use, settled before CUDA starts there. NVML names them, which starts no CUDA."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from types import ModuleType
from typing import Any

from harness.errors import UnknownName, UsageError
from harness.need import is_installed, need

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Without it CUDA counts the fastest first, and NVML by slot.
_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def gpus_here(environ: Mapping[str, str] = os.environ, nvml: ModuleType | Any | None = None) -> tuple[str, ...]:
    """UUIDs of the GPUs that this process may use, in the order of `CUDA_VISIBLE_DEVICES`, else of their slots; none without a driver.

    Args:
        nvml: the bindings; None is the installed ones.
    """
    every = _every_gpu(nvml)
    if VISIBLE not in environ:
        return every
    found: list[str] = []
    for name in filter(None, map(str.strip, environ[VISIBLE].split(","))):
        match = _matching(name, every)
        if match is None and not name.startswith("MIG-"):
            break  # as CUDA does: what follows a name that it does not know is not seen
        found.append(match or name)
    return tuple(found)


def chosen_gpus(names: Sequence[str], here: Sequence[str]) -> tuple[str, ...]:
    """UUIDs of the GPUs that are named, by UUID, the beginning of one, or place among `here`; all of `here` where none is.

    Raises:
        UnknownName: there is no such GPU.
    """
    found: list[str] = []
    for name in names:
        match = _matching(name, here)
        if match is None:
            listed = ", ".join(f"{place}: {uuid}" for place, uuid in enumerate(here)) or "no GPU"
            raise UnknownName(f"--gpu {name} is none of the GPUs here ({listed}); expected a place or a UUID of these; see nvidia-smi -L")
        found.append(match)
    return tuple(dict.fromkeys(found)) or tuple(here)


def use_gpu(uuid: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let CUDA see this GPU alone, in this process, if it has not begun there, and in all that it starts."""
    environ[VISIBLE] = uuid
    environ.update(_ORDER)


def gpu_of_worker(gpus: Sequence[str], worker: int) -> str:
    """The GPU of one of several processes that share none.

    Raises:
        UsageError: there are more processes than GPUs.
    """
    require_enough(gpus, worker + 1)
    return gpus[worker]


def require_enough(gpus: Sequence[str], workers: int) -> None:
    """Refuse more processes than GPUs: two on one would spoil each other's times.

    Raises:
        UsageError: with how many may run.
    """
    if workers > len(gpus):
        raise UsageError(
            f"{workers} processes want a GPU each and {len(gpus)} are here; expected no more processes; run with -n {len(gpus)}"
        )


def _matching(name: str, uuids: Sequence[str]) -> str | None:
    if name.isdecimal():
        return uuids[int(name)] if int(name) < len(uuids) else None
    alike = [uuid for uuid in uuids if uuid.lower().startswith(name.lower())]
    return alike[0] if len(alike) == 1 else None


def _every_gpu(nvml: ModuleType | Any | None) -> tuple[str, ...]:
    if nvml is None and not is_installed("pynvml"):
        return ()
    bindings: Any = nvml or need("pynvml", extra=None, to="name the GPUs")
    try:
        bindings.nvmlInit()
    except bindings.NVMLError:  # no driver, or none that answers
        return ()
    try:
        handles = [bindings.nvmlDeviceGetHandleByIndex(index) for index in range(bindings.nvmlDeviceGetCount())]
        return tuple(str(bindings.nvmlDeviceGetUUID(handle)) for handle in handles)
    except bindings.NVMLError:
        return ()
    finally:
        bindings.nvmlShutdown()
