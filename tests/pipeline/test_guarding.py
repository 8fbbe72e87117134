"""Whether a GPU's clocks are locked while it is timed, and who may say so."""

import os
import signal
import threading
import time

import pytest

from harness.errors import WorkerDied
from harness.measure.gpu_state import Gpu
from harness.pipeline.guarding import LEAVE_CLOCKS, GpuGuard, guarded
from harness.records.latency import Arm
from tests.helpers.fake_nvml import NOT_SUPPORTED, UUID, FakeNvml


def locked_to(nvml: FakeNvml) -> tuple[int | None, str]:
    """The clock that is held while a guard watches, and its words on it."""
    with Gpu(nvml, UUID) as gpu:
        guard = GpuGuard(gpu, ours=1, lock=True)
        return nvml.locked, guard.words()["clocks"]


def test_clocks_are_locked_where_that_is_permitted_and_given_back(monkeypatch):
    monkeypatch.delenv(LEAVE_CLOCKS, raising=False)
    nvml = FakeNvml()
    assert locked_to(nvml) == (1584, "locked to 1584 MHz")
    assert nvml.locked is None


@pytest.mark.parametrize(("word", "is_left"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_whoever_lends_the_gpu_can_have_its_clocks_left_alone(monkeypatch, word, is_left):
    monkeypatch.setenv(LEAVE_CLOCKS, word)
    nvml = FakeNvml()
    mhz, words = locked_to(nvml)
    assert (mhz is None) == is_left
    assert ("nvmlDeviceSetGpuLockedClocks" not in nvml.calls) == is_left
    assert words == ("unlocked: ENGINEGATE_LEAVE_CLOCKS is set" if is_left else "locked to 1584 MHz")


def test_a_job_that_is_cancelled_gives_clocks_back(monkeypatch):
    monkeypatch.delenv(LEAVE_CLOCKS, raising=False)
    nvml = FakeNvml()
    monkeypatch.setattr("harness.pipeline.guarding.watched", lambda uuid: Gpu(nvml, uuid))
    before = signal.getsignal(signal.SIGTERM)
    held: list[int | None] = []

    def cancelled() -> None:
        with guarded(UUID, ours=1):
            held.append(nvml.locked)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert (held, nvml.locked) == ([1584], None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stranger_who_comes_after_the_guard_was_set_up_costs_the_blocks_beside_him():
    nvml = FakeNvml()

    def stranger_comes() -> tuple[float, ...]:
        nvml.processes = 2
        return (1.0,)

    def stranger_goes() -> tuple[float, ...]:
        nvml.processes = 1
        return (1.0,)

    with Gpu(nvml, UUID) as gpu:
        guard = GpuGuard(gpu, ours=1, lock=False)
        blocks = [guard.block(Arm.BASELINE, timed) for timed in (lambda: (1.0,), stranger_comes, stranger_goes, lambda: (1.0,))]
        words = guard.words()["guard"]
    assert [block.hard_reasons for block in blocks] == [(), ("other_processes",), ("other_processes",), ()]
    assert "lowered by nothing; other processes computed beside 2 blocks, which do not count" in words


def test_the_clock_of_a_block_is_the_one_at_which_it_ran_and_not_the_one_around_it():
    nvml = FakeNvml()

    def runs_slowly() -> tuple[float, ...]:
        nvml.sm_mhz, read_before = 1500, nvml.calls.count("nvmlDeviceGetClockInfo")
        while nvml.calls.count("nvmlDeviceGetClockInfo") < read_before + 5:
            time.sleep(0.001)
        nvml.sm_mhz = 1980
        return (30.0,)

    with Gpu(nvml, UUID) as gpu:
        block = GpuGuard(gpu, ours=1, lock=False).block(Arm.BASELINE, runs_slowly)
    assert block.sm_clock_mhz is not None
    assert 1500 <= block.sm_clock_mhz < 1600  # at most one reading of six fell behind it


def test_a_block_of_a_moment_has_the_clock_around_it():
    with Gpu(FakeNvml(), UUID) as gpu:
        assert GpuGuard(gpu, ours=1, lock=False).block(Arm.BASELINE, lambda: (0.1,)).sm_clock_mhz == 1980


def test_a_block_that_breaks_leaves_nobody_reading_clocks():
    def breaks() -> tuple[float, ...]:
        raise WorkerDied("it died")

    running = threading.active_count()
    with Gpu(FakeNvml(), UUID) as gpu, pytest.raises(WorkerDied):
        GpuGuard(gpu, ours=1, lock=False).block(Arm.BASELINE, breaks)
    assert threading.active_count() == running


def test_a_board_that_tells_no_clock_is_not_asked_again_and_again():
    nvml = FakeNvml(nvmlDeviceGetClockInfo=NOT_SUPPORTED)
    with Gpu(nvml, UUID) as gpu, gpu.clocks_meanwhile() as clocks:
        time.sleep(0.05)
    assert clocks == []
    assert nvml.calls.count("nvmlDeviceGetClockInfo") <= 1
