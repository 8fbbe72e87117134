"""A kernel that does nothing for a known time: what makes an engine slower by an amount that is known."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from harness.backends._cuda import BREAK_CONTEXT, Cuda
from harness.errors import ContextLost, EnginegateError, InvalidMeasurement
from harness.need import need

# So many in a row are timed, so that what one of them takes is known to a hundredth of a microsecond.
_CHAIN = 64
# By the GPU's own clock of real time: a kernel that counts cycles waits longer when the clock goes down.
_PTX = b"""
.version 7.8
.target sm_80
.address_size 64
.visible .entry spin(.param .u64 wanted_ns)
{
    .reg .pred %again;
    .reg .b64 %wanted, %began, %now, %passed;
    ld.param.u64 %wanted, [wanted_ns];
    mov.u64 %began, %globaltimer;
AGAIN:
    mov.u64 %now, %globaltimer;
    sub.u64 %passed, %now, %began;
    setp.lt.u64 %again, %passed, %wanted;
    @%again bra AGAIN;
    ret;
}
\0"""


class Spin:
    """One thread that waits on a stream.

    Raises:
        InvalidMeasurement: the driver does not take the kernel.
    """

    def __init__(self, cuda: Cuda, stream: Any) -> None:
        self._cuda = cuda
        self._stream = stream
        self._driver = need("cuda.bindings.driver", extra="gpu", to="slow an engine down")
        self._module = self._call("cuModuleLoadData", _PTX)
        self._kernel = self._call("cuModuleGetFunction", self._module, b"spin")

    def launch(self, wanted_ns: int) -> None:
        """Put it on the stream."""
        arguments = ((wanted_ns,), (ctypes.c_uint64,))
        self._call("cuLaunchKernel", self._kernel, 1, 1, 1, 1, 1, 1, 0, int(self._stream), arguments, 0)

    def calibrated(self, delay_ms: float) -> tuple[int, float]:
        """What to wait for, in nanoseconds, so that a kernel of a graph takes `delay_ms`, its launch included; and what it takes.

        A chain of them is timed twice: for as long as wanted, and with what that was too long left out.
        """
        wanted_ns = round(delay_ms * 1e6)
        over_ms = self._each_ms(wanted_ns) - delay_ms
        wanted_ns = max(0, wanted_ns - round(over_ms * 1e6))
        return wanted_ns, self._each_ms(wanted_ns)

    def _each_ms(self, wanted_ns: int) -> float:
        graph = captured(self._cuda, self._stream, lambda: [self.launch(wanted_ns) for _ in range(_CHAIN)])
        start, end = (self._cuda("cudaEventCreate") for _ in range(2))
        for _ in range(2):  # the second one is warm
            self._cuda("cudaEventRecord", start, self._stream)
            self._cuda("cudaGraphLaunch", graph, self._stream)
            self._cuda("cudaEventRecord", end, self._stream)
        self._cuda("cudaStreamSynchronize", self._stream)
        taken = float(self._cuda("cudaEventElapsedTime", start, end))
        for event in (start, end):
            self._cuda("cudaEventDestroy", event)
        self._cuda("cudaGraphExecDestroy", graph)
        return taken / _CHAIN

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *found = getattr(self._driver, name)(*arguments)
        if int(error) != 0:  # the driver's numbers are the runtime's where a context breaks
            kind = ContextLost if int(error) in BREAK_CONTEXT else InvalidMeasurement
            raise kind(f"the CUDA driver answered {name} with {error.name}; the engine could not be slowed down")
        return found[0] if found else None


def captured(cuda: Cuda, stream: Any, work: Callable[[], object]) -> Any:
    """What `work` puts on the stream, as a graph that can be launched."""
    cuda("cudaStreamBeginCapture", stream, cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed)
    try:
        work()
    except Exception:  # whatever it was: a capture that was begun has to be ended
        cuda.runtime.cudaStreamEndCapture(stream)
        cuda.runtime.cudaGetLastError()  # what a broken capture leaves would be taken for the next call's error
        raise
    try:
        graph = cuda("cudaStreamEndCapture", stream)
        try:
            return cuda("cudaGraphInstantiate", graph, 0)
        finally:
            cuda.runtime.cudaGraphDestroy(graph)
    except EnginegateError:
        cuda.runtime.cudaGetLastError()
        raise
