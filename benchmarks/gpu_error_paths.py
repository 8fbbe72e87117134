"""Makes on a real GPU what goes wrong there, and prints a JSON line for each with the event that it became.

    python benchmarks/gpu_error_paths.py --prepared PREPARED --out results.jsonl

PREPARED is what `enginegate prepare --out PREPARED --encoders emoji-clip/text --encoders emoji-clip/image --recipes fp16 --recipes linear`
leaves. ENGINEGATE_TENSORRT_HOME names a folder with TensorRT's libraries in libs/ and its Python module in python/; without it, an
installed `tensorrt` is used. torch and cupy are used where they are installed.

Every step is a process of its own under a time limit, so one that aborts, hangs or leaves the GPU unusable costs only its line, and lines
are written as they come. `as_expected` says whether the event was the one that the step is about; a step that shows a figure has none.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HOUSE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOUSE))

from harness.errors import EnginegateError  # noqa: E402 (the checkout need not be installed)
from harness.records.artifacts import EngineArtifact  # noqa: E402
from harness.records.spec import BatchProfile, BuildOptions, EncoderSpec, EngineSpec, Recipe  # noqa: E402
from harness.workers.worker import Worker  # noqa: E402

HOME = "ENGINEGATE_TENSORRT_HOME"
FIXED = "32/32/32"
# A vocabulary's last token closes each caption, and a text tower looks for the largest number.
FIRST_TOKEN, LAST_TOKEN = 1, 255
TAIL = 6
GIB = 2**30
SMALLEST_BLOCK = 2**16

# Stores to an address that no allocation has: an error that the context never recovers from.
POKE = b"""
.version 7.8
.target sm_80
.address_size 64
.visible .entry poke()
{
    .reg .b64 %rd<2>;
    .reg .b32 %r<2>;
    mov.u64 %rd1, 16;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
\0"""


@dataclass(frozen=True, slots=True)
class Step:
    """What is tried.

    Attributes:
        expects: codes of the event that it should become; empty for a figure.
        limit_s: seconds after which it counts as hung.
    """

    name: str
    run: Callable[[Work], Any]
    expects: tuple[str, ...] = ()
    limit_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """Where a step finds what others left."""

    prepared: Path
    folder: Path

    def onnx(self, recipe: str, tower: str = "text") -> Path:
        """An exported encoder."""
        return self.prepared / f"emoji-clip-{tower}-{recipe}.onnx"

    def plan(self, recipe: str = "fp16") -> EngineArtifact:
        """The engine that an earlier step built."""
        folder = self.folder / f"plan-{recipe}"
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return EngineArtifact(
            spec=spec_of(recipe),
            source=None,
            backend_version=facts["version"],
            path=folder / facts["engine"],
            sha256=None,
            plan_bytes=None,
            build_seconds=facts["seconds"],
            device=facts["device"],
        )

    def altered(self, name: str, change: Callable[[bytes], bytes]) -> EngineArtifact:
        """That engine with other bytes, under a record that does not know."""
        engine = self.plan()
        assert engine.path is not None
        path = self.folder / f"{name}.engine"
        path.write_bytes(change(engine.path.read_bytes()))
        return replace(engine, path=path)


def spec_of(recipe: str, *, tower: str = "text", batch: str = FIXED, options: BuildOptions | None = None) -> EngineSpec:
    """An engine of emoji-clip."""
    return EngineSpec(
        encoder=EncoderSpec.parse(f"emoji-clip/{tower}"),
        recipe=Recipe(recipe),
        backend="tensorrt",
        batch=BatchProfile.parse(batch),
        options=options or BuildOptions(),
    )


# -- the steps ---------------------------------------------------------------------------------------------------------------------


def machine(_: Work) -> dict[str, Any]:
    """What all of this was seen on."""
    from harness.backends._cuda import find_gpu
    from harness.backends.tensorrt import TensorRtBackend
    from harness.need import version_of

    found = find_gpu()
    names = ("torch", "cupy-cuda13x", "cupy-cuda12x", "cuda-bindings", "cuda-core", "numpy")
    versions = {name: version for name in names if (version := version_of(name))}
    driver = ""
    with contextlib.suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    gpu = None if found.gpu is None else {**asdict(found.gpu), "why_not": found.why_not}
    return {"gpu": gpu, "driver": driver, "tensorrt": TensorRtBackend().version, "python": sys.version.split()[0], **versions}


def gpu_by_uuid(_: Work) -> dict[str, Any]:
    """The GPU that is named is the only one that CUDA shows."""
    from harness.backends._cuda import find_gpu
    from harness.measure.gpu_choice import chosen_gpus, gpus_here, use_gpu

    here = gpus_here()
    use_gpu(chosen_gpus([here[-1]], here)[0])
    found = find_gpu().gpu
    return {"here": list(here), "chosen": here[-1], "cuda_shows": None if found is None else found.uuid}


def unknown_gpu(_: Work) -> None:
    """A UUID that is none of them."""
    from harness.measure.gpu_choice import chosen_gpus, gpus_here

    chosen_gpus(["GPU-00000000-dead"], gpus_here())


def build_fp16(work: Work) -> dict[str, Any]:
    """The plan that later steps need, by a worker that says how far it is."""
    return built(work, "plan-fp16", spec_of("fp16"), work.onnx("fp16"))


def build_linear(work: Work) -> dict[str, Any]:
    """FP8 for a fixed batch."""
    return built(work, "plan-linear", spec_of("linear"), work.onnx("linear"))


def open_batch(work: Work) -> dict[str, Any]:
    """FP8 for a batch that changes."""
    return built(work, "open-linear", spec_of("linear", batch="1/8/64"), work.onnx("linear"))


def broken_onnx(work: Work) -> dict[str, Any]:
    """A node that the parser has no name for."""
    content = work.onnx("fp16").read_bytes()
    assert content.count(b"MatMul") > 0
    path = work.folder / "broken.onnx"
    path.write_bytes(content.replace(b"\x22\x06MatMul", b"\x22\x06MatMuh", 1))  # field 4 of a NodeProto: its operator, six letters
    return built(work, "broken", spec_of("fp16"), path)


def cut_onnx(work: Work) -> dict[str, Any]:
    """The first half of a file."""
    content = work.onnx("fp16").read_bytes()
    path = work.folder / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    return built(work, "cut", spec_of("fp16"), path)


def too_large_profile(work: Work) -> dict[str, Any]:
    """A profile that no GPU holds."""
    return built(work, "too-large", spec_of("fp16", batch="1/1/2000000"), work.onnx("fp16"))


def truncated_plan(work: Work) -> dict[str, Any]:
    """Half of a plan."""
    return ran(work.altered("truncated", lambda plan: plan[: len(plan) // 2]))


def altered_head(work: Work) -> dict[str, Any]:
    """Another byte near the beginning."""
    return ran(work.altered("head", lambda plan: flipped(plan, 16)))


def altered_middle(work: Work) -> dict[str, Any]:
    """Another byte in the middle, where weights are: TensorRT does not look, so the record's digest has to."""
    return ran(work.altered("middle", lambda plan: flipped(plan, len(plan) // 2)))


def other_digest(work: Work) -> dict[str, Any]:
    """The same byte, under a record with the plan's digest."""
    engine = work.plan()
    assert engine.path is not None
    digest = hashlib.sha256(engine.path.read_bytes()).hexdigest()
    return ran(replace(work.altered("digest", lambda plan: flipped(plan, len(plan) // 2)), sha256=digest))


def no_plan(work: Work) -> dict[str, Any]:
    """A file of zeros."""
    return ran(work.altered("zeros", lambda plan: b"\0" * 4096))


def other_gpu(work: Work) -> dict[str, Any]:
    """A record that names another GPU."""
    return ran(replace(work.plan(), device="NVIDIA L4 (SM89)"))


def other_release(work: Work) -> dict[str, Any]:
    """A record that names another release."""
    return ran(replace(work.plan(), backend_version="10.15.1.29"))


def altered_release(work: Work) -> dict[str, Any]:
    """What TensorRT makes of a plan whose own header names another release; a figure, since in use our record refuses it before."""
    from harness.backends.tensorrt import release_of_plan

    engine = work.plan()
    assert engine.path is not None
    head = engine.path.read_bytes()[:64]
    figures = {"header": release_of_plan(head), "head": head.hex(" ")}
    if figures["header"] is None:
        return {**figures, "seen": "the release is not where trtexec reads it"}
    altered = work.altered("release", with_other_release)
    try:
        return {**figures, "seen": "it runs: TensorRT does not look at the release in the header", **ran(altered)}
    except EnginegateError as error:
        return {**figures, "seen": f"it is refused as {error.code}: {error}"[:1500]}


def outside_profile(work: Work) -> dict[str, Any]:
    """One row more than the plan takes."""
    return ran(work.plan(), rows=33)


def no_room_at_run(work: Work) -> dict[str, Any]:
    """Open an engine where others hold the memory."""
    with memory_taken() as taken:
        return {**ran(work.plan()), "taken_bytes": taken}


def no_room_at_build(work: Work) -> dict[str, Any]:
    """Build an engine where others hold the memory."""
    with memory_taken(leave=700):  # for a context and little more: without one the builder ends its process
        return built(work, "no-room", spec_of("fp16"), work.onnx("fp16"))


def profile_beyond_memory(work: Work) -> dict[str, Any]:
    """A profile whose activations need more than is free."""
    spec = spec_of("fp16", batch="1/1/50000")
    made = built(work, "large", spec, work.onnx("fp16"))
    with memory_taken(leave=1024) as taken:
        return {**ran(engine_of(made, spec), rows=1), "activation_bytes": made["memory"]["activation_bytes"], "taken_bytes": taken}


def no_room_at_upload(work: Work) -> dict[str, Any]:
    """Memory runs out after the engine was opened."""
    from harness.backends.tensorrt import TensorRtBackend

    with TensorRtBackend().open(work.plan()) as session, memory_taken():
        feeds = []
        for _ in range(100_000):
            feeds.append(session.upload(rows_for(session, 32)))
        return {"feeds": len(feeds)}


def failed_capture(work: Work) -> dict[str, Any]:
    """A launch that waits for its stream while it is captured: CUDA refuses the graph, and launches stay plain."""
    from harness.backends._cuda_session import CudaFeed
    from harness.backends.tensorrt import TensorRtBackend

    with TensorRtBackend().open(work.plan()) as session:
        feed = session.upload(rows_for(session, 32))
        session.launch(feed)
        plain = session.download(feed)
        enqueue = session._enqueue

        def waiting(context: Any, feed: CudaFeed) -> None:
            enqueue(context, feed)
            if is_capturing(session):
                session._wait()

        session._enqueue = waiting
        words = session.capture(feed)
        session._enqueue = enqueue
        session.launch(feed)
        after = session.download(feed)
        other = session.upload(rows_for(session, 32))
        again = session.capture(other)
    return {
        "capture_said": words,
        "launches_stay_plain": feed.graph is None,
        "same_result_after": same(plain, after),
        "another_feed_is_captured": again is None,
        "as_expected": words is not None and feed.graph is None and same(plain, after) and again is None,
    }


def sticky_error(work: Work) -> dict[str, Any]:
    """A store to an address that nobody has, between two launches. The context is lost for this process."""
    from harness.backends.tensorrt import TensorRtBackend

    with TensorRtBackend().open(work.plan()) as session:
        feed = session.upload(rows_for(session, 32))
        session.launch(feed)
        poke(session.stream)
        session.launch(feed)
        session.download(feed)
    return {}


def sticky_error_in_a_worker(work: Work) -> dict[str, Any]:
    """The worker whose context was lost says so, at once and at every later request, and another worker runs the same engine."""
    engine, words = work.plan(), []
    with PokedWorker("poked", library_path=libraries()) as worker:
        for _ in range(2):
            try:
                worker.ask("poke_and_run", timeout_s=60, engine=plain(engine))
                words.append("nothing went wrong")
            except EnginegateError as error:
                words.append(f"{error.code}: {error}"[:300])
    with Worker("next", library_path=libraries()) as worker:
        opened = worker.ask("open", timeout_s=60, key="k", engine=plain(engine), rows=32, seed=0, threads=None, graph=True)
        times = worker.ask("time", timeout_s=60, key="k", launches=3, cache="hot")
    return {
        "poked": words,
        "next_worker": opened["graph"],
        "ms": times,
        "as_expected": all(one.startswith("context_lost") for one in words),
    }


def no_driver(_: Work) -> dict[str, Any]:
    """CUDA shows no GPU."""
    return built_blind(_)


def others_compute(work: Work) -> dict[str, Any]:
    """Another process holds the GPU while this one is to be timed."""
    from harness.backends._cuda import Cuda, find_gpu
    from harness.pipeline.guarding import guarded

    holder = subprocess.Popen(
        [sys.executable, "-c", "from harness.backends._cuda import Cuda; Cuda(); print('holds', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        gpu = find_gpu().gpu
        assert gpu is not None
        Cuda()
        with guarded(gpu.uuid, ours=0, lock=False) as guard:
            return {"guard": guard.words()}
    finally:
        holder.communicate(b"\n", timeout=20)


def dlpack_torch(work: Work) -> dict[str, Any]:
    """Tensors of torch go in and come out without a copy, in order with work on another stream."""
    torch = importlib.import_module("torch")
    side = torch.cuda.Stream()

    def late(rows: np.ndarray) -> Any:
        with torch.cuda.stream(side):
            tensor = torch.zeros(rows.shape, dtype=torch.from_numpy(rows).dtype, device="cuda")
            torch.cuda._sleep(200_000_000)  # 0.1 s at least: what reads it without waiting reads zeros
            tensor.copy_(torch.from_numpy(rows).pin_memory(), non_blocking=True)
            # torch exports for the stream that is current.
            return tensor, Exporter(tensor, lambda: torch.cuda.stream(side))

    return dlpack(work, late, torch.from_dlpack, lambda tensor: tensor.data_ptr(), lambda tensor: tensor.cpu().numpy())


def dlpack_cupy(work: Work) -> dict[str, Any]:
    """The same with arrays of cupy."""
    cupy = importlib.import_module("cupy")

    def given(rows: np.ndarray) -> Any:
        array = cupy.asarray(rows)
        return array, array

    return dlpack(work, given, cupy.from_dlpack, lambda array: array.data.ptr, cupy.asnumpy)


def timing_cache(work: Work) -> dict[str, Any]:
    """Seconds of a build without a cache of kernel times, with an empty one, and with what that left."""
    path = work.folder / "times.bin"
    seconds, notes = {}, []
    for name, file in (("none", None), ("empty", path), ("filled", path)):
        options = BuildOptions(timing_cache=str(file) if file else None)
        made = built(work, f"times-{name}", spec_of("fp16", options=options), work.onnx("fp16"))
        seconds[name] = made["seconds"]
        notes += made["notes"]
    return {"build_seconds": seconds, "cache_bytes": path.stat().st_size, "notes": notes}


def refused_timing_cache(work: Work) -> dict[str, Any]:
    """A file of kernel times that is none."""
    path = work.folder / "nonsense.bin"
    path.write_bytes(b"no kernel times\n" * 100)
    return built(work, "refused-times", spec_of("fp16", options=BuildOptions(timing_cache=str(path))), work.onnx("fp16"))


def levels(work: Work) -> dict[str, Any]:
    """Build seconds and latency by the builder's optimization level, image tower, FP8."""
    found = {}
    for level in (None, 2, 5):
        name = "default" if level is None else str(level)
        engine = spec_of("linear", tower="image", options=BuildOptions(optimization_level=level))
        made = built(work, f"level-{name}", engine, work.onnx("linear", "image"))
        found[name] = {"build_seconds": made["seconds"], "plan_bytes": made["plan_bytes"], "ms": latency(made, engine)}
        print(json.dumps(found), file=sys.stderr, flush=True)  # so that a step that is cut has left what it knew
    return found


def small_workspace(work: Work) -> dict[str, Any]:
    """A build whose kernels may take a mebibyte of scratch memory."""
    return built(work, "workspace", spec_of("fp16", options=BuildOptions(workspace_mib=1)), work.onnx("fp16"))


# What needs no plan, what needs one, and what takes the whole GPU and so runs alone.
BUILDS = (
    Step("build_fp16", build_fp16, limit_s=120),
    Step("build_linear", build_linear, limit_s=120),
    Step("open_batch", open_batch, expects=("needs_fixed_batch",), limit_s=120),
    Step("broken_onnx", broken_onnx, expects=("unusable_graph",)),
    Step("cut_onnx", cut_onnx, expects=("unusable_graph",)),
    # Refused once the builder has loaded its kernels. As long as a build, so that one that goes on is told from one that hangs.
    Step("refused_timing_cache", refused_timing_cache, expects=("unusable_timing_cache",), limit_s=120),
    Step("small_workspace", small_workspace, limit_s=120),
    Step("gpu_by_uuid", gpu_by_uuid),
    Step("unknown_gpu", unknown_gpu, expects=("unknown_name",)),
    Step("no_driver", no_driver, expects=("missing_device",)),
)
RUNS = (
    Step("truncated_plan", truncated_plan, expects=("unusable_engine",)),
    Step("altered_head", altered_head, expects=("unusable_engine",)),
    Step("altered_middle", altered_middle),
    Step("other_digest", other_digest, expects=("unusable_engine",)),
    Step("no_plan", no_plan, expects=("unusable_engine",)),
    Step("other_gpu", other_gpu, expects=("unusable_engine",)),
    Step("other_release", other_release, expects=("unusable_engine",)),
    Step("altered_release", altered_release),
    Step("outside_profile", outside_profile, expects=("outside_profile",)),
    Step("failed_capture", failed_capture),
    Step("sticky_error", sticky_error, expects=("context_lost",)),
    Step("sticky_error_in_a_worker", sticky_error_in_a_worker),
    Step("others_compute", others_compute, expects=("invalid_measurement",)),
    Step("dlpack_torch", dlpack_torch),
    Step("dlpack_cupy", dlpack_cupy),
)
ALONE = (
    Step("no_room_at_run", no_room_at_run, expects=("out_of_device_memory",)),
    Step("no_room_at_upload", no_room_at_upload, expects=("out_of_device_memory",)),
    Step("profile_beyond_memory", profile_beyond_memory, expects=("out_of_device_memory",), limit_s=90),
    Step("no_room_at_build", no_room_at_build, expects=("out_of_device_memory",), limit_s=90),
    Step("timing_cache", timing_cache, limit_s=180),
    Step("too_large_profile", too_large_profile, expects=("out_of_device_memory", "build_failed"), limit_s=60),
    Step("levels", levels, limit_s=240),
)
STEPS = {step.name: step for step in (Step("machine", machine), *BUILDS, *RUNS, *ALONE)}


# -- what they share ---------------------------------------------------------------------------------------------------------------


def built(work: Work, name: str, spec: EngineSpec, source: Path) -> dict[str, Any]:
    """Build by a worker, as the pipeline does; its files stay in the folder of that name."""
    folder, said = work.folder / name, []
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with Worker(spec.id, library_path=libraries()) as worker:
        asked = EngineArtifact(spec=spec, source=None, backend_version="", path=None, sha256=None, plan_bytes=None, build_seconds=0.0)
        left = worker.ask("build", timeout_s=600, say=said.append, source=str(source), engine=plain(asked), folder=str(folder))
    from harness.backends.tensorrt import TensorRtBackend

    facts = {**left, "version": TensorRtBackend().version, "seconds": round(time.monotonic() - started, 1)}
    facts["plan_bytes"] = (folder / left["engine"]).stat().st_size
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return {**facts, "folder": str(folder), "progress_lines": len(said), "progress_ends": said[-3:]}


def built_blind(work: Work) -> dict[str, Any]:
    """Build where CUDA shows no GPU."""
    from harness.backends.tensorrt import TensorRtBackend

    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    TensorRtBackend().build(work.onnx("fp16"), spec_of("fp16"), work.folder)
    return {}


def ran(engine: EngineArtifact, *, rows: int = 32) -> dict[str, Any]:
    """Open, and run one batch."""
    from harness.backends.tensorrt import TensorRtBackend

    with TensorRtBackend().open(engine) as session:
        feed = session.upload(rows_for(session, rows))
        session.launch(feed)
        (made,) = session.download(feed).values()
    return {"shape": list(made.shape), "finite": bool(np.isfinite(made).all()), "sum": float(made.astype(np.float64).sum())}


def rows_for(session: Any, rows: int) -> dict[str, np.ndarray]:
    """Seeded rows for an engine's inputs."""
    rng = np.random.default_rng(0)
    found = {}
    for port in session.ports:
        shape = (rows, *port.shape[1:])
        drawn = rng.integers(FIRST_TOKEN, LAST_TOKEN, shape) if port.dtype.kind == "i" else rng.standard_normal(shape)
        found[port.name] = drawn.astype(port.dtype)
    return found


def dlpack(work: Work, given: Callable[[np.ndarray], Any], take: Any, address: Any, to_host: Any) -> dict[str, Any]:
    """One batch by addresses and one by copies."""
    from harness.backends.tensorrt import TensorRtBackend

    with TensorRtBackend().open(work.plan()) as session:
        ((name, rows),) = rows_for(session, 32).items()
        array, exported = given(rows)
        feed = session.upload({name: exported})
        session.launch(feed)
        (shared,) = session.shared(feed).values()
        taken = take(shared)
        by_address = to_host(taken)
        plain_feed = session.upload({name: rows})
        session.launch(plain_feed)
        (by_copy,) = session.download(plain_feed).values()
        direct_feed = session.upload({name: array})
        session.launch(direct_feed)
        (directly,) = session.download(direct_feed).values()
        (output,) = feed.outputs
        captured = session.capture(feed)
        session.launch(feed)
        (replayed,) = session.download(feed).values()
        facts = {
            "input_address_is_the_array's": feed.given[name].address == address(array),
            "output_address_is_the_buffer's": address(taken) == feed.addresses[output],
            "same_as_by_copy": by_address.tobytes() == by_copy.tobytes(),
            "same_given_directly": directly.tobytes() == by_copy.tobytes(),
            "same_replayed": replayed.tobytes() == by_copy.tobytes(),
            "graph": captured or "captured",
        }
        del taken, shared
    return {**facts, "as_expected": all(value for value in facts.values())}


class Exporter:
    """An array that is exported while another stream of its library is current."""

    def __init__(self, array: Any, current: Callable[[], Any]) -> None:
        self._array, self._current = array, current

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __dlpack__(self, **asked: Any) -> Any:
        with self._current():
            return self._array.__dlpack__(**asked)


def latency(made: dict[str, Any], spec: EngineSpec) -> float:
    """Median milliseconds of 200 graph replays, in a worker."""
    engine = engine_of(made, spec)
    with Worker("latency", library_path=libraries()) as worker:
        worker.ask("open", timeout_s=60, key="k", engine=plain(engine), rows=32, seed=0, threads=None, graph=True)
        worker.ask("time", timeout_s=60, key="k", launches=200, cache="hot")
        times = worker.ask("time", timeout_s=60, key="k", launches=200, cache="hot")
    return round(float(np.median(times)), 4)


def engine_of(made: dict[str, Any], spec: EngineSpec) -> EngineArtifact:
    """What `built` left."""
    return EngineArtifact(
        spec=spec,
        source=None,
        backend_version=made["version"],
        path=Path(made["folder"]) / made["engine"],
        sha256=None,
        plan_bytes=None,
        build_seconds=0.0,
        device=made["device"],
    )


@contextlib.contextmanager
def memory_taken(leave: int = 0) -> Iterator[int]:
    """All memory of the GPU but `leave` MiB, in plain blocks; how many bytes that are."""
    from harness.backends._cuda import Cuda
    from harness.errors import OutOfDeviceMemory

    cuda, blocks, total, size = Cuda(), [], 0, 8 * GIB
    while size >= SMALLEST_BLOCK:
        free = cuda("cudaMemGetInfo")
        wanted = min(size, max(0, free - leave * 2**20))
        try:
            if wanted < SMALLEST_BLOCK:
                break
            blocks.append(cuda("cudaMalloc", wanted))
            total += wanted
        except OutOfDeviceMemory:
            size //= 2
    cuda.runtime.cudaGetLastError()
    try:
        yield total
    finally:
        for block in blocks:
            cuda.runtime.cudaFree(block)


def poke(stream: int) -> None:
    """Break the context."""
    driver = importlib.import_module("cuda.bindings.driver")
    error, module = driver.cuModuleLoadData(POKE)
    assert int(error) == 0, error
    error, kernel = driver.cuModuleGetFunction(module, b"poke")
    assert int(error) == 0, error
    (error,) = driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0)
    assert int(error) == 0, error


def is_capturing(session: Any) -> bool:
    """Whether the session's stream is being captured."""
    status = session._cuda("cudaStreamIsCapturing", session._stream)
    return int(status) != 0


def flipped(content: bytes, place: int) -> bytes:
    """Another byte in that place."""
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def with_other_release(plan: bytes) -> bytes:
    """A plan whose header names the next minor release."""
    from harness.backends.tensorrt import RELEASE_AT

    minor = RELEASE_AT + 1
    return plan[:minor] + bytes([plan[minor] + 1]) + plan[minor + 1 :]


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether two results are the same bytes."""
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def plain(engine: EngineArtifact) -> dict[str, Any]:
    """The engine for a worker."""
    from harness.workers.serving import engine_to_plain

    return engine_to_plain(engine)


def libraries() -> Path | None:
    """What a worker's loader must know."""
    return Path(os.environ[HOME]).absolute() / "libs" if HOME in os.environ else None


def _begin_poked(channel, house, stderr):
    """Runs in a worker, which has nothing of ours yet; execnet sends its source, and takes no function within it."""
    import os
    import sys

    descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.path[:0] = [os.path.dirname(house), os.path.join(os.path.dirname(house), "benchmarks")]
    from gpu_error_paths import serve_poked

    channel.send(["ready"])
    serve_poked(channel)


def serve_poked(channel: Any) -> None:
    """Serve with one verb more, which breaks the context between two launches."""
    from harness.backends.tensorrt import TensorRtBackend
    from harness.workers import serving

    def poke_and_run(_desk: Any, engine: dict[str, Any]) -> None:
        with TensorRtBackend().open(serving.engine_from_plain(engine)) as session:
            feed = session.upload(rows_for(session, 32))
            poke(session.stream)
            session.launch(feed)
            session.download(feed)

    setattr(serving.Desk, "poke_and_run", poke_and_run)  # noqa: B010 (a verb that the type checker must not take for one of ours)
    serving.serve(channel)


class PokedWorker(Worker):
    """A worker that can be asked to break its context."""

    _begin = staticmethod(_begin_poked)


# -- running them ------------------------------------------------------------------------------------------------------------------


class Results:
    """JSON lines, written as they come."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def keep(self, line: dict[str, Any]) -> None:
        """One line, to the file and to stdout."""
        text = json.dumps(line, default=str)
        with self._lock:
            print(text, flush=True)
            self._file.write(text + "\n")
            self._file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, metavar="DIR", help="what `enginegate prepare` left of emoji-clip")
    parser.add_argument("--out", type=Path, default=Path("gpu-error-paths.jsonl"), metavar="FILE", help="results, a JSON line a step")
    parser.add_argument("--work", type=Path, metavar="DIR", help="plans and logs (default: a folder that is removed)")
    parser.add_argument("--budget-s", type=float, default=230.0, help="no step runs longer than what is left of it")
    parser.add_argument("--jobs", type=int, default=6, help="steps side by side, where they do not disturb each other")
    parser.add_argument("--only", action="append", choices=list(STEPS), metavar="STEP", help="repeat for more")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(_outcome(STEPS[options.step], Work(options.prepared, options.work)), default=str), flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="gpu-error-paths-") as folder:
        work = Work(options.prepared.absolute(), (options.work or Path(folder)).absolute())
        work.folder.mkdir(parents=True, exist_ok=True)
        _run_all(options, work, Results(options.out))


def _run_all(options: argparse.Namespace, work: Work, results: Results) -> None:
    ends = time.monotonic() + options.budget_s
    wanted = set(options.only or STEPS)

    def run(step: Step) -> None:
        results.keep(_in_child(step, work, min(step.limit_s, ends - time.monotonic())))

    for some, jobs in ((STEPS["machine"],), 1), (BUILDS, options.jobs), (RUNS, options.jobs), (ALONE, 1):
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(run, [step for step in some if step.name in wanted]))


def _in_child(step: Step, work: Work, limit_s: float) -> dict[str, Any]:
    if limit_s < 1:
        return {"step": step.name, "left_out": "the budget was used up"}
    command = [sys.executable, str(Path(__file__).resolve()), "--step", step.name]
    command += ["--prepared", str(work.prepared), "--work", str(work.folder)]
    folders = {"LD_LIBRARY_PATH": [str(folder)] if (folder := libraries()) else [], "PYTHONPATH": [str(HOUSE)]}
    paths = {name: os.pathsep.join(filter(None, [*new, os.environ.get(name)])) for name, new in folders.items()}
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **paths},
        start_new_session=True,
    )
    try:
        said, cried = child.communicate(timeout=limit_s)
        ended: dict[str, Any] = {"exit_status": child.returncode}
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        said, cried = child.communicate()
        ended = {"hung_after_s": round(limit_s, 1)}
    line: dict[str, Any] = {"step": step.name, "seconds": round(time.monotonic() - started, 1)}
    try:
        line |= json.loads(said.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        line |= {**ended, "stderr": cried.strip().splitlines()[-TAIL:], "as_expected": False}
    return line


def _outcome(step: Step, work: Work) -> dict[str, Any]:
    try:
        found = step.run(work) or {}
    except EnginegateError as error:
        event = {"code": error.code, "exit_code": error.exit_code, "message": str(error)[:1500]}
        return {"event": event, "as_expected": error.code in step.expects}
    # Whatever else is raised is a fault of ours, which is what this script is there to find.
    except Exception as error:  # noqa: BLE001
        return {"traceback": f"{type(error).__name__}: {error}"[:1500], "as_expected": False}
    return {"found": found, "as_expected": not step.expects and found.get("as_expected", True)}


if __name__ == "__main__":
    main()
