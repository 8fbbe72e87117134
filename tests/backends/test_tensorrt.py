"""Full TensorRT without a GPU: what is missing has a name, and a session asks CUDA and TensorRT for the right things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.backends import _cuda, _cuda_session, _cuda_spin, _tensorrt_library
from harness.backends import tensorrt as module
from harness.backends._cuda import Found
from harness.backends._cuda_session import TensorRtSession
from harness.backends.tensorrt import TensorRtBackend, _memory, _with_remedy
from harness.contracts import Action, Delayable, DeviceBound, DeviceTimed, NamesRefusals, SelfDescribed
from harness.errors import (
    BuildFailed,
    ContextLost,
    EnginegateError,
    InvalidMeasurement,
    MissingDevice,
    MissingLibrary,
    MixedVersions,
    OutsideProfile,
    UnsupportedTarget,
    UnusableEngine,
    UnusableInputs,
)
from harness.pipeline.isolating import alike_gpus
from harness.records.artifacts import EngineArtifact
from harness.records.machine import Gpu
from harness.records.spec import BatchProfile, EngineSpec

MakeSpec = Callable[..., EngineSpec]
H100 = Gpu(name="NVIDIA H100 80GB HBM3", sm="SM90", uuid="GPU-1")
BACKEND = TensorRtBackend()


@pytest.fixture
def on_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_gpu", lambda: Found(gpu=H100, cuda_major=13))
    monkeypatch.setattr(module.library, "why_no_library", lambda: None)
    monkeypatch.setattr(module.library, "version", lambda: "10.6.0")


def test_an_absent_library_is_told_with_both_remedies(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_tensorrt_library.HOME, raising=False)
    monkeypatch.setattr(_tensorrt_library, "is_installed", lambda _: False)
    assert "enginegate[tensorrt]" in (words := BACKEND.why_not(Action.BUILD, make_spec("tensorrt")) or "")
    assert _tensorrt_library.HOME in words


def test_a_home_that_holds_no_library_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_tensorrt_library.HOME, str(tmp_path))
    assert "no libs/libnvinfer.so.* and no python/tensorrt*/__init__.py" in (_tensorrt_library.why_no_library() or "")


def test_a_module_for_another_python_is_refused_before_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "libs/libnvinfer.so.10": "",
        "python/tensorrt_bindings/__init__.py": "",
        "python/tensorrt_cu12_bindings-10.6.0.dist-info/METADATA": "Name: tensorrt-cu12-bindings\nVersion: 10.6.0\n",
        "python/tensorrt_cu12_bindings-10.6.0.dist-info/WHEEL": "Tag: cp38-none-manylinux_2_17_x86_64\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv(_tensorrt_library.HOME, str(tmp_path))
    assert "is for cp38 and this Python is cp3" in (_tensorrt_library.why_no_library() or "")
    assert (_tensorrt_library.version(), _tensorrt_library.cuda_major()) == ("10.6.0", 12)


def test_libraries_of_another_version_than_the_module_have_a_name() -> None:
    with pytest.raises(MixedVersions, match=r"10\.6\.0 and its library is 11\.2\.1"):
        _tensorrt_library._require_one_version("10.6.0", "11.2.1", "here")
    _tensorrt_library._require_one_version("10.15.1.29", "10.15.1", "here")


@pytest.mark.usefixtures("on_h100")
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Found(why_not="no NVIDIA driver answers"), "no NVIDIA driver answers"),
        (Found(gpu=replace(H100, name="NVIDIA A100", sm="SM80"), cuda_major=13), r"NVIDIA A100 (SM80) has no FP8"),
        (Found(gpu=H100, cuda_major=12), "supports CUDA 12 and this TensorRT needs CUDA 13"),
    ],
)
def test_what_the_machine_lacks_is_told(found: Found, words: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_gpu", lambda: found)
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    assert words in (BACKEND.why_not(Action.BUILD, make_spec("tensorrt")) or "")


@pytest.mark.usefixtures("on_h100")
@pytest.mark.parametrize(
    ("found", "library_words", "kind"),
    [
        (Found(gpu=H100, cuda_major=13), "TensorRT is not installed", MissingLibrary),
        (Found(why_not="no NVIDIA driver answers"), None, MissingDevice),
        (Found(gpu=H100, cuda_major=12), None, MissingDevice),
        (Found(gpu=replace(H100, name="NVIDIA A100", sm="SM80"), cuda_major=13), None, UnsupportedTarget),
    ],
    ids=["no library", "no driver", "an old driver", "no FP8"],
)
def test_what_is_missing_here_is_an_event_of_its_own(
    found: Found, library_words: str | None, kind: type[EnginegateError], make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_gpu", lambda: found)
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    monkeypatch.setattr(module.library, "why_no_library", lambda: library_words)
    assert isinstance(BACKEND, NamesRefusals)
    with pytest.raises(kind) as caught:
        BACKEND.require_possible(Action.BUILD, make_spec("tensorrt"))
    assert (BACKEND.why_not(Action.BUILD, make_spec("tensorrt")) or "nothing") in str(caught.value)


@pytest.mark.usefixtures("on_h100")
def test_where_nothing_is_missing_nothing_is_refused(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    BACKEND.require_possible(Action.RUN, make_spec("tensorrt"))


@pytest.mark.usefixtures("on_h100")
def test_a_gpu_with_fp8_can_and_a_named_target_is_refused(make_spec: MakeSpec) -> None:
    assert BACKEND.why_not(Action.RUN, make_spec("tensorrt")) is None
    assert "leave the target out" in (BACKEND.why_not(Action.BUILD, make_spec("tensorrt", target="SM90")) or "")
    assert isinstance(BACKEND, DeviceBound)
    assert BACKEND.gpu() == H100
    assert H100.machine_class == "NVIDIA-H100-80GB-HBM3-SM90"


class TwoGpus:
    """A driver that shows two GPUs of one product."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major", CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor"
    )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers = {
            "cuInit": lambda flags: (0,),
            "cuDeviceGetCount": lambda: (0, 2),
            "cuDeviceGet": lambda number: (0, number),
            "cuDeviceGetAttribute": lambda attribute, device: (0, 9 if attribute == "major" else 0),
            "cuDeviceGetName": lambda length, device: (0, b"NVIDIA H200\0"),
            "cuDeviceGetUuid": lambda device: (0, SimpleNamespace(bytes=bytes([device] * 16))),
            "cuDriverGetVersion": lambda: (0, 13000),
        }
        if name not in answers:
            raise AttributeError(name)
        return answers[name]


