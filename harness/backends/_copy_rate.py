"""Measures how fast the first visible GPU copies its own memory: the rate that no memory-bound layer can pass by much."""

from __future__ import annotations

from harness.backends._cuda import Cuda

_NBYTES = 2**30  # far beyond every L2 cache
_COPIES = 20
_BLOCKS = 5


def copy_gbps() -> float:
    """GB/s, 10^9 bytes a second, read and written counted both, of the fastest of five blocks of copies.

    Raises:
        OutOfDeviceMemory: the GPU has no room for two buffers of 1 GiB.
    """
    cuda = Cuda()
    buffers: list[int] = []
    events = [cuda("cudaEventCreate") for _ in range(2)]
    stream = cuda("cudaStreamCreateWithFlags", cuda.runtime.cudaStreamNonBlocking)
    try:
        for _ in range(2):
            buffers.append(int(cuda("cudaMalloc", _NBYTES)))
        return max(_gbps(cuda, buffers, events, stream) for _ in range(_BLOCKS))
    finally:
        for address in buffers:
            cuda.runtime.cudaFree(address)
        for event in events:
            cuda.runtime.cudaEventDestroy(event)
        cuda.runtime.cudaStreamDestroy(stream)


def _gbps(cuda: Cuda, buffers: list[int], events: list[object], stream: object) -> float:
    kind = cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    for number in range(_COPIES + 1):  # the first leads in
        if number == 1:
            cuda("cudaEventRecord", events[0], stream)
        cuda("cudaMemcpyAsync", buffers[1], buffers[0], _NBYTES, kind, stream)
    cuda("cudaEventRecord", events[1], stream)
    cuda("cudaStreamSynchronize", stream)
    ms = float(cuda("cudaEventElapsedTime", *events))
    return 2 * _NBYTES * _COPIES / ms / 1e6
