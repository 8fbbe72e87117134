"""Counts what an engine takes of the GPU, by TensorRT's own requests to an allocator of ours, and prints a JSON line.

    ENGINEGATE_TENSORRT_HOME=FOLDER python3 benchmarks/allocator_figures.py ENGINE --out FILE

ENGINE is what `enginegate build --backend tensorrt --out DIR` left, with its record beside it; this GPU and release must be those that it
was built with. The checkout need not be installed: numpy and cuda-bindings suffice. The line holds

- `counted`: bytes by phase (load: weights; context: activations; buffers; first launch; launches, which must be 0), and their peak;
- `requests`: TensorRT's own in order, each with its bytes, and how many of them came from another thread than the one that called;
- `engine`: what the engine says of itself (device_memory_size, EngineStat), and what its record says;
- `free_memory`: how far cudaMemGetInfo fell by the end of each phase, with our allocator and, in another process, with TensorRT's own. It
  holds the driver's context, its kernels and its granules, and whatever other processes do: a comparison, and nothing to judge by.

Each way is a process of its own under a time limit, so that one which hangs or aborts costs only its part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOUSE))

from harness.backends import _tensorrt_library as library  # noqa: E402 (the checkout need not be installed)
from harness.backends import tensorrt as backend  # noqa: E402
from harness.backends._allocations import AllocationCounter  # noqa: E402
from harness.backends._counted_session import CountedSession  # noqa: E402
from harness.backends._cuda import Cuda, find_gpu  # noqa: E402
from harness.backends._cuda_session import TensorRtSession  # noqa: E402
from harness.backends._gpu_allocator import CudaBlocks, new_allocator, why_no_allocator  # noqa: E402
from harness.errors import EnginegateError  # noqa: E402
from harness.records.artifacts import EngineArtifact  # noqa: E402
from harness.workers.serving import engine_from_plain, seeded_rows  # noqa: E402

COUNTED, PLAIN = "counted", "TensorRT's own"
LIMIT_S = 240.0
TAIL = 12
MOST = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path, metavar="ENGINE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the line is added to it, and printed")
    parser.add_argument("--rows", type=int, help="batch of the launches (default: the profile's largest)")
    parser.add_argument("--launches", type=int, default=5, help="after the first")
    parser.add_argument("--way", choices=(COUNTED, PLAIN), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        options.out.write_text(json.dumps(_outcome(options)), encoding="utf-8")
        return
    line = json.dumps(_both(options))
    with options.out.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    print(line)


def _both(options: argparse.Namespace) -> dict[str, Any]:
    ways = {way: _in_child(way, options) for way in (COUNTED, PLAIN)}
    line = ways[COUNTED]
    free = {f"with {way} allocator": found.pop("free_memory", None) for way, found in ways.items()}
    return {"engine_file": options.engine.name, **line, "free_memory": free, "error_of_comparison": ways[PLAIN].get("error")}


def _in_child(way: str, options: argparse.Namespace) -> dict[str, Any]:
    home = library.home()
    paths = [str(home / "libs")] if home else []
    env = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [*paths, os.environ.get("LD_LIBRARY_PATH")]))}
    with tempfile.TemporaryDirectory(prefix="allocator-figures-") as folder:
        out = Path(folder) / "line.json"
        command = [sys.executable, str(Path(__file__).resolve()), str(options.engine), "--out", str(out), "--way", way]
        command += ["--launches", str(options.launches), *(["--rows", str(options.rows)] if options.rows else [])]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, env=env, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"hung for {LIMIT_S:g} s"}
        said = (ran.stdout + ran.stderr).strip().splitlines()[-TAIL:]
        found = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"error": "left nothing"}
        # What happens after the line was written, such as a destructor that fails, shows in the status.
        return {**found, "exit_status": ran.returncode, "said": said}


class NotedBlocks(CudaBlocks):
    """CUDA's, with a note of each request."""

    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime)
        self.sizes: list[int] = []
        self.strangers = 0

    def take(self, nbytes: int) -> int:
        """As CUDA gives it."""
        self.sizes.append(nbytes)
        self.strangers += threading.current_thread() is not threading.main_thread()
        return super().take(nbytes)


