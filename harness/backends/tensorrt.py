"""Full TensorRT on the GPU of this machine, from 10.6 on, by what a release has and not by its number."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.backends import _tensorrt_library as library
from harness.backends._allocations import AllocationCounter
from harness.backends._copy_rate import copy_gbps
from harness.backends._counted_session import CountedSession
from harness.backends._cuda import Cuda, context_lost, find_gpu
from harness.backends._cuda_session import TensorRtSession
from harness.backends._gpu_allocator import CudaBlocks, new_allocator, why_no_allocator
from harness.backends._nvinfer import build_plan, logger_of, means_out_of_memory
from harness.backends._product_rate import SIDE, product_tflops
from harness.backends.tensorrt_home import libraries_in
from harness.contracts import Action, Capability, Say
from harness.errors import (
    BuildFailed,
    ContextLost,
    EnginegateError,
    HostCodeRefused,
    InvalidMeasurement,
    MissingDevice,
    MissingLibrary,
    NeedsFixedBatch,
    OutOfDeviceMemory,
    UnsupportedTarget,
    UnusableEngine,
)
from harness.records.artifacts import BuiltFiles, EngineArtifact, EngineMemory
from harness.records.machine import Gpu
from harness.records.profile import Ceilings
from harness.records.spec import BuildOptions, EngineSpec

# Whether plans that carry code for the host may be loaded is said by whoever owns the machine, and inherited by its workers.
ALLOW_HOST_CODE = "ENGINEGATE_ALLOW_HOST_CODE"

ENGINE_FILE = "engine.engine"
LOG_FILE = "build.log"
LAYERS_FILE = "layers.json"

_unusable: list[Any] = []  # runtimes that must not be let go of

# Where a plan names the release that wrote it, as trtexec reads it of plans with this tag and serialization version 0.
PLAN_HEAD = b"ftrt\0\0\0\0"
RELEASE_AT = 24

_FIRST_FP8 = 89  # Ada; Hopper is 90
# Myelin's autotuner in the log of a release that has FP8 kernels for a fixed batch only.
_NO_KERNEL = "Failed to find fallback kernel"


class TensorRtBackend:
    """Builds for the GPU that is here, and runs there. A plan is bound to its release and its GPU."""

    name = "tensorrt"
    capabilities = frozenset(
        {
            Capability.FP8,
            Capability.LAYER_TABLE,
            Capability.LAYER_TIMES,
            Capability.MEMORY_FIGURES,
            Capability.NEEDS_ISOLATION,
            Capability.BUILD_OPTIONS,
            Capability.TIMES_KERNELS,
            Capability.MAY_NEED_FIXED_BATCH,
            Capability.DEVICE_MEMORY,
        }
    )

    def __init__(self, say: Say | None = None) -> None:
        self._say = say

    def telling(self, say: Say) -> TensorRtBackend:
        """This backend, whose builds say how far they are."""
        return TensorRtBackend(say)

    @property
    def version(self) -> str:
        """Version of the vendor's bindings."""
        return library.version()

    def gpu(self) -> Gpu | None:
        """The first GPU that CUDA shows; `CUDA_VISIBLE_DEVICES` chooses it."""
        return find_gpu().gpu

    def gpus(self) -> tuple[Gpu, ...]:
        """All that CUDA shows, in its order."""
        return find_gpu().all_gpus

    def library_path(self) -> Path | None:
        """The builder looks for its kernels where the loader looks."""
        home = library.home()
        return libraries_in(home) if home else None

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when `engine` can be built and run here; else why not. Asks the driver before any of the library is loaded."""
        return library.why_no_library() or _why_no_gpu() or _why_not_here(engine)

    def require_possible(self, action: Action, engine: EngineSpec) -> None:
        """Raise what `why_not` says, as what it is about.

        Raises:
            MissingLibrary: there is no TensorRT, or it is for another Python.
            MissingDevice: no driver, a driver that is too old, or no GPU.
            UnsupportedTarget: the GPU has no FP8, or another was named.
        """
        if words := library.why_no_library():
            raise MissingLibrary(f"{engine.id} cannot be had here: {words}")
        _require_gpu(engine)

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Build `source` for this GPU; the engine inspector's table and the builder's log stay beside the plan.

        Raises:
            MissingDevice: no driver or no GPU; asked first, since TensorRT 10.6 ends the process without one.
            UnsupportedTarget: the GPU has no FP8.
            BuildFailed: with the last lines of the vendor's log.
            NeedsFixedBatch: this release has FP8 kernels for a batch that cannot change, and for no other.
            UnusableGraph: the parser refuses the file.
            OutOfDeviceMemory: the GPU cannot hold the profile.
            HostCodeRefused: a version-compatible plan was asked for, and nobody allowed the code that it carries.
            UnsupportedOption, UnusableTimingCache: something else that the builder was asked.
        """
        _require_allowed(engine)
        gpu = _require_gpu(engine)
        trt = library.load()
        try:
            plan = build_plan(trt, source, engine.batch, folder / LOG_FILE, _nothing_more, self._say, options=engine.options)
        except BuildFailed as error:
            raise _with_remedy(error, engine, folder / LOG_FILE) from error
        with (folder / ENGINE_FILE).open("wb") as file:
            file.write(plan.content)
        loaded = _deserialized(trt, folder / ENGINE_FILE, bytes(plan.content), engine.options)
        inspected = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        (folder / LAYERS_FILE).write_text(inspected, encoding="utf-8", newline="\n")
        memory = _memory(trt, loaded)
        return BuiltFiles(engine=ENGINE_FILE, log=LOG_FILE, layers=LAYERS_FILE, device=str(gpu), memory=memory, notes=plan.notes)

    @contextmanager
    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> Iterator[TensorRtSession]:
        """A session on this GPU. What the record says of version and GPU is compared before anything is loaded.

        Raises:
            MissingDevice: no driver or no GPU.
            UnusableEngine: the plan is of another release or GPU, has another digest than its record, or TensorRT refuses it.
            HostCodeRefused: the plan carries code for the host, and nobody allowed it.
            OutOfDeviceMemory: the GPU has no room for it.
            ContextLost: an earlier error broke the context of this process.
        """
        gpu, path, content = _required(engine)
        trt = library.load()
        session = TensorRtSession(trt, _deserialized(trt, path, content, engine.spec.options), engine.spec.batch, gpu.uuid)
        try:
            yield session
        finally:
            session.close()

    @contextmanager
    def open_counted(self, engine: EngineArtifact) -> Iterator[CountedSession]:
        """A session whose device memory is counted, from the first byte of its weights on. TensorRT allocates through us meanwhile.

        Raises:
            InvalidMeasurement: this release takes no allocator.
            MissingDevice, UnusableEngine, HostCodeRefused, OutOfDeviceMemory: as `open`.
        """
        gpu, path, content = _required(engine)
        trt = library.load()
        if why_not := why_no_allocator(trt):
            raise InvalidMeasurement(f"device memory of {engine.spec.id} cannot be counted: {why_not}")
        counter = AllocationCounter()
        allocator = new_allocator(trt, counter, CudaBlocks(Cuda().runtime))
        loaded = _deserialized(trt, path, content, engine.spec.options, allocator)
        session = CountedSession(trt, loaded, engine.spec.batch, gpu.uuid, counter)
        del loaded  # closing the session is to be the end of it
        try:
            yield session
        finally:
            session.close()

    def ceilings(self, folder: Path) -> Ceilings:
        """What this GPU reaches at best: copies of its own memory, and one large product of either type, built and run here.

        Raises:
            MissingDevice: no driver or no GPU.
        """
        found = find_gpu()
        why_not = _why_no_gpu()
        if why_not is not None or found.gpu is None:
            raise MissingDevice(f"{self.name}: {why_not}")
        return _measured_ceilings(library.load(), folder, found.gpu)


