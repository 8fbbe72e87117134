"""Arrays on the GPU pass by their addresses, in order between streams, without a copy; CUDA and cuda-core are stand-ins that note it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from harness.backends import _cuda_session, _dlpack
from harness.backends._cuda_session import TensorRtSession
from harness.errors import InvalidMeasurement, MissingLibrary, UnusableInputs
from harness.records.spec import BatchProfile
from tests.backends.test_tensorrt import NotedCuda, NotedEngine

SHAPE = (3, 3, 4, 4)
STREAM = 5  # of the session, as the stand-in makes it


class OnGpu:
    """An array of somebody's library on a GPU; `made_for` are the streams that it was told to make wait."""

    def __init__(self, address: int = 0x7000, shape=SHAPE, dtype=np.float16, strides=None, device=(2, 0)) -> None:
        self.address, self.shape, self.dtype, self.strides, self.device = address, shape, np.dtype(dtype), strides, device
        self.made_for: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None, **_asked: Any) -> Any:
        self.made_for.append(stream)
        return self


class View:
    """As cuda-core's: made of an array, or of a buffer."""

    def __init__(self, array: OnGpu, stream_ptr: int) -> None:
        if array.dtype == ml_dtypes.float8_e4m3fn:
            raise NotImplementedError("no name for float8")
        array.__dlpack__(stream=stream_ptr)
        self.ptr, self.shape, self.dtype, self.strides, self.array = array.address, array.shape, array.dtype, array.strides, array

    @classmethod
    def from_buffer(cls, buffer: Any, shape: tuple[int, ...], *, dtype: Any) -> View:
        view = cls.__new__(cls)
        view.ptr, view.shape, view.dtype, view.strides, view.array = buffer.ptr, shape, dtype, None, buffer
        return view

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> Any:
        return ("capsule", self.ptr, self.shape, self.dtype, max_version)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> NotedCuda:
    noted = NotedCuda()
    buffer = SimpleNamespace(from_handle=lambda ptr, size, owner: SimpleNamespace(ptr=ptr, size=size, owner=owner))
    core = {"": SimpleNamespace(Buffer=buffer), "utils": SimpleNamespace(StridedMemoryView=View)}
    monkeypatch.setattr(_dlpack, "_core", lambda part="": core[part])
    monkeypatch.setattr(_cuda_session, "Cuda", lambda: noted)
    monkeypatch.setattr(_cuda_session, "logger_of", lambda trt: SimpleNamespace(errors=[]))
    return noted


@pytest.fixture
def session(cuda: NotedCuda) -> TensorRtSession:
    trt: Any = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"))
    return TensorRtSession(trt, NotedEngine(cuda), BatchProfile(minimum=1, optimum=2, maximum=4), "GPU-1")


def test_an_array_on_the_gpu_is_read_where_it_lies(session: TensorRtSession, cuda: NotedCuda) -> None:
    cuda.calls.clear()
    array = OnGpu()
    feed = session.upload({"image": array})
    assert cuda.calls == ["cudaMalloc"]  # the output's
    assert feed.given["image"].address == array.address
    assert "image" not in feed.addresses
    session.launch(feed)
    assert session.download(feed)["embedding"].shape == (3, 8)


def test_its_owner_makes_the_sessions_stream_wait_for_it(session: TensorRtSession) -> None:
    array = OnGpu()
    session.upload({"image": array})
    assert array.made_for == [session.stream]


def test_it_lives_as_long_as_its_feed_and_is_never_freed(session: TensorRtSession, cuda: NotedCuda) -> None:
    feed = session.upload({"image": OnGpu()})
    assert isinstance(feed.given["image"].view.array, OnGpu)
    del feed
    session.close()
    assert cuda.calls.count("cudaFree") == 1  # the output


def test_an_array_on_the_host_that_speaks_dlpack_is_copied_as_any_other(session: TensorRtSession, cuda: NotedCuda) -> None:
    torch = pytest.importorskip("torch")
    cuda.calls.clear()
    feed = session.upload({"image": torch.zeros(SHAPE, dtype=torch.float16)})
    assert "cudaMemcpyAsync" in cuda.calls
    assert feed.given == {}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (OnGpu(device=(2, 1)), "device 1 of DLPack's kind 2; expected the first GPU"),
        (OnGpu(device=(8, 0)), "kind 8"),
        (OnGpu(strides=(96, 32, 8, 2)), "has gaps or another order"),
        (OnGpu(strides=(1, 3, 12, 48)), "has gaps or another order"),
        (OnGpu(dtype=ml_dtypes.float8_e4m3fn), "no name for float8"),
        (OnGpu(dtype=np.float32), "is float32"),
        (OnGpu(shape=(3, 3, 4, 5)), r"is float16 \[3, 3, 4, 5\]"),
    ],
    ids=["another GPU", "no GPU", "gaps", "transposed", "no type of numpy's", "another type", "another shape"],
)
def test_what_cannot_be_taken_as_it_lies_is_refused(session: TensorRtSession, array: OnGpu, words: str) -> None:
    with pytest.raises(UnusableInputs, match=words):
        session.upload({"image": array})


