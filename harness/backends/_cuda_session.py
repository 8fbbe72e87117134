"""Runs a TensorRT engine: buffers, a stream, events and graphs through cuda-python, without torch."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from harness.backends._cuda import Cuda, context_lost
from harness.backends._cuda_spin import Spin, captured
from harness.backends._dlpack import GivenArray, SharedArray, taken
from harness.backends._inputs import require_inputs
from harness.backends._layer_profiler import new_profiler
from harness.backends._nvinfer import logger_of, means_out_of_memory
from harness.contracts import InputPort, LayerMilliseconds, ProfiledLaunches
from harness.errors import ContextLost, EnginegateError, InvalidMeasurement, OutOfDeviceMemory, UnusableEngine
from harness.records.observations import Tensors
from harness.records.spec import BatchProfile

_DTYPES = {"HALF": "float16", "FLOAT": "float32", "INT64": "int64", "INT32": "int32", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool"}
# A cache that evicts at random keeps some lines of what was there before; two caches' worth leaves one in seven.
_TIMES_THE_CACHE = 2


@dataclass(slots=True, eq=False, weakref_slot=True)
class CudaFeed:
    """Buffers of one batch, by tensor name.

    Attributes:
        given: inputs that somebody else owns; all other addresses are ours, and freed with the feed.
        graph: what a launch replays, once it was captured.
        spin_ns: for how long each launch waits at its end; None where nobody slowed it down.
    """

    shapes: dict[str, tuple[int, ...]]
    outputs: dict[str, str]
    given: dict[str, GivenArray] = field(default_factory=dict[str, GivenArray])
    addresses: dict[str, int] = field(default_factory=dict[str, int])
    graph: Any = None
    context: Any = None
    is_launched: bool = False
    spin_ns: int | None = None


class TensorRtSession:
    """One engine on the first visible GPU, with one stream. Closing it frees all it has.

    All feeds share one context, and so its activation memory, on one stream; a captured feed has a context of its own, since a graph
    is bound to the state that its context had.
    """

    clock = "CUDA events"
    layer_clock = "TensorRT's IProfiler, plain launches"

    def __init__(self, trt: ModuleType, engine: Any, batch: BatchProfile, device_uuid: str) -> None:
        self.device_uuid = device_uuid
        self._trt, self._batch = trt, batch
        self._engine: Any = engine
        self._cuda = Cuda()
        self._stream = self._cuda("cudaStreamCreateWithFlags", self._cuda.runtime.cudaStreamNonBlocking)
        self._handle = int(self._stream)
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._events: list[Any] = []
        self._flush: tuple[int, int] | None = None
        self._spin: Spin | None = None
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self._inputs]
        self._context: Any = self._new_context()
        self._bound: CudaFeed | None = None

    @property
    def ports(self) -> tuple[InputPort, ...]:
        """The engine's inputs."""
        return tuple(InputPort(name=name, dtype=np.dtype(self._dtype(name)), shape=self._shape(name)) for name in self._inputs)

    @property
    def cold_cache(self) -> str:
        """How the GPU's cache is emptied."""
        return f"before each launch the GPU writes {self._flush_bytes() / 2**20:g} MiB, twice its L2 cache"

    @property
    def stream(self) -> int:
        """Handle of the stream that launches go to, for whoever orders work of their own around them."""
        return self._handle

    def upload(self, inputs: Tensors | Mapping[str, Any]) -> CudaFeed:
        """Copy the inputs to the GPU, and allocate what the outputs need. May wait.

        An input that lies on the GPU already, as an array of torch or cupy does, is not copied: launches read it where it is.

        Raises:
            UnusableInputs: an input of another name, type, shape or device.
            OutOfDeviceMemory: the GPU has no room for the batch.
        """
        inputs = {name: taken(name, array, self._handle) for name, array in inputs.items()}
        require_inputs(inputs, self.ports, self._batch)
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        self._set_shapes(self._context, shapes)
        self._bound = None
        shapes |= {name: self._output_shape(name) for name in self._outputs}
        feed = CudaFeed(shapes, {name: self._dtype(name) for name in self._outputs})
        self._finalizers.append(weakref.finalize(feed, self._free, feed.addresses))
        for name, array in inputs.items():
            if isinstance(array, GivenArray):
                feed.given[name] = array
                continue
            host = np.ascontiguousarray(array)
            feed.addresses[name] = self._allocated(host.nbytes)
            self._copied(feed.addresses[name], host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")
        for name, dtype in feed.outputs.items():
            feed.addresses[name] = self._allocated(int(np.prod(shapes[name])) * np.dtype(dtype).itemsize)
        return feed

    def shared(self, feed: CudaFeed) -> dict[str, SharedArray]:
        """The outputs of the last launch where they lie, for `from_dlpack` of torch, cupy and others; waits for nothing.

        Raises:
            InvalidMeasurement: nothing was launched.
        """
        _require_launched(feed)
        return {
            name: SharedArray(feed, feed.addresses[name], feed.shapes[name], np.dtype(dtype), self._after_launches)
            for name, dtype in feed.outputs.items()
        }

    def launch(self, feed: CudaFeed) -> None:
        """Put the work on the stream: a graph where one was captured.

        Raises:
            ContextLost: an error broke the context of this process, in this launch or before.
            InvalidMeasurement: TensorRT or CUDA refuses for another reason, with its own words.
        """
        if feed.graph is not None:
            self._cuda("cudaGraphLaunch", feed.graph, self._stream)
        else:
            if self._bound is not feed:
                self._bind(self._context, feed)
                self._bound = feed
            self._enqueue(self._context, feed)
        feed.is_launched = True

    def download(self, feed: CudaFeed) -> Tensors:
        """Wait, and copy the outputs of the last launch.

        Raises:
            InvalidMeasurement: nothing was launched, or the launch failed on the GPU.
        """
        _require_launched(feed)
        found = {name: np.empty(feed.shapes[name], dtype) for name, dtype in feed.outputs.items()}
        for name, array in found.items():
            self._copied(array.ctypes.data, feed.addresses[name], array.nbytes, "cudaMemcpyDeviceToHost")
        return found

    def capture(self, feed: CudaFeed) -> str | None:
        """Capture one launch of `feed`; None when later launches replay it, else why they stay plain.

        Raises:
            ContextLost: no launch of this process can work any more.
        """
        try:
            context = self._new_context()
            self._bind(context, feed)
            self._enqueue(context, feed)  # the first launch does work that no graph can hold
            self._wait()
            self._capture(feed, context)
        except ContextLost:  # no launch is left that could stay plain
            raise
        except EnginegateError as error:
            return f"no graph was captured: {error}"
        return None

    def delay(self, feed: CudaFeed, delay_ms: float) -> float:
        """Have each launch of `feed` end with a kernel that waits, in its graph where it has one; how long that takes, in milliseconds.

        Raises:
            InvalidMeasurement: the driver does not take the kernel.
        """
        self._spin = self._spin or Spin(self._cuda, self._stream)
        feed.spin_ns, taken_ms = self._spin.calibrated(delay_ms)
        if feed.graph is not None:
            self._capture(feed, feed.context)
        return taken_ms

    def time_launches(self, feed: CudaFeed, launches: int, *, cold: bool) -> tuple[float, ...]:
        """Milliseconds of each launch between events on the stream."""
        events = self._events_for(2 * launches)
        if cold:
            self._flush_buffer()
        pairs = list(zip(events[::2], events[1::2], strict=True))
        for start, end in pairs:
            if cold:
                self._empty_cache()
            self._cuda("cudaEventRecord", start, self._stream)
            self.launch(feed)
            self._cuda("cudaEventRecord", end, self._stream)
        self._wait()
        return tuple(float(self._cuda("cudaEventElapsedTime", start, end)) for start, end in pairs)

    def profile(self, feed: CudaFeed, launches: int) -> ProfiledLaunches:
        """Milliseconds of each layer of so many plain launches, in a context of their own, which is gone afterwards.

        Raises:
            InvalidMeasurement: TensorRT refuses, or tells no times.
        """
        context, profiler = self._new_context(), new_profiler(self._trt)
        self._bind(context, feed)
        context.profiler = profiler  # from here on an enqueue returns when its launch is over and its layers' times are told
        told = tuple(self._profiled(context, feed, profiler) for _ in range(launches))
        inspected = self._engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return ProfiledLaunches(launches=told, inspector=inspected)

    def close(self) -> None:
        """Free all, in the order in which one thing needs the other; a broken context frees nothing and is left to its process."""
        with suppress(InvalidMeasurement):
            self._wait()
        for finalizer in reversed(self._finalizers):
            finalizer()
        for event in self._events:
            self._cuda.runtime.cudaEventDestroy(event)
        if self._flush is not None:
            self._cuda.runtime.cudaFree(self._flush[0])
        self._bound = self._context = self._engine = None
        self._cuda.runtime.cudaStreamDestroy(self._stream)

    # -- helpers -----------------------------------------------------------------------------------------------------------

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise self._refused("made no execution context")
        return context

    def _refused(self, what: str) -> EnginegateError:
        errors = logger_of(self._trt).errors
        words = "\n".join(f"  {line}" for line in errors) or "  nothing"
        errors.clear()
        if lost := context_lost():
            return ContextLost(f"TensorRT {what}; {lost}; it said\n{words}")
        kind = OutOfDeviceMemory if means_out_of_memory(words) else InvalidMeasurement
        return kind(f"TensorRT {what}; it said\n{words}")

    def _dtype(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise UnusableEngine(f"tensor {name!r} of the engine is {kind}; expected one of {', '.join(_DTYPES)}; export the encoder so")
        return _DTYPES[kind]

    def _shape(self, name: str) -> tuple[int | None, ...]:
        return tuple(None if length == -1 else int(length) for length in self._engine.get_tensor_shape(name))

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(map(int, self._context.get_tensor_shape(name)))
        if -1 in shape:
            raise UnusableEngine(f"output {name!r} has shape {list(shape)}, which no input's shape decides; expected [batch, dim]")
        return shape

    def _set_shapes(self, context: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        for name in self._inputs:
            if not context.set_input_shape(name, shapes[name]):
                raise self._refused(f"refused {name} of shape {list(shapes[name])}")

    def _bind(self, context: Any, feed: CudaFeed) -> None:
        self._set_shapes(context, feed.shapes)
        given = {name: array.address for name, array in feed.given.items()}
        for name, address in (feed.addresses | given).items():
            if not context.set_tensor_address(name, address):
                raise self._refused(f"refused the buffer of {name}")

    def _enqueue(self, context: Any, feed: CudaFeed) -> None:
        if not context.execute_async_v3(self._handle):
            raise self._refused("refused to launch the engine")
        if feed.spin_ns is not None and self._spin is not None:
            self._spin.launch(feed.spin_ns)

    def _profiled(self, context: Any, feed: CudaFeed, profiler: Any) -> LayerMilliseconds:
        self._enqueue(context, feed)
        self._wait()
        told = profiler.taken()
        if not told:
            raise self._refused("told no layer times")
        return told

    def _capture(self, feed: CudaFeed, context: Any) -> None:
        graph = captured(self._cuda, self._stream, lambda: self._enqueue(context, feed))
        feed.graph, feed.context = graph, context
        self._finalizers.append(weakref.finalize(feed, self._drop_graph, graph, context))

    def _drop_graph(self, graph: Any, _context: Any) -> None:
        """The context is an argument so that it lives as long as the graph that replays it."""
        self._cuda.runtime.cudaGraphExecDestroy(graph)

    def _allocated(self, nbytes: int) -> int:
        return int(self._cuda("cudaMalloc", max(nbytes, 1)))

    def _free(self, addresses: dict[str, int]) -> None:
        for address in addresses.values():
            self._cuda.runtime.cudaFree(address)

    def _copied(self, to: int, start: int, nbytes: int, kind: str) -> None:
        # On the engine's own stream, and waited for: a stream that blocks no other does not wait for plain copies either.
        self._cuda("cudaMemcpyAsync", to, start, nbytes, getattr(self._cuda.runtime.cudaMemcpyKind, kind), self._stream)
        self._wait()

    def _wait(self) -> None:
        self._cuda("cudaStreamSynchronize", self._stream)

    def _after_launches(self, stream: int) -> None:
        """Make another stream wait for all that ours has been given so far."""
        event = self._cuda("cudaEventCreateWithFlags", self._cuda.runtime.cudaEventDisableTiming)
        try:
            self._cuda("cudaEventRecord", event, self._stream)
            self._cuda("cudaStreamWaitEvent", stream, event, 0)
        finally:
            self._cuda.runtime.cudaEventDestroy(event)

    def _events_for(self, count: int) -> list[Any]:
        self._events += [self._cuda("cudaEventCreate") for _ in range(count - len(self._events))]
        return self._events[:count]

    def _flush_bytes(self) -> int:
        attribute = self._cuda.runtime.cudaDeviceAttr.cudaDevAttrL2CacheSize
        return _TIMES_THE_CACHE * int(self._cuda("cudaDeviceGetAttribute", attribute, 0))

    def _flush_buffer(self) -> tuple[int, int]:
        if self._flush is None:
            nbytes = self._flush_bytes()
            self._flush = (self._allocated(nbytes), nbytes)
        return self._flush

    def _empty_cache(self) -> None:
        address, nbytes = self._flush_buffer()
        self._cuda("cudaMemsetAsync", address, 0, nbytes, self._stream)


def _require_launched(feed: CudaFeed) -> None:
    if not feed.is_launched:
        raise InvalidMeasurement("nothing was launched with this feed; launch it before its output is read")