# -- in a child --------------------------------------------------------------------------------------------------------------------


def _outcome(options: argparse.Namespace) -> dict[str, Any]:
    try:
        return _figures(options)
    except EnginegateError as error:
        return {"error": f"{error.code}: {error}"}
    except Exception as error:  # noqa: BLE001 (a fault of ours, which is told like any other)
        return {"error": f"{type(error).__name__}: {error}"}


def _figures(options: argparse.Namespace) -> dict[str, Any]:
    artifact, record = _left(options.engine)
    gpu, path, content = backend._required(artifact)
    trt = library.load()
    cuda = Cuda()
    start, free = int(cuda("cudaMemGetInfo")), dict[str, int]()

    def note(phase: str) -> None:
        free[phase] = start - int(cuda("cudaMemGetInfo"))

    counter = AllocationCounter() if options.way == COUNTED else None
    if counter is not None and (why_not := why_no_allocator(trt)):
        return {"error": why_not}
    blocks = NotedBlocks(cuda.runtime)
    allocator = new_allocator(trt, counter, blocks) if counter is not None else None
    engine = backend._deserialized(trt, path, content, artifact.spec.options, allocator)
    note("load")
    says = asdict(backend._memory(trt, engine)) | _sizes(engine)
    rows = options.rows or artifact.spec.batch.maximum
    with _session(trt, engine, artifact, gpu.uuid, counter) as session:
        del engine
        note("context")
        feed = session.upload(seeded_rows(session.ports, rows, 0))
        note("buffers")
        for phase, launches in (("first launch", 1), ("launches", options.launches)):
            for _ in range(launches):
                session.launch(feed)
            session.download(feed)
            note(phase)
    note("close")
    found = counter.reading(rows) if counter is not None else None
    return {
        "tensorrt": str(trt.__version__),
        "gpu": str(gpu),
        "driver_cuda": find_gpu().cuda_major,
        "rows": rows,
        COUNTED: None if found is None else asdict(found) | {"peak_bytes": found.peak_bytes, "launch_bytes": found.launch_bytes},
        "requests": {"bytes": blocks.sizes[:MOST], "of_other_threads": blocks.strangers},
        "engine": {"says": says, "record": {name: record.get(name) for name in ("weights_bytes", "activation_bytes", "plan_bytes")}},
        "free_memory": free,
    }


@contextlib.contextmanager
def _session(trt: Any, engine: Any, artifact: EngineArtifact, uuid: str, counter: AllocationCounter | None) -> Iterator[TensorRtSession]:
    batch = artifact.spec.batch
    session = TensorRtSession(trt, engine, batch, uuid) if counter is None else CountedSession(trt, engine, batch, uuid, counter)
    del engine
    try:
        yield session
    finally:
        session.close()


def _sizes(engine: Any) -> dict[str, int]:
    """All that this release has to say of device memory and weights, by its own names."""
    names = ("device_memory_size", "device_memory_size_v2", "streamable_weights_size", "weight_streaming_scratch_memory_size")
    return {name: int(getattr(engine, name)) for name in names if hasattr(engine, name)}


def _left(path: Path) -> tuple[EngineArtifact, dict[str, Any]]:
    """The engine and its record's `engine`; the file is held to the record's digest when it is read."""
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    row = record["engine"]
    arch, _, tower = row["encoder"].rpartition("/")
    plain = {name: row.get(name) for name in ("weights", "recipe", "backend", "target", "batch", "backend_version", "plan_bytes", "device")}
    options = row.get("options") or {}
    return engine_from_plain(
        {**plain, "arch": arch, "tower": tower, "options": options, "path": str(path.absolute()), "sha256": record["sha256"]}
    ), row


if __name__ == "__main__":
    main()