def _measured_ceilings(trt: ModuleType, folder: Path, gpu: Gpu) -> Ceilings:
    def product(fp8: bool) -> float:
        return product_tflops(trt, folder, lambda plan: _deserialized(trt, plan, plan.read_bytes(), BuildOptions()), gpu.uuid, fp8=fp8)

    square = f"one product of {SIDE} by {SIDE} matrices, built and profiled by TensorRT {library.version()}"
    ways: dict[str, tuple[Callable[[], float], str]] = {
        "copy_gbps": (copy_gbps, "copies of 1 GiB within the GPU, bytes read and bytes written"),
        "fp16_tflops": (lambda: product(False), square),
        "fp8_tflops": (lambda: product(True), square),
    }
    figures: dict[str, float] = {}
    words: dict[str, str] = {}
    for name, (measure, way) in ways.items():
        try:
            figures[name], words[name] = measure(), way
        except EnginegateError as error:  # what this GPU or release cannot do leaves the others theirs
            words[name] = f"not measured: {error}"
    return Ceilings(**figures, words=words)


def _why_no_gpu() -> str | None:
    found = find_gpu()
    if found.why_not is not None:
        return found.why_not
    wanted = library.cuda_major()
    if wanted is not None and found.cuda_major < wanted:
        return f"the driver supports CUDA {found.cuda_major} and this TensorRT needs CUDA {wanted}; update the driver"
    return None


