"""What runs inside a worker: opens engines, times blocks of launches, and answers one request at a time.

It is imported in environments that have nothing of this project: numpy, the standard library and the backend's own library suffice.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends.refusals import require_possible
from harness.backends.registry import get_backend
from harness.contracts import (
    Action,
    CountsDeviceMemory,
    Delayable,
    DeviceTimed,
    Feed,
    InputPort,
    Limited,
    Say,
    SelfDescribed,
    Session,
    TellsProgress,
)
from harness.errors import EnginegateError, OutsideProfile, UnusableInputs, WorkerFailed
from harness.measure.blocks import clock_of, launches_a_block, time_block, warm_up
from harness.measure.cold_cache import ColdCache
from harness.measure.delay import DelayedSession
from harness.measure.embeddings import embed
from harness.measure.host_memory import built_weighed, peak_bytes
from harness.measure.layer_times import profiled
from harness.measure.ranges import named
from harness.records.artifacts import EngineArtifact
from harness.records.observations import DeviceMemory, DevicePhase, EncoderInputs, PhaseBytes, Tensors
from harness.records.spec import BatchProfile, BuildOptions, EncoderSpec, EngineSpec, Recipe
from harness.records.timing import Cache, TimingProtocol

SO_FAR = "so far"

# Token ids below this exist in every tokenizer of the CLIP family; a launch takes as long with one as with another.
_FIRST_TOKENS = 256
# How long an engine runs, and in blocks of what length, before its launches are taken for what they are under load.
_LOAD_S, _LOAD_BLOCK_MS = 0.5, 100.0


def serve(channel: Any) -> None:
    """Answer requests `[number, verb, arguments]` with `[number, "ok", answer]` or `[number, "error", class, words]` until none comes.

    Before an answer there may be any number of `[number, "so far", words]`.
    """
    with ExitStack() as stack:
        desk = Desk(stack)
        for number, verb, arguments in channel:
            desk.say = partial(_so_far, channel, number)
            channel.send([number, *_answer(desk, verb, arguments)])


def _so_far(channel: Any, number: int, words: str) -> None:
    channel.send([number, SO_FAR, words])


def _answer(desk: Desk, verb: str, arguments: dict[str, Any]) -> list[Any]:
    try:
        return ["ok", getattr(desk, verb)(**arguments)]
    except EnginegateError as error:
        return ["error", type(error).__name__, str(error)]
    # Whatever else a vendor's library raises must reach the parent in words, and leave the worker answering.
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return ["error", WorkerFailed.__name__, f"{type(error).__name__}: {error}"]


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    session: Session
    feed: Feed
    launched: str


class Desk:
    """The verbs of a worker. Arguments and answers are plain values, since they cross processes."""

    def __init__(self, stack: ExitStack) -> None:
        self.say: Say = lambda words: None
        self._stack = stack
        self._opened: dict[str, _Opened] = {}
        self._cold: ColdCache | None = None
        self._session: Session | None = None
        self._feeds: dict[int, Feed] = {}
        self._uploads = 0

    def hello(self) -> dict[str, Any]:
        """Who answers."""
        return {"pid": os.getpid(), "python": platform.python_version(), "cpu_s": time.process_time(), "peak_bytes": peak_bytes()}

    def build(self, source: str, engine: dict[str, Any], folder: str) -> dict[str, Any]:
        """Have the engine's backend build it of an ONNX file, into `folder`; what it left there, as plain values."""
        spec = engine_from_plain(engine).spec
        backend = get_backend(spec.backend)
        if isinstance(backend, TellsProgress):
            backend = backend.telling(self.say)
        return asdict(built_weighed(backend, Path(source), spec, Path(folder)))

    def open(self, key: str, engine: dict[str, Any], rows: int, seed: int, threads: int | None, graph: bool) -> dict[str, Any]:
        """Load an engine and upload seeded rows.

        Args:
            key: name of the engine in later requests.
            engine: see `engine_to_plain`.
            rows: batch of every launch.
            seed: of the rows.
            graph: whether launches should be graph replays where the session can.
        """
        artifact = engine_from_plain(engine)
        backend = get_backend(artifact.spec.backend)
        require_possible(backend, Action.RUN, artifact.spec)
        if rows not in artifact.spec.batch:
            raise OutsideProfile(f"a batch of {rows} lies outside the profile {artifact.spec.batch} of {artifact.spec.id}")
        before, started = peak_bytes(), time.perf_counter()
        session = self._stack.enter_context(backend.open(artifact, threads=threads))
        load_ms = (time.perf_counter() - started) * 1e3
        ports = _ports(session, artifact.spec)
        feed = session.upload(seeded_rows(ports, rows, seed))
        device = _device(session, feed, graph=graph)
        self._opened[key] = _Opened(session, feed, device["graph"])
        return {
            "load_ms": load_ms,
            "ports": [str(port) for port in ports],
            "backend_version": backend.version,
            "clock": clock_of(session),
            "peak_before_bytes": before,
            **device,
        }

    def embed(self, engine: dict[str, Any], name: str, rows: str, out: str) -> None:
        """Run a file of rows through an engine.

        Args:
            engine: see `engine_to_plain`.
            name: its input.
            rows: npz file with the array `rows`.
            out: npz file to write, with the array `rows`: float32 [n, d].
        """
        artifact = engine_from_plain(engine)
        backend = get_backend(artifact.spec.backend)
        require_possible(backend, Action.RUN, artifact.spec)
        with np.load(rows, allow_pickle=False) as arrays:
            given = arrays["rows"]
        inputs = EncoderInputs(name=name, rows=given, ids=tuple(map(str, range(len(given)))), digest="")
        with backend.open(artifact) as session:
            made = embed(session, inputs, profile=artifact.spec.batch, made_by=artifact.spec.id)
        np.savez(out, rows=made.rows)

    def begin(self, engine: dict[str, Any], threads: int | None) -> list[tuple[str, str, tuple[int | None, ...]]]:
        """Load the one engine that `put`, `launch` and `fetch` are about; its inputs, each as name, type and shape."""
        artifact = engine_from_plain(engine)
        backend = get_backend(artifact.spec.backend)
        require_possible(backend, Action.RUN, artifact.spec)
        self._session = self._stack.enter_context(backend.open(artifact, threads=threads))
        return [(port.name, port.dtype.str, port.shape) for port in _ports(self._session, artifact.spec)]

    def put(self, inputs: dict[str, Any], dropped: list[int]) -> int:
        """Upload one batch, and forget those that nobody holds any more; its number."""
        for number in dropped:
            self._feeds.pop(number, None)
        feed = self._begun.upload({name: array_from_plain(plain) for name, plain in inputs.items()})
        self._uploads += 1
        self._feeds[self._uploads] = feed
        return self._uploads

    def launch(self, feed: int) -> None:
        """Launch the batch of that number."""
        self._begun.launch(self._feeds[feed])

    def fetch(self, feed: int) -> dict[str, Any]:
        """What its last launch gave."""
        return {name: array_to_plain(array) for name, array in self._begun.download(self._feeds[feed]).items()}

    def warm(self, key: str, protocol: dict[str, Any]) -> dict[str, Any]:
        """Launch until two windows agree."""
        policy = TimingProtocol(**{**protocol, "cache": Cache(protocol["cache"])})
        return asdict(warm_up(lambda launches: self._timed(key, launches, policy.cache), policy))

    def profile(self, key: str, name: str, rows: int, launches: int, warm_up: int) -> dict[str, Any]:
        """How long each layer of an opened engine takes; see `measure.layer_times.profiled`."""
        opened = self._opened[key]
        seen = profiled(opened.session, opened.feed, name=name, rows=rows, launches=launches, warm_up=warm_up, launched=opened.launched)
        return asdict(seen)

    def weigh(self, engine: dict[str, Any], rows: int, launches: int) -> dict[str, Any]:
        """What loading and launching an engine takes of its device; see `device_memory_to_plain`.

        Args:
            engine: see `engine_to_plain`.
            rows: batch of every launch.
            launches: how many, of which the first may take memory of its own.
        """
        artifact = engine_from_plain(engine)
        backend = get_backend(artifact.spec.backend)
        require_possible(backend, Action.RUN, artifact.spec)
        if not isinstance(backend, CountsDeviceMemory):
            raise UnusableInputs(f"backend {backend.name} does not count what its engines take of a device")
        with backend.open_counted(artifact) as session:
            feed = session.upload(seeded_rows(_ports(session, artifact.spec), rows, 0))
            for _ in range(launches):
                session.launch(feed)
            session.download(feed)
        return device_memory_to_plain(session.device_memory(rows))

    def ceilings(self, backend: str, folder: str) -> dict[str, Any]:
        """How fast a backend's device is at best."""
        limited = get_backend(backend)
        if not isinstance(limited, Limited):
            raise UnusableInputs(f"backend {backend} does not measure how fast its device is at best")
        return asdict(limited.ceilings(Path(folder)))

    def time(self, key: str, launches: int, cache: str) -> list[float]:
        """Milliseconds of each launch of one block."""
        with named(f"{key}: {launches} timed launches, {cache}"):  # around the block, and nothing between its launches
            return list(self._timed(key, launches, Cache(cache)))

    def under_load(self, key: str) -> float:
        """Milliseconds of a launch once clocks have fallen: what a warm-up of a few windows sees is not what blocks see."""
        end = time.monotonic() + _LOAD_S
        launches = 1
        while True:
            ms = median(self._timed(key, launches, Cache.HOT))
            if time.monotonic() >= end:
                return ms
            launches = launches_a_block(ms, _LOAD_BLOCK_MS)

    def delay(self, key: str, delay_ms: float) -> float:
        """Make the engine's launches longer by so many milliseconds; by how many they are."""
        opened = self._opened[key]
        session = opened.session if isinstance(opened.session, Delayable) else DelayedSession(opened.session)
        self._opened[key] = _Opened(session, opened.feed, opened.launched)
        return session.delay(opened.feed, delay_ms)

    def loaded(self) -> list[str]:
        """Names of the modules it has imported."""
        return sorted(sys.modules)

    def memory(self) -> int | None:
        """Largest resident set of this process so far, in bytes."""
        return peak_bytes()

    def cold_cache(self) -> str:
        """How caches are emptied, in words."""
        timed = next((opened.session for opened in self._opened.values() if isinstance(opened.session, DeviceTimed)), None)
        return str(self._walked()) if timed is None else timed.cold_cache

    @property
    def _begun(self) -> Session:
        if self._session is None:
            raise WorkerFailed("no engine was loaded in this worker; begin with one")
        return self._session

    def _timed(self, key: str, launches: int, cache: Cache) -> tuple[float, ...]:
        opened = self._opened[key]
        return time_block(opened.session, opened.feed, launches, cold=self._walked() if cache is Cache.COLD else None)

    def _walked(self) -> ColdCache:
        self._cold = self._cold or ColdCache()
        return self._cold