def test_every_gpu_that_cuda_shows_is_known_by_its_uuid_and_the_first_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _cuda._found(TwoGpus())
    assert [str(gpu) for gpu in found.all_gpus] == ["NVIDIA H200 (SM90)"] * 2
    assert found.gpu == found.all_gpus[0]
    assert found.all_gpus[1].uuid == "GPU-01010101-0101-0101-0101-010101010101"
    monkeypatch.setattr(module, "find_gpu", lambda: found)
    assert alike_gpus(BACKEND) == found.all_gpus


def test_a_gpu_of_another_product_builds_nothing_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    others = (H100, replace(H100, name="NVIDIA L40S", sm="SM89", uuid="GPU-2"), replace(H100, uuid="GPU-3"))
    monkeypatch.setattr(module, "find_gpu", lambda: Found(gpu=H100, all_gpus=others, cuda_major=13))
    assert [gpu.uuid for gpu in alike_gpus(BACKEND)] == ["GPU-1", "GPU-3"]


def test_without_a_driver_nothing_is_loaded(make_spec: MakeSpec, tmp_path: Path, on_h100: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_gpu", lambda: Found(why_not="no NVIDIA driver answers"))
    monkeypatch.setattr(module.library, "load", lambda: pytest.fail("TensorRT was loaded"))
    with pytest.raises(MissingDevice, match="no NVIDIA driver"):
        BACKEND.build(tmp_path / "x.onnx", make_spec("tensorrt"), tmp_path)


@pytest.mark.usefixtures("on_h100")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backend_version": "11.2.1.2"}, r"built by TensorRT 11\.2\.1\.2 and 10\.6\.0 is here"),
        ({"device": "NVIDIA H200 (SM90)"}, r"built for NVIDIA H200 \(SM90\) and NVIDIA H100 80GB HBM3 \(SM90\) is here"),
    ],
)
def test_a_plan_of_another_release_or_gpu_is_refused_unread(
    fields: dict[str, str], words: str, make_engine: Callable[..., EngineArtifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.library, "load", lambda: pytest.fail("TensorRT was loaded"))
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    engine = replace(make_engine("tensorrt", plan), **{"backend_version": "10.6.0", **fields})
    with pytest.raises(UnusableEngine, match=words), BACKEND.open(engine):
        pass


@pytest.mark.parametrize(("batch", "is_told"), [("1/8/64", True), ("8/8/8", False)])
def test_fp8_that_needs_a_fixed_batch_is_told_the_remedy(batch: str, is_told: bool, make_spec: MakeSpec, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("[ERROR] Failed to find fallback kernel. tactics.size() 24\n")
    spec = replace(make_spec("tensorrt"), batch=BatchProfile.parse(batch))
    assert ("--batch 8/8/8" in str(_with_remedy(BuildFailed("no engine"), spec, log))) is is_told


def test_bytes_are_asked_by_what_a_release_has() -> None:
    new = SimpleNamespace(get_engine_stat=lambda stat: 7, device_memory_size_v2=9)
    assert str(_memory(SimpleNamespace(EngineStat=SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)), new)).count("7") == 1
    old = SimpleNamespace(device_memory_size_v2=9)
    assert (_memory(SimpleNamespace(), old).weights_bytes, _memory(SimpleNamespace(), old).activation_bytes) == (None, 9)


# -- a session against a CUDA and an engine that only note what they are asked --------------------------------------------------------


_CONSTANTS = ("cudaStreamCaptureMode", "cudaStreamNonBlocking")


class NotedCuda:
    """Memory is the host's; calls are noted by name."""

    runtime: Any

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.kept: dict[int, np.ndarray] = {}
        self.fails: str | None = None
        self.runtime = self

    def __getattr__(self, name: str) -> Any:
        is_call = name[4:].startswith(("Free", "Event", "Stream", "Graph", "Get")) and name not in _CONSTANTS
        return (lambda *arguments: (0, self(name, *arguments))) if is_call else self

    def __call__(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        if name == self.fails:
            raise InvalidMeasurement(f"CUDA answered {name} with cudaErrorUnknown")
        if name == "cudaMalloc":
            block = np.zeros(arguments[0], np.uint8)
            self.kept[block.ctypes.data] = block
            return block.ctypes.data
        return {"cudaStreamCreateWithFlags": 5, "cudaEventElapsedTime": 1.5, "cudaDeviceGetAttribute": 4096}.get(name, 1)


class NotedEngine:
    num_io_tensors = 2

    def __init__(self, cuda: NotedCuda, rows: int = -1) -> None:
        self.cuda, self.rows = cuda, rows

    def get_tensor_name(self, index: int) -> str:
        return ("image", "embedding")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "image" else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="HALF")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.rows, 3, 4, 4) if name == "image" else (self.rows, 8)

    def create_execution_context(self) -> Any:
        rows: list[int] = []
        return SimpleNamespace(
            set_input_shape=lambda name, shape: not rows.append(shape[0]),
            get_tensor_shape=lambda name: (rows[-1], 8),
            set_tensor_address=lambda name, address: True,
            execute_async_v3=lambda stream: not self.cuda.calls.append("enqueue"),
        )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> NotedCuda:
    noted = NotedCuda()
    monkeypatch.setattr(_cuda_session, "Cuda", lambda: noted)
    monkeypatch.setattr(_cuda_session, "context_lost", lambda: None)
    monkeypatch.setattr(_cuda_session, "logger_of", lambda trt: SimpleNamespace(errors=[]))
    return noted


