"""The CUDA driver and runtime, through cuda-python, with what goes wrong in words."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.errors import ContextLost, InvalidMeasurement, OutOfDeviceMemory
from harness.need import is_installed, need
from harness.records.machine import Gpu

# Errors of which CUDA's documentation says that the process has to be ended and started again; every later call gives them again.
BREAK_CONTEXT = frozenset({226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})
_NEEDS = "cuda-bindings is not installed, and engines run on a GPU through it; run: pip install 'enginegate[gpu]'"

_LOST = "that broke the CUDA context of this process, which can use the GPU no more; run what is left in a fresh process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The first GPU that CUDA shows to this process and the CUDA release of its driver, as 12 or 13; or why there is none."""

    gpu: Gpu | None = None
    all_gpus: tuple[Gpu, ...] = ()
    cuda_major: int = 0
    why_not: str | None = None


@lru_cache
def find_gpu() -> Found:
    """Ask the driver, which loads no other library and makes no context. `CUDA_VISIBLE_DEVICES` chooses the GPU, best by UUID."""
    if not is_installed("cuda") or not is_installed("cuda.bindings"):
        return Found(why_not=_NEEDS)
    driver = need("cuda.bindings.driver", extra="gpu", to="find the GPU")
    try:
        return _found(driver)
    # Without a driver the bindings raise an error of their own finder, whose class differs by version.
    except Exception as error:  # noqa: BLE001
        said = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        return Found(why_not=f"no NVIDIA driver answers ({said}); expected one; install it, or choose another backend")


def _found(driver: Any) -> Found:
    (started,) = driver.cuInit(0)
    if int(started) != 0:
        return Found(why_not=f"CUDA does not start ({started.name}); expected a driver that fits it and a GPU; see nvidia-smi")
    count = _asked(driver.cuDeviceGetCount())
    if count == 0:
        return Found(why_not="CUDA shows no GPU to this process; expected one; see CUDA_VISIBLE_DEVICES")
    gpus = tuple(_gpu(driver, number) for number in range(count))
    return Found(gpu=gpus[0], all_gpus=gpus, cuda_major=_asked(driver.cuDriverGetVersion()) // 1000)


def _gpu(driver: Any, number: int) -> Gpu:
    device = _asked(driver.cuDeviceGet(number))
    attributes = driver.CUdevice_attribute
    major = _asked(driver.cuDeviceGetAttribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _asked(driver.cuDeviceGetAttribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    name = _asked(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode()
    # The second name gives a MIG instance its own; bindings of CUDA 13 have it under the first.
    get_uuid = getattr(driver, "cuDeviceGetUuid_v2", driver.cuDeviceGetUuid)
    named = uuid.UUID(bytes=bytes(_asked(get_uuid(device)).bytes))
    return Gpu(name=name, sm=f"SM{major}{minor}", uuid=f"GPU-{named}")


def _asked(answer: tuple[Any, ...]) -> Any:
    error, value = answer
    if int(error) != 0:
        raise RuntimeError(error.name)
    return value


class Cuda:
    """The runtime's calls by name on the first visible GPU. Each raises in words where the runtime answers an error.

    Raises:
        OutOfDeviceMemory: no such block of memory is free.
        ContextLost: an error, of this call or an earlier one, broke the context.
        InvalidMeasurement: any other error of the runtime.
    """

    def __init__(self) -> None:
        self.runtime = need("cuda.bindings.runtime", extra="gpu", to="run engines on a GPU")
        self("cudaSetDevice", 0)
        self("cudaFree", 0)  # makes the context

    def __call__(self, name: str, *arguments: Any) -> Any:
        """What the call gives; None where it gives nothing."""
        error, *found = getattr(self.runtime, name)(*arguments)
        if int(error) != 0:
            raise self._failed(name, error)
        return found[0] if found else None

    def _failed(self, name: str, error: Any) -> Exception:
        if error.name == "cudaErrorMemoryAllocation":
            free, total = self.runtime.cudaMemGetInfo()[1:]
            return OutOfDeviceMemory(
                f"the GPU has no room: {free / 2**20:.0f} of {total / 2**20:.0f} MiB are free; end what else computes there"
            )
        if int(error) in BREAK_CONTEXT:
            return ContextLost(f"CUDA answered {name} with {error.name}; {_LOST}")
        return InvalidMeasurement(f"CUDA answered {name} with {error.name}; expected success; see what CUDA's documentation says of it")


def context_lost() -> ContextLost | None:
    """What this process is told from now on, where an error broke its context; None where it can go on."""
    runtime = need("cuda.bindings.runtime", extra="gpu", to="ask whether the GPU can still be used")
    (error,) = runtime.cudaFree(0)  # which does nothing, but answers with what broke the context
    return ContextLost(f"CUDA answers {error.name}; {_LOST}") if int(error) in BREAK_CONTEXT else None
