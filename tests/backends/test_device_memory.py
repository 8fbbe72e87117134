"""Memory of the device is counted where it is taken: by phase, with its peak, and without a fault of counting reaching who computes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from execnet.gateway_base import dumps, loads

from harness.backends import _counted_session, _cuda_session, _nvinfer
from harness.backends import tensorrt as module
from harness.backends._allocations import AllocationCounter
from harness.backends._cuda import Found
from harness.backends._gpu_allocator import NO_ADDRESS, CudaBlocks, new_allocator, why_no_allocator
from harness.backends.tensorrt import TensorRtBackend
from harness.errors import InvalidMeasurement, OutOfDeviceMemory, UnusableInputs
from harness.records.artifacts import EngineArtifact
from harness.records.observations import DeviceMemory, DevicePhase, PhaseBytes
from harness.workers import serving as _serving
from harness.workers.serving import Desk, device_memory_from_plain, device_memory_to_plain, engine_to_plain
from tests.backends.test_tensorrt import H100, NotedCuda
from tests.helpers.fake_tensorrt import ACTIVATION_BYTES, RELEASES, WEIGHTS_BYTES, Script, fake_tensorrt

PICTURE_BYTES = 3 * 3 * 4 * 4 * 2  # three float16 rows of `pictures`
EMBEDDING_BYTES = 3 * 8 * 2


# -- counting ----------------------------------------------------------------------------------------------------------------------


def test_each_phase_has_what_it_took_and_the_most_that_was_held_in_it() -> None:
    counter = AllocationCounter()
    counter.took(1, 100, by_runtime=True)
    counter.took(2, 50, by_runtime=True)
    counter.gave_back(2)
    counter.enter(DevicePhase.BUFFERS)
    counter.took(3, 7, by_runtime=False)
    load, buffers = counter.reading().phases
    assert load == PhaseBytes(phase=DevicePhase.LOAD, runtime_bytes=150, session_bytes=0, held_bytes=100, peak_bytes=150, requests=2)
    assert buffers == PhaseBytes(phase=DevicePhase.BUFFERS, runtime_bytes=0, session_bytes=7, held_bytes=107, peak_bytes=107, requests=1)
    assert counter.reading().peak_bytes == 150


def test_a_phase_that_is_entered_again_goes_on() -> None:
    counter = AllocationCounter()
    for address in (1, 2):
        counter.enter(DevicePhase.LAUNCHES)
        counter.took(address, 10, by_runtime=True)
        counter.enter(DevicePhase.BUFFERS)
    assert [phase.phase for phase in counter.reading().phases] == [DevicePhase.LOAD, DevicePhase.LAUNCHES, DevicePhase.BUFFERS]
    assert counter.reading().launch_bytes == 20


def test_what_is_given_back_and_was_never_taken_is_a_trouble_and_changes_nothing() -> None:
    counter = AllocationCounter()
    counter.took(1, 10, by_runtime=True)
    counter.gave_back(77)
    assert counter.reading().phases[0].held_bytes == 10
    assert counter.reading().troubles == ("address 0x4d was given back and never taken",)


def test_threads_lose_no_byte() -> None:
    counter = AllocationCounter()

    def work(first: int) -> None:
        for address in range(first, first + 500):
            counter.took(address, 3, by_runtime=True)
            if address % 2:
                counter.gave_back(address)

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (load,) = counter.reading().phases
    assert (load.runtime_bytes, load.held_bytes, load.requests) == (4 * 500 * 3, 4 * 250 * 3, 4 * 500)


# -- the allocator -----------------------------------------------------------------------------------------------------------------


class NumberedBlocks:
    """Addresses one after another, until there is no more."""

    def __init__(self, room: int = 10**6) -> None:
        self.room, self.sizes = room, dict[int, int]()
        self.fails: Exception | None = None

    def take(self, nbytes: int) -> int:
        if self.fails is not None:
            raise self.fails
        if nbytes > self.room:
            return NO_ADDRESS
        self.room -= nbytes
        self.sizes[4096 + len(self.sizes)] = nbytes
        return max(self.sizes)

    def give_back(self, address: int) -> bool:
        if self.fails is not None:
            raise self.fails
        self.room += self.sizes[address]
        return True


@pytest.fixture
def counter() -> AllocationCounter:
    return AllocationCounter()


@pytest.fixture
def blocks() -> NumberedBlocks:
    return NumberedBlocks()


@pytest.fixture(params=RELEASES)
def allocator(request: pytest.FixtureRequest, counter: AllocationCounter, blocks: NumberedBlocks) -> Any:
    return new_allocator(fake_tensorrt(request.param), counter, blocks)


def test_every_way_of_asking_is_counted(allocator: Any, counter: AllocationCounter) -> None:
    first = allocator.allocate(100, 256, 0)
    second = allocator.allocate_async(30, 0, 0, 5)
    assert allocator.reallocate(first, 256, 200) == NO_ADDRESS
    assert allocator.deallocate(first)
    assert allocator.deallocate_async(second, 5)
    (load,) = counter.reading().phases
    assert (load.runtime_bytes, load.held_bytes, load.peak_bytes, load.requests) == (130, 0, 130, 2)


def test_nothing_asked_for_is_nothing_taken(allocator: Any, counter: AllocationCounter) -> None:
    assert allocator.allocate(0, 256, 0) == NO_ADDRESS
    assert allocator.deallocate(0)
    assert counter.reading() == AllocationCounter().reading()


def test_what_cannot_be_had_is_said_so_and_counts_for_nothing(allocator: Any, counter: AllocationCounter) -> None:
    assert allocator.allocate(10**9, 256, 0) == NO_ADDRESS
    assert counter.reading() == AllocationCounter().reading()


def test_no_fault_leaves_the_allocator(allocator: Any, counter: AllocationCounter, blocks: NumberedBlocks) -> None:
    address = allocator.allocate(10, 256, 0)
    blocks.fails = RuntimeError("the bindings broke")
    assert allocator.allocate(10, 256, 0) == NO_ADDRESS
    assert not allocator.deallocate(address)
    assert [words.rpartition(": ")[2] for words in counter.reading().troubles] == ["the bindings broke"] * 2


def test_memory_that_was_had_is_handed_over_though_it_could_not_be_counted(
    allocator: Any, counter: AllocationCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "_note_held", lambda tally: 1 / 0)
    assert allocator.allocate(10, 256, 0) != NO_ADDRESS
    assert "ZeroDivisionError" in counter.reading().troubles[0]


def test_an_error_of_cuda_is_no_address_and_is_left_for_nobody_else_to_find() -> None:
    asked: list[str] = []
    runtime = SimpleNamespace(
        cudaMalloc=lambda nbytes: (2, None) if nbytes > 9 else (0, 64),
        cudaFree=lambda address: (0,) if address == 64 else (1,),
        cudaGetLastError=lambda: asked.append("cudaGetLastError"),
    )
    blocks = CudaBlocks(runtime)
    assert (blocks.take(9), blocks.give_back(64), blocks.give_back(65)) == (64, True, False)
    assert blocks.take(10) == NO_ADDRESS
    assert asked == ["cudaGetLastError"]


def test_a_release_that_takes_no_allocator_is_told() -> None:
    trt = fake_tensorrt("10.6")
    assert why_no_allocator(trt) is None
    del trt.IGpuAllocator
    assert "takes no allocator" in (why_no_allocator(trt) or "")


# -- a session ---------------------------------------------------------------------------------------------------------------------


class TuplingCuda(NotedCuda):
    """As the bindings: a call of the runtime's gives its error before what it found."""

    def __getattr__(self, name: str) -> Any:
        if name in ("cudaMalloc", "cudaFree"):
            return lambda *arguments: (0, self(name, *arguments))
        return super().__getattr__(name)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=RELEASES)