def _why_not_here(engine: EngineSpec) -> str | None:
    gpu = find_gpu().gpu
    if engine.target is not None:
        return f"TensorRT builds for the GPU that is here, and {engine.target} was named; leave the target out"
    if gpu is not None and engine.recipe.is_quantized and int(gpu.sm.removeprefix("SM")) < _FIRST_FP8:
        return f"{gpu} has no FP8; it needs SM89 (Ada) or newer; choose recipe fp16, or another GPU"
    return None


def _require_gpu(engine: EngineSpec) -> Gpu:
    why_not, gpu = _why_no_gpu(), find_gpu().gpu
    if why_not is not None or gpu is None:
        raise MissingDevice(f"{engine.id} cannot be had here: {why_not}")
    if words := _why_not_here(engine):
        raise UnsupportedTarget(f"{engine.id} cannot be had here: {words}")
    return gpu


def _required(engine: EngineArtifact) -> tuple[Gpu, Path, bytes]:
    """The GPU, the plan's path and its bytes, once all that can be known of them without TensorRT fits."""
    gpu = _require_gpu(engine.spec)
    path = _require_ours(engine, gpu)
    _require_allowed(engine.spec)
    return gpu, path, _content(path, engine.sha256)


def _require_ours(engine: EngineArtifact, gpu: Gpu) -> Path:
    if engine.path is None or not engine.path.is_file():
        raise UnusableEngine(f"{engine.spec.id} has no engine file ({engine.path}); expected what `build` left; build it again")
    here = library.version()
    if not library.same_release(engine.backend_version, here) and not engine.spec.options.version_compatible:
        raise UnusableEngine(f"{engine.path} was built by TensorRT {engine.backend_version} and {here} is here; build it again")
    if engine.device is not None and engine.device != str(gpu):
        raise UnusableEngine(f"{engine.path} was built for {engine.device} and {gpu} is here; expected the same GPU; build it again")
    return engine.path


def _require_allowed(engine: EngineSpec) -> None:
    if engine.options.version_compatible and not _is_host_code_allowed():
        raise HostCodeRefused(
            f"{engine.id} is version-compatible: its plan carries code that runs on the host, and none is allowed; "
            f"set {ALLOW_HOST_CODE}=1 where you trust whoever built it, or build without --version-compatible"
        )


def _is_host_code_allowed() -> bool:
    return os.environ.get(ALLOW_HOST_CODE, "") == "1"