def seeded_rows(ports: tuple[InputPort, ...], rows: int, seed: int) -> Tensors:
    """Random rows for each input: standard normal, or token ids that every tokenizer has.

    Raises:
        UnusableInputs: an axis other than the first may have any length, so that nobody knows how long it should be.
    """
    rng = np.random.default_rng(seed)
    return {port.name: _random(port, rows, rng) for port in ports}


def _random(port: InputPort, rows: int, rng: np.random.Generator) -> np.ndarray:
    inner = [length for length in port.shape[1:] if length is not None]
    if len(inner) != len(port.shape) - 1:
        raise UnusableInputs(f"input {port} has axes of any length beside the batch; expected fixed ones; export the encoder with one size")
    if port.shape[0] not in (None, rows):
        raise OutsideProfile(f"input {port} takes a batch of {port.shape[0]} and no other; {rows} was asked for")
    if port.dtype.kind == "i":
        return rng.integers(1, _FIRST_TOKENS, (rows, *inner)).astype(port.dtype)
    return rng.standard_normal((rows, *inner), np.float32).astype(port.dtype)


def _ports(session: Session, spec: EngineSpec) -> tuple[InputPort, ...]:
    if not isinstance(session, SelfDescribed):
        raise UnusableInputs(f"a session of backend {spec.backend} does not say what it takes, so no rows can be made for it")
    return tuple(session.ports)