def plan(
    request: pytest.FixtureRequest,
    script: Script,
    make_engine: Callable[..., EngineArtifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> EngineArtifact:
    """A plan of each release, on an H100 whose CUDA only notes what it is asked."""
    fake, cuda = fake_tensorrt(request.param, script), TuplingCuda()
    monkeypatch.setattr(_nvinfer, "_loggers", {})
    monkeypatch.setattr(_cuda_session, "Cuda", lambda: cuda)
    monkeypatch.setattr(module, "Cuda", lambda: cuda)
    monkeypatch.setattr(module, "find_gpu", lambda: Found(gpu=H100, cuda_major=13))
    monkeypatch.setattr(module.library, "why_no_library", lambda: None)
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    monkeypatch.setattr(module.library, "version", lambda: fake.__version__)
    monkeypatch.setattr(module.library, "load", lambda: fake)
    file = tmp_path / "a.engine"
    file.write_bytes(b"plan")
    return replace(make_engine("tensorrt", file, recipe="fp16"), backend_version=fake.__version__, device=str(H100), sha256=None)


def _weighed(plan: EngineArtifact, pictures: np.ndarray) -> DeviceMemory:
    with TensorRtBackend().open_counted(plan) as session:
        feed = session.upload({"image": pictures})
        for _ in range(3):
            session.launch(feed)
    return session.device_memory(rows=3)


def test_weights_activations_and_buffers_are_counted_each_in_its_phase(plan: EngineArtifact, pictures: np.ndarray) -> None:
    seen = _weighed(plan, pictures)
    taken = {phase.phase: (phase.runtime_bytes, phase.session_bytes) for phase in seen.phases}
    assert taken == {
        DevicePhase.LOAD: (WEIGHTS_BYTES, 0),
        DevicePhase.CONTEXT: (ACTIVATION_BYTES, 0),
        DevicePhase.BUFFERS: (0, PICTURE_BYTES + EMBEDDING_BYTES),
        DevicePhase.FIRST_LAUNCH: (0, 0),
        DevicePhase.LAUNCHES: (0, 0),
        DevicePhase.CLOSE: (0, 0),
    }
    assert seen.peak_bytes == WEIGHTS_BYTES + ACTIVATION_BYTES + PICTURE_BYTES + EMBEDDING_BYTES
    assert (seen.launch_bytes, seen.troubles) == (0, ())


def test_closing_gives_everything_back(plan: EngineArtifact, pictures: np.ndarray) -> None:
    seen = _weighed(plan, pictures)
    gc.collect()
    assert seen.phases[-1].held_bytes == 0


def test_a_launch_that_allocates_is_seen(plan: EngineArtifact, script: Script, pictures: np.ndarray) -> None:
    script.launch_bytes = 512
    seen = _weighed(plan, pictures)
    taken = {phase.phase: phase.runtime_bytes for phase in seen.phases}
    assert (taken[DevicePhase.FIRST_LAUNCH], taken[DevicePhase.LAUNCHES], seen.launch_bytes) == (512, 1024, 1024)


def test_other_sessions_leave_allocation_to_tensorrt(plan: EngineArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "new_allocator", lambda *_: pytest.fail("an allocator was handed over"))
    with TensorRtBackend().open(plan) as session:
        assert type(session) is not _counted_session.CountedSession


def test_a_release_without_allocators_is_not_weighed(plan: EngineArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module.library.load(), "IGpuAllocator")
    with pytest.raises(InvalidMeasurement, match="takes no allocator"), TensorRtBackend().open_counted(plan):
        pass


def test_a_gpu_without_room_fails_in_tensorrts_words(plan: EngineArtifact, script: Script) -> None:
    script.loads, script.says = False, [("ERROR", "[virtualMemoryBuffer] out of memory")]
    with pytest.raises(OutOfDeviceMemory), TensorRtBackend().open_counted(plan):
        pass


# -- in a worker -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(_serving, "require_possible", lambda backend, action, spec: None)
    with ExitStack() as stack:
        yield Desk(stack)


def test_figures_cross_processes_as_they_are(plan: EngineArtifact, script: Script, desk: Desk) -> None:
    script.launch_bytes = 8
    plain = desk.weigh(engine_to_plain(plan), rows=4, launches=3)
    seen = device_memory_from_plain(loads(dumps(plain)))
    assert device_memory_to_plain(seen) == plain
    assert (seen.rows, seen.launch_bytes, seen.phases[0].runtime_bytes) == (4, 16, WEIGHTS_BYTES)


def test_a_backend_that_counts_nothing_says_so(make_engine: Callable[..., EngineArtifact], tmp_path: Path, desk: Desk) -> None:
    with pytest.raises(UnusableInputs, match="backend fake does not count"):
        desk.weigh(engine_to_plain(make_engine("fake", tmp_path / "a.onnx")), rows=1, launches=1)