@pytest.fixture
def session(cuda: NotedCuda) -> TensorRtSession:
    trt: Any = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"))
    return TensorRtSession(trt, NotedEngine(cuda), BatchProfile(minimum=1, optimum=2, maximum=4), "GPU-1")


def test_a_launch_allocates_copies_and_waits_for_nothing(session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray) -> None:
    assert isinstance(session, DeviceTimed)
    assert isinstance(session, SelfDescribed)
    feed = session.upload({"image": pictures})
    cuda.calls.clear()
    session.launch(feed)
    assert cuda.calls == ["enqueue"]
    assert session.download(feed)["embedding"].shape == (3, 8)
    with pytest.raises(OutsideProfile):
        session.upload({"image": np.concatenate([pictures, pictures])})


def test_another_batch_than_the_one_of_a_fixed_plan_is_outside_its_profile(cuda: NotedCuda, pictures: np.ndarray) -> None:
    trt: Any = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"))
    session = TensorRtSession(trt, NotedEngine(cuda, rows=3), BatchProfile(minimum=3, optimum=3, maximum=3), "GPU-1")
    assert session.upload({"image": pictures}).shapes["embedding"] == (3, 8)
    with pytest.raises(OutsideProfile, match="a batch of 2 lies outside the engine's profile, which is 3 rows and no other number; send 3"):
        session.upload({"image": pictures[:2]})
    with pytest.raises(UnusableInputs):
        session.upload({"image": pictures[:2, :2]})