def _content(path: Path, sha256: str | None) -> bytes:
    """The very bytes that will be loaded, once they are known to be what the record says."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableEngine(f"{path} cannot be read ({error.strerror}); expected what `build` left; build it again") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise UnusableEngine(f"{path} has sha256 {digest[:16]}…; its record says {sha256[:16]}…; it was cut or altered: build it again")
    return content


def _deserialized(trt: ModuleType, path: Path, content: bytes, options: BuildOptions, allocator: Any = None) -> Any:
    logger = logger_of(trt)
    logger.errors.clear()
    runtime = trt.Runtime(logger)
    if logger.errors:
        # What the bindings of 10.6 to 11.2 give then holds a null pointer: to use it, or to let go of it, ends the process.
        _unusable.append(runtime)
        _require_context(_said(logger))
        kind = OutOfDeviceMemory if means_out_of_memory(_said(logger)) else MissingDevice
        raise kind(f"TensorRT {trt.__version__} starts no runtime here; see nvidia-smi; it said\n{_said(logger)}")
    if allocator is not None:
        runtime.gpu_allocator = allocator
    # A plan may carry code for the host. What was not built to carry any has no need of it, whatever is allowed.
    runtime.engine_host_code_allowed = options.version_compatible and _is_host_code_allowed()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        words = _said(logger)
        _require_context(words)
        if means_out_of_memory(words):
            raise OutOfDeviceMemory(f"the GPU has no room for {path.name}; end what else computes there; TensorRT said\n{words}")
        written_by = release_of_plan(content)
        named = f" (its header names TensorRT {written_by})" if written_by else ""
        raise UnusableEngine(f"TensorRT {trt.__version__} refuses {path}: cut, altered, or of another build{named}; it said\n{words}")
    return engine


def release_of_plan(content: bytes) -> str | None:
    """The release that a plan's header names, all four numbers; None where it is not of the form that is known."""
    numbers = content[RELEASE_AT : RELEASE_AT + 4]
    return ".".join(map(str, numbers)) if content.startswith(PLAN_HEAD) and len(numbers) == 4 else None


def _require_context(words: str) -> None:
    """Refuse to blame a plan or the machine for what broke the context earlier."""
    if lost := context_lost():
        raise ContextLost(f"{lost}; TensorRT said\n{words}")


def _said(listener: Any) -> str:
    return "\n".join(f"  {line}" for line in listener.errors) or "  nothing"


def _memory(trt: ModuleType, engine: Any) -> EngineMemory:
    """Bytes by what this release can say; weights are in the build log of those that cannot."""
    weights = None
    if hasattr(engine, "get_engine_stat") and hasattr(trt, "EngineStat"):
        weights = int(engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE))
    activations = _first_of(engine, "device_memory_size_v2", "device_memory_size")
    of_profile = _first_of(engine, "get_device_memory_size_for_profile_v2", "get_device_memory_size_for_profile")
    return EngineMemory(
        weights_bytes=weights,
        activation_bytes=None if activations is None else int(activations),
        profile_bytes=() if of_profile is None else tuple(map(int, map(of_profile, range(engine.num_optimization_profiles)))),
    )


def _first_of(engine: Any, *names: str) -> Any:
    """The first of an engine's members that this release has; None where it has none of them."""
    return next((getattr(engine, name) for name in names if hasattr(engine, name)), None)


def _with_remedy(error: BuildFailed, engine: EngineSpec, log: Path) -> BuildFailed:
    batch = engine.batch
    if batch.is_fixed or not engine.recipe.is_quantized or _NO_KERNEL not in log.read_text(encoding="utf-8", errors="replace"):
        return error
    return NeedsFixedBatch(
        f"this TensorRT has no FP8 kernels here for a batch that changes ({batch}): '{_NO_KERNEL}'; "
        f"build one engine a batch size, such as --batch {batch.fixed}\n{error}"
    )


def _nothing_more(_config: Any) -> None:
    """The builder's own settings, beside those that every build here has."""