def _device(session: Session, feed: Feed, *, graph: bool) -> dict[str, Any]:
    if not isinstance(session, DeviceTimed):
        return {"device_uuid": None, "graph": "plain launches, timed by the host; this backend has no graphs"}
    if not graph:
        return {"device_uuid": session.device_uuid, "graph": "plain launches, as asked"}
    why_not = session.capture(feed)
    return {"device_uuid": session.device_uuid, "graph": f"plain launches: {why_not}" if why_not else "graph replays"}


def array_to_plain(array: NDArray[np.generic]) -> tuple[str, tuple[int, ...], tuple[int, ...], bytes]:
    """An array as values that cross processes: type, shape, steps between values in bytes, and the values one after another."""
    return (array.dtype.str, array.shape, array.strides, np.ascontiguousarray(array).tobytes())


def array_from_plain(plain: Sequence[Any]) -> NDArray[Any]:
    """The array that `array_to_plain` described, with the same gaps between its values."""
    dtype, shape, strides, content = np.dtype(plain[0]), tuple(plain[1]), tuple(plain[2]), plain[3]
    packed = np.frombuffer(bytearray(content), dtype).reshape(shape)
    if strides == packed.strides or not packed.size or min(strides) <= 0:
        return packed
    reach = sum((length - 1) * step for length, step in zip(shape, strides, strict=True)) + dtype.itemsize
    spread = np.ndarray(shape, dtype, bytearray(reach), 0, strides)
    spread[...] = packed
    return spread


