"""What an engine takes of the host's memory, and of its device's, when it runs, in a process of its own."""

from __future__ import annotations

from harness.pipeline.isolating import worker_for
from harness.pipeline.pacing import TIMING_THREADS
from harness.pipeline.pairing import ANSWER_S
from harness.records.artifacts import EngineArtifact
from harness.records.observations import DeviceMemory
from harness.records.timing import Cache, TimingProtocol
from harness.workers.engines import EngineWorker

_LAUNCHES = 4  # the first does what a runtime puts off until then, the rest are to take nothing


def running_device_memory(engine: EngineArtifact) -> DeviceMemory:
    """What loading and launching it takes of its device, counted by the requests of its runtime and by our own.

    With as many rows as its profile's maximum, in a fresh process, and with plain launches: a graph has a context of its own.

    Raises:
        InvalidMeasurement: the runtime takes no allocator.
        WorkerFailed: the worker died, hung or babbled.
    """
    with worker_for("device memory", [engine.spec.backend]) as process:
        return EngineWorker(process, ANSWER_S).weigh(engine, rows=engine.spec.batch.maximum, launches=_LAUNCHES)


def running_host_bytes(engine: EngineArtifact) -> int | None:
    """Host memory that loading and launching it adds to a fresh process at most, its library included, in bytes.

    With as many rows as its profile's minimum and one thread, as latency is timed. None where the system does not say.

    Raises:
        WorkerFailed: the worker died, hung or babbled.
    """
    with worker_for("memory", [engine.spec.backend]) as process:
        worker = EngineWorker(process, ANSWER_S)
        loaded = worker.load("engine", engine, rows=engine.spec.batch.minimum, protocol=TimingProtocol(), threads=TIMING_THREADS)
        worker.time("engine", 1, Cache.HOT)
        peak = worker.peak_bytes()
    return None if peak is None or loaded.peak_before_bytes is None else peak - loaded.peak_before_bytes
