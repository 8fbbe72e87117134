"""An allocator of ours under TensorRT's runtime, which takes memory of the device from CUDA and counts it.

`IGpuAllocator` is the base class, which every release since 8 has: from 10.0 on its asynchronous calls come down to `allocate` and
`deallocate`, as the bindings of 10.6 were seen to do. `IGpuAsyncAllocator` would serve as well, but its bindings hand `allocate_async` the
stream before the flags, and their documentation says the reverse.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

from harness.backends._allocations import AllocationCounter

NO_ADDRESS = 0  # what the bindings take for "cannot be had"; they cannot read a None

# A vendor's destructor may call the allocator until the process ends, and the bindings need not hold it for that long.
_held: list[Any] = []


class Blocks(Protocol):
    """Where memory of the device comes from."""

    def take(self, nbytes: int) -> int:
        """Address of so many bytes; `NO_ADDRESS` where they cannot be had."""
        ...

    def give_back(self, address: int) -> bool:
        """Whether the block is free again."""
        ...


class CudaBlocks:
    """cudaMalloc and cudaFree on the first visible GPU, whose alignment suffices for whatever TensorRT asks.

    Args:
        runtime: cuda-python's module of the CUDA runtime, once its context is made.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def take(self, nbytes: int) -> int:
        """Address of so many bytes; `NO_ADDRESS` where they cannot be had."""
        error, address = self._runtime.cudaMalloc(nbytes)
        if int(error) == 0:
            return int(address)
        self._runtime.cudaGetLastError()  # else the next one who looks takes the error for their own
        return NO_ADDRESS

    def give_back(self, address: int) -> bool:
        """Whether the block is free again; waits for whatever still uses it."""
        return int(self._runtime.cudaFree(address)[0]) == 0


def why_no_allocator(trt: ModuleType) -> str | None:
    """None where this release lets an allocator be handed to its runtime."""
    if hasattr(trt, "IGpuAllocator") and hasattr(trt.Runtime, "gpu_allocator"):
        return None
    return f"{trt.__name__} {trt.__version__} takes no allocator (it has no IGpuAllocator, or its Runtime no gpu_allocator)"


def new_allocator(trt: ModuleType, counter: AllocationCounter, blocks: Blocks) -> Any:
    """An `IGpuAllocator` for a runtime of this release, which counts. It lives as long as the process.

    Nothing that it does raises: an exception would have to cross C++. What goes wrong is the counter's trouble.
    """

    class Counting(trt.IGpuAllocator):
        def __init__(self) -> None:
            trt.IGpuAllocator.__init__(self)

        def allocate(self, size: int, alignment: int, flags: int) -> int:
            return _taken(counter, blocks, int(size))

        def allocate_async(self, size: int, alignment: int, *flags_and_stream: int) -> int:
            return _taken(counter, blocks, int(size))

        def reallocate(self, address: int, alignment: int, new_size: int) -> int:
            return NO_ADDRESS  # TensorRT then allocates anew, which is counted

        def deallocate(self, memory: int) -> bool:
            return _given_back(counter, blocks, memory)

        def deallocate_async(self, memory: int, stream: int) -> bool:
            return _given_back(counter, blocks, memory)

    _held.append(Counting())
    return _held[-1]


def _taken(counter: AllocationCounter, blocks: Blocks, nbytes: int) -> int:
    if nbytes == 0:
        return NO_ADDRESS
    address = NO_ADDRESS
    try:
        address = blocks.take(nbytes)
        if address != NO_ADDRESS:
            counter.took(address, nbytes, by_runtime=True)
    except Exception as error:  # noqa: BLE001 (whatever it is, it must not reach C++)
        counter.trouble(f"{nbytes} bytes were asked for: {type(error).__name__}: {error}")
    return address


def _given_back(counter: AllocationCounter, blocks: Blocks, address: int) -> bool:
    if not address:  # TensorRT gives back what it was told it cannot have
        return True
    try:
        counter.gave_back(address)
        return blocks.give_back(address)
    except Exception as error:  # noqa: BLE001 (as above)
        counter.trouble(f"address {address:#x} was given back: {type(error).__name__}: {error}")
        return False