def device_memory_to_plain(seen: DeviceMemory) -> dict[str, Any]:
    """Counted memory as values that cross processes."""
    phases = [{**asdict(phase), "phase": str(phase.phase)} for phase in seen.phases]
    return {"rows": seen.rows, "troubles": list(seen.troubles), "phases": phases}


def device_memory_from_plain(plain: dict[str, Any]) -> DeviceMemory:
    """The memory that `device_memory_to_plain` described."""
    phases = tuple(PhaseBytes(**{**phase, "phase": DevicePhase(phase["phase"])}) for phase in plain["phases"])
    return DeviceMemory(phases=phases, rows=plain["rows"], troubles=tuple(plain["troubles"]))


def engine_to_plain(engine: EngineArtifact) -> dict[str, Any]:
    """The engine as values that cross processes."""
    spec = engine.spec
    return {
        "arch": spec.encoder.arch,
        "tower": str(spec.encoder.tower),
        "weights": spec.encoder.weights,
        "recipe": str(spec.recipe),
        "backend": spec.backend,
        "target": spec.target,
        "batch": str(spec.batch),
        "options": asdict(spec.options),
        "backend_version": engine.backend_version,
        "path": str(engine.path) if engine.path else None,
        "sha256": engine.sha256,
        "plan_bytes": engine.plan_bytes,
        "device": engine.device,
    }


def engine_from_plain(plain: dict[str, Any]) -> EngineArtifact:
    """The engine that `engine_to_plain` described."""
    spec = EngineSpec(
        encoder=EncoderSpec.parse(f"{plain['arch']}/{plain['tower']}", weights=plain["weights"]),
        recipe=Recipe(plain["recipe"]),
        backend=plain["backend"],
        target=plain["target"],
        batch=BatchProfile.parse(plain["batch"]),
        options=BuildOptions(**plain["options"]),
    )
    return EngineArtifact(
        spec=spec,
        source=None,
        backend_version=plain["backend_version"],
        path=Path(plain["path"]) if plain["path"] else None,
        sha256=plain["sha256"],
        plan_bytes=plain["plan_bytes"],
        build_seconds=0.0,
        device=plain["device"],
    )
