"""What is asked of a worker that holds engines, in types."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.measure.blocks import WarmUp
from harness.records.artifacts import EngineArtifact
from harness.records.observations import DeviceMemory
from harness.records.timing import Cache, TimingProtocol
from harness.workers.serving import device_memory_from_plain, engine_to_plain
from harness.workers.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine in a worker.

    Attributes:
        ports: its inputs, each as `name dtype [shape]`.
        load_ms: how long the backend took to open it, import of its library included.
        clock: whose clock times it.
        graph: how it is launched, in words.
        device_uuid: the GPU it runs on, as NVML names it; None on the host's processor.
        peak_before_bytes: largest resident set of the worker before it was opened; None where the system does not say.
    """

    ports: tuple[str, ...]
    load_ms: float
    backend_version: str
    clock: str
    graph: str
    device_uuid: str | None
    peak_before_bytes: int | None


@dataclass(frozen=True, slots=True)
class EngineWorker:
    """A worker, asked in types. Every request raises what `Worker.ask` raises, after `timeout_s` seconds at the latest."""

    worker: Worker
    timeout_s: float

    def load(self, key: str, engine: EngineArtifact, *, rows: int, protocol: TimingProtocol, threads: int | None) -> Loaded:
        """Open an engine under the name `key`, with seeded rows uploaded."""
        plain = engine_to_plain(engine)
        answer = self._ask("open", key=key, engine=plain, rows=rows, seed=protocol.seed, threads=threads, graph=protocol.graph)
        return Loaded(**{**answer, "ports": tuple(answer["ports"])})

    def embed(self, engine: EngineArtifact, *, name: str, rows: Path, out: Path) -> None:
        """Run the array `rows` of one npz file through an engine, by its input `name`, and leave what it gives in another."""
        self._ask("embed", engine=engine_to_plain(engine), name=name, rows=str(rows.absolute()), out=str(out.absolute()))

    def weigh(self, engine: EngineArtifact, *, rows: int, launches: int) -> DeviceMemory:
        """What loading an engine and launching it so often, with so many rows, takes of its device."""
        return device_memory_from_plain(self._ask("weigh", engine=engine_to_plain(engine), rows=rows, launches=launches))

    def warm(self, key: str, protocol: TimingProtocol) -> WarmUp:
        """Launch until two windows agree."""
        return WarmUp(**self._ask("warm", key=key, protocol={**asdict(protocol), "cache": str(protocol.cache)}))

    def time(self, key: str, launches: int, cache: Cache) -> tuple[float, ...]:
        """Milliseconds of each launch of one block."""
        return tuple(self._ask("time", key=key, launches=launches, cache=str(cache)))

    def under_load(self, key: str) -> float:
        """Milliseconds of a launch after half a second of them."""
        return self._ask("under_load", key=key)

    def delay(self, key: str, delay_ms: float) -> float:
        """Make its launches longer by so many milliseconds; by how many they are."""
        return self._ask("delay", key=key, delay_ms=delay_ms)

    def peak_bytes(self) -> int | None:
        """Largest resident set so far; None where the system does not say."""
        return self._ask("memory")

    def cold_cache(self) -> str:
        """How it empties its caches, in words."""
        return self._ask("cold_cache")

    def _ask(self, verb: str, **arguments: Any) -> Any:
        return self.worker.ask(verb, timeout_s=self.timeout_s, **arguments)