def test_a_captured_feed_is_replayed(session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray) -> None:
    feed = session.upload({"image": pictures})
    assert session.capture(feed) is None
    cuda.calls.clear()
    session.launch(feed)
    assert cuda.calls == ["cudaGraphLaunch"]


def test_a_failed_capture_is_told_and_launches_stay_plain(session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray) -> None:
    feed = session.upload({"image": pictures})
    cuda.fails = "cudaStreamEndCapture"
    assert "cudaErrorUnknown" in (session.capture(feed) or "")
    cuda.calls.clear()
    session.launch(feed)
    assert cuda.calls == ["enqueue"]


class NotedDriver:
    """A driver whose kernels are noted on the same list as the runtime's calls."""

    def __init__(self, calls: list[str]) -> None:
        self.waits: list[int] = []
        self._calls = calls

    def cuModuleLoadData(self, text: bytes) -> tuple[int, int]:
        return (0, 1)

    def cuModuleGetFunction(self, module: int, name: bytes) -> tuple[int, int]:
        return (0, 2)

    def cuLaunchKernel(self, *arguments: Any) -> tuple[int]:
        self.waits.append(arguments[9][0][0])
        self._calls.append("spin")
        return (0,)


def test_a_delayed_launch_ends_with_a_wait_that_its_own_launch_is_no_part_of(
    session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = NotedDriver(cuda.calls)
    monkeypatch.setattr(_cuda_spin, "need", lambda *names, **words: driver)
    feed = session.upload({"image": pictures})
    assert session.capture(feed) is None
    cuda.calls.clear()
    taken_ms = session.delay(feed, 0.02)
    # Events of this runtime are 1.5 ms apart: a chain of 64 took 0.0234 ms each where 0.02 was wanted.
    assert (driver.waits[0], driver.waits[-1]) == (20_000, pytest.approx(20_000 - 3_437.5, abs=1))
    assert taken_ms == 1.5 / 64
    assert cuda.calls[-5:] == ["enqueue", "spin", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"]
    session.launch(feed)
    assert cuda.calls[-1] == "cudaGraphLaunch"


@pytest.mark.parametrize(("number", "kind"), [(700, ContextLost), (218, InvalidMeasurement)])
def test_a_delay_that_the_driver_refuses_is_told_by_whether_the_context_broke(
    session: TensorRtSession, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    driver = SimpleNamespace(cuModuleLoadData=lambda text: (CudaError(number, f"CUDA_ERROR_{number}"), None))
    monkeypatch.setattr(_cuda_spin, "need", lambda *names, **words: driver)
    with pytest.raises(kind, match=f"CUDA_ERROR_{number}") as caught:
        session.delay(session.upload({"image": pictures}), 0.02)
    assert type(caught.value) is kind


def test_a_delay_without_a_graph_is_launched_behind_the_engine(
    session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(session, Delayable)
    monkeypatch.setattr(_cuda_spin, "need", lambda *names, **words: NotedDriver(cuda.calls))
    feed = session.upload({"image": pictures})
    session.delay(feed, 0.02)
    cuda.calls.clear()
    session.launch(feed)
    assert cuda.calls == ["enqueue", "spin"]


def test_a_cold_launch_has_its_write_outside_of_its_time(session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray) -> None:
    feed = session.upload({"image": pictures})
    session.time_launches(feed, 1, cold=True)
    cuda.calls.clear()
    assert session.time_launches(feed, 1, cold=True) == (1.5,)
    assert cuda.calls[:4] == ["cudaMemsetAsync", "cudaEventRecord", "enqueue", "cudaEventRecord"]


def test_what_was_never_launched_is_not_read(session: TensorRtSession, pictures: np.ndarray) -> None:
    with pytest.raises(InvalidMeasurement, match="nothing was launched"):
        session.download(session.upload({"image": pictures}))


@pytest.mark.parametrize("call", ["cudaStreamSynchronize", "cudaMemcpyAsync"])
def test_a_broken_context_fails_by_name_and_is_closed_quietly(
    session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray, call: str
) -> None:
    feed = session.upload({"image": pictures})
    session.launch(feed)
    cuda.fails = call
    with pytest.raises(InvalidMeasurement, match="cudaErrorUnknown"):
        session.download(feed)
    session.close()


class CudaError(int):
    """An error of cuda-python: a number with a name."""

    name: str

    def __new__(cls, number: int, name: str) -> CudaError:
        error = super().__new__(cls, number)
        error.name = name
        return error


class Runtime:
    """cuda-python's runtime, whose calls answer an error from a given one on: once a context broke, each of them does."""

    def __init__(self, number: int = 700) -> None:
        self.error: Any = 0
        self._next: Any = CudaError(number, f"cudaError{number}")

    def breaks(self) -> None:
        self.error = self._next

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: (self.error, *([1] if name == "cudaMalloc" else []))


@pytest.mark.parametrize(("number", "kind"), [(700, ContextLost), (719, ContextLost), (1, InvalidMeasurement)])
def test_what_broke_the_context_is_told_by_its_first_event_and_by_every_later_one(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    runtime = Runtime(number)
    monkeypatch.setattr(_cuda, "need", lambda *arguments, **named: runtime)
    cuda = _cuda.Cuda()
    assert _cuda.context_lost() is None
    runtime.breaks()
    for _ in range(2):
        with pytest.raises(kind, match="cudaStreamSynchronize with cudaError") as caught:
            cuda("cudaStreamSynchronize", 0)
        assert type(caught.value) is kind
    assert (_cuda.context_lost() is not None) is (kind is ContextLost)


def test_the_errors_that_break_a_context_are_those_of_which_cuda_says_so() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="what CUDA says of its errors is in cuda-bindings")
    said = {int(error) for error in runtime.cudaError_t if "must be terminated and relaunched" in (error.__doc__ or "")}
    assert said <= _cuda.BREAK_CONTEXT
    assert 700 in said


@pytest.mark.parametrize("lost", [ContextLost("CUDA answers cudaErrorIllegalAddress"), None])
def test_a_launch_that_the_engine_refuses_is_told_by_what_became_of_the_context(
    session: TensorRtSession, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch, lost: ContextLost | None
) -> None:
    feed = session.upload({"image": pictures})
    monkeypatch.setattr(_cuda_session, "context_lost", lambda: lost)
    monkeypatch.setattr(session._context, "execute_async_v3", lambda stream: False)
    with pytest.raises(ContextLost if lost else InvalidMeasurement, match="refused to launch the engine") as caught:
        session.launch(feed)
    assert isinstance(caught.value, ContextLost) is (lost is not None)


def test_a_capture_in_which_the_context_broke_leaves_no_plain_launches(
    session: TensorRtSession, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_feed: object, _context: object) -> None:
        raise ContextLost("CUDA answered cudaStreamEndCapture with cudaErrorIllegalAddress")

    feed = session.upload({"image": pictures})
    monkeypatch.setattr(session, "_capture", lost)
    with pytest.raises(ContextLost):
        session.capture(feed)


def test_closing_frees_what_feeds_still_hold(session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray) -> None:
    kept = session.upload({"image": pictures})
    session.close()
    assert cuda.calls.count("cudaFree") == len(kept.addresses) == 2
