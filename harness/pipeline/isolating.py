"""Lets a compiler that can end its process, or leave its GPU unusable there, work in a process of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import Backend, Capability, DeviceBound, LoadsForRows, Say, Session
from harness.errors import BuildFailed, WorkerFailed
from harness.measure.host_memory import built_weighed
from harness.measure.machine import machine_class
from harness.pipeline.names import backend_of
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.machine import Gpu
from harness.store.codec import from_plain

if TYPE_CHECKING:
    from harness.records.spec import EngineSpec
    from harness.workers.worker import Worker

# The slowest build seen, ViT-L-14 at the highest optimization level, took 160 s; ten times that is no build any more.
BUILD_S = 1800.0
# A large engine takes a minute to load from a slow disk; a launch that takes longer than this has hung.
CALL_S = 300.0
_TAIL_LINES = 12
_TAIL_BYTES = 8192


def gpu_of(backend: Backend) -> Gpu | None:
    """The GPU that a backend's engines are bound to; None where they are bound to none, or there is none."""
    return backend.gpu() if isinstance(backend, DeviceBound) else None


def alike_gpus(backend: Backend) -> tuple[Gpu, ...]:
    """The GPU that a backend's engines are bound to and run on, and others of this machine that build the same engines."""
    gpu = gpu_of(backend)
    if gpu is None or not isinstance(backend, DeviceBound):
        return ()
    return (gpu, *(other for other in backend.gpus() if other != gpu and str(other) == str(gpu)))


def machine_class_of(spec: EngineSpec) -> str:
    """Which machines' figures of this engine are comparable with this one's."""
    return machine_class(spec.target, gpu_of(backend_of(spec.backend)))


def worker_for(
    name: str,
    backends: Iterable[str],
    *,
    python: Path | None = None,
    home: Path | None = None,
    gpu: str | None = None,
    start_s: float | None = None,
) -> Worker:
    """A fresh worker for engines of these backends, whose loader finds their libraries. All workers of this room come from here.

    Args:
        name: whom errors speak of.
        python, gpu: see `Worker`.
        home: folder of the TensorRT that it loads, in place of the one that this process would load.
        start_s: seconds until it must have answered; None is the usual time.

    Raises:
        UnknownEnvironment, MissingLibrary, WorkerFailed: see `Worker`.
    """
    from harness.backends.tensorrt_home import HOME, libraries_in
    from harness.workers.worker import START_S, Worker

    bound = (backend for backend in map(backend_of, backends) if isinstance(backend, DeviceBound))
    library_path = libraries_in(home) if home else next(filter(None, (backend.library_path() for backend in bound)), None)
    environ = {HOME: str(home.absolute())} if home else {}
    return Worker(name, python=python, gpu=gpu, start_s=start_s or START_S, library_path=library_path, environ=environ)


def built_apart(
    backend: Backend,
    source: Path,
    spec: EngineSpec,
    folder: Path,
    *,
    limit_s: float = BUILD_S,
    say: Say | None = None,
    gpu: str | None = None,
) -> BuiltFiles:
    """What the backend's build left in `folder`, by a worker where the backend needs one, and what it took of the host's memory.

    Args:
        limit_s: seconds that the build may take in a worker.
        say: called with how far it is, where the backend tells.
        gpu: UUID of the GPU to build on; None leaves the choice to the backend.

    Raises:
        BuildFailed: the worker died, hung or babbled, with the last lines of the build's log; or what the build itself raises.
    """
    if Capability.NEEDS_ISOLATION not in backend.capabilities:
        return built_weighed(backend, source, spec, folder)
    from harness.workers.serving import engine_to_plain

    asked = EngineArtifact(spec=spec, source=None, backend_version="", path=None, sha256=None, plan_bytes=None, build_seconds=0.0)
    try:
        with worker_for(spec.id, [spec.backend], gpu=gpu) as worker:
            plain = engine_to_plain(asked)
            left = worker.ask("build", timeout_s=limit_s, say=say, source=str(source), engine=plain, folder=str(folder))
    except WorkerFailed as error:
        raise BuildFailed(f"{error}{_last_lines(folder)}") from error
    return from_plain(BuiltFiles, left, origin=f"the build of {spec.id}")


@contextmanager
def opened(engine: EngineArtifact) -> Generator[Session]:
    """A session of the engine for its rows, in a worker where its backend can poison the process that it runs in.

    Where batches can run side by side each has one thread: little of a CPU's FP8 runs on several. Rows then depend neither on the number
    of processors, by which products are cut and so rounded, nor on who launches them.

    Raises:
        WorkerFailed: the worker died, hung or babbled, now or in any later call: this engine is lost, and no other.
    """
    backend = backend_of(engine.spec.backend)
    if Capability.NEEDS_ISOLATION not in backend.capabilities:
        threads = 1 if Capability.LAUNCHES_AT_ONCE in backend.capabilities else None
        load = backend.open_for_rows if isinstance(backend, LoadsForRows) else backend.open
        with load(engine, threads=threads) as session:
            yield session
        return
    from harness.workers.sessions import WorkerSession

    with worker_for(engine.spec.id, [engine.spec.backend]) as worker:
        yield WorkerSession(worker, engine, timeout_s=CALL_S)


def _last_lines(folder: Path) -> str:
    """The end of whatever log a build left before its process ended."""
    for log in sorted(folder.glob("*.log")):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        if lines:
            return f"\nits {log.name} ends with\n" + "\n".join(f"  {line[:400]}" for line in lines)
    return ""
