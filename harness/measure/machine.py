"""The machine a run happened on. Asking never fails and loads no accelerator library."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from harness.need import is_installed, need, version_of
from harness.records.machine import Gpu, Machine, class_of

# What a figure can depend on.
DISTRIBUTIONS = (
    "enginegate",
    "numpy",
    "nvidia-modelopt",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "open_clip_torch",
    "pytest",
    "tensorrt",
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "torch",
)

# The same architectures under the names that macOS and Windows give them.
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def this_machine() -> Machine:
    """What this process runs on."""
    gpus, driver = _gpus()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=architecture(),
        cpu_model=_cpu_model(),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        python=platform.python_version(),
        gpus=gpus,
        driver=driver,
        versions={name: version for name in DISTRIBUTIONS if (version := version_of(name)) is not None},
    )


def usable_cpus() -> int:
    """Processors that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def architecture() -> str:
    """`x86_64` or `aarch64`, whatever this system calls it; other architectures by their own name."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine or "unknown")


def machine_class(target: str | None, gpu: Gpu | None = None) -> str:
    """Which machines' observations are comparable with this one's; see `class_of`. `gpu` is what the engine is bound to."""
    return class_of(target, architecture(), None if gpu is None else str(gpu))


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        text = ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or architecture()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, and macOS not all of its names
        return None


def _gpus() -> tuple[tuple[str, ...], str | None]:
    """Product names and driver version; nothing where there is no NVIDIA driver."""
    if not is_installed("pynvml"):
        return (), None
    nvml = need("pynvml", extra=None, to="name the GPUs")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver, or none that answers
        return (), None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(str(nvml.nvmlDeviceGetName(handle)) for handle in handles), str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:  # a GPU that fell off the bus is no reason to lose the rest of the record
        return (), None
    finally:
        nvml.nvmlShutdown()