@pytest.mark.parametrize("strides", [None, (48, 16, 4, 1), (999, 16, 4, 1)], ids=["none", "in C order", "of an axis of one"])
def test_one_piece_in_c_order_is_taken_however_it_is_described(session: TensorRtSession, strides: tuple[int, ...] | None) -> None:
    rows = 1 if strides and strides[0] == 999 else 3
    session.upload({"image": OnGpu(shape=(rows, *SHAPE[1:]), strides=strides)})


def test_an_output_is_shared_where_it_lies(session: TensorRtSession) -> None:
    feed = session.upload({"image": OnGpu()})
    session.launch(feed)
    (shared,) = session.shared(feed).values()
    capsule = shared.__dlpack__(stream=9, max_version=(1, 0))
    assert capsule == ("capsule", feed.addresses["embedding"], (3, 8), np.dtype(np.float16), (1, 0))
    assert shared.__dlpack_device__() == (2, 0)


@pytest.mark.parametrize(("asked", "waits"), [(None, 1), (2, 2), (9, 9)], ids=["default", "per thread", "own"])
def test_the_consumers_stream_waits_for_the_launch_and_the_host_does_not(
    session: TensorRtSession, cuda: NotedCuda, asked: int | None, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = session.upload({"image": OnGpu()})
    session.launch(feed)
    (shared,) = session.shared(feed).values()
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(session, "_cuda", _Noting(cuda, told))
    shared.__dlpack__(stream=asked)
    assert [name for name, *_ in told] == ["cudaEventCreateWithFlags", "cudaEventRecord", "cudaStreamWaitEvent"]
    assert told[1][2] == STREAM
    assert told[2][1] == waits


def test_a_consumer_that_wants_no_order_gets_none(session: TensorRtSession, cuda: NotedCuda) -> None:
    feed = session.upload({"image": OnGpu()})
    session.launch(feed)
    (shared,) = session.shared(feed).values()
    cuda.calls.clear()
    shared.__dlpack__(stream=-1)
    assert cuda.calls == []


@pytest.mark.parametrize("asked", [{"copy": True}, {"dl_device": (1, 0)}])
def test_a_copy_or_another_device_is_refused_as_the_protocol_has_it(session: TensorRtSession, asked: dict[str, Any]) -> None:
    feed = session.upload({"image": OnGpu()})
    session.launch(feed)
    (shared,) = session.shared(feed).values()
    with pytest.raises(BufferError):
        shared.__dlpack__(**asked)


def test_what_was_never_launched_is_not_shared(session: TensorRtSession) -> None:
    with pytest.raises(InvalidMeasurement, match="nothing was launched"):
        session.shared(session.upload({"image": OnGpu()}))


def test_a_cuda_core_that_gives_no_arrays_is_told(session: TensorRtSession, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = session.upload({"image": OnGpu()})
    session.launch(feed)
    monkeypatch.setattr(_dlpack, "_core", lambda part="": SimpleNamespace(StridedMemoryView=object, Buffer=None))
    with pytest.raises(MissingLibrary, match="pip install -U cuda-core"):
        session.shared(feed)


def test_the_installed_cuda_core_has_what_is_asked_of_it() -> None:
    core = pytest.importorskip("cuda.core")
    utils = pytest.importorskip("cuda.core.utils")
    assert _dlpack._core() is core
    assert _dlpack._core("utils") is utils
    assert all(hasattr(utils.StridedMemoryView, name) for name in ("from_buffer", "__dlpack__", "ptr", "shape", "strides", "dtype"))
    assert hasattr(core.Buffer, "from_handle")


class _Noting:
    """The stand-in for CUDA, with what each call was given."""

    def __init__(self, cuda: NotedCuda, told: list[tuple[Any, ...]]) -> None:
        self._cuda, self._told = cuda, told
        self.runtime = cuda.runtime

    def __call__(self, name: str, *arguments: Any) -> Any:
        self._told.append((name, *arguments))
        return self._cuda(name, *arguments)
