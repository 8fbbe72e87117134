"""Pairs of engines in real workers; the fake backend keeps them small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InvalidMeasurement, OutsideProfile, UnusableEngine, UsageError, WorkerHung
from harness.judge.latency.samples import judge_samples
from harness.measure.blocks import ABBA, BAAB
from harness.measure.gpu_state import Gpu
from harness.pipeline import pairing
from harness.pipeline.guarding import BlindGuard, GpuGuard
from harness.pipeline.pairing import Plan, measure, measure_pairs
from harness.records.latency import Arm
from harness.records.timing import Cache, TimingProtocol
from harness.records.verdict import Status
from harness.workers.engines import Loaded
from tests.helpers.fake_nvml import NO_PERMISSION, UUID, FakeNvml
from tests.helpers.left_engines import fake_engine

SHORT = TimingProtocol(block_ms=0.5, quartets=3)
IMAGE, TEXT = fake_engine(), fake_engine(tower="text")


def _plan(arms=None, **changes):
    return Plan(**{"arms": arms or {"image": (IMAGE, IMAGE)}, "protocol": SHORT, "processes": 1, "rows": 2, **changes})


@pytest.fixture(scope="module")
def two_gates():
    arms = {"image": (IMAGE, IMAGE), "text": (TEXT, TEXT)}
    return measure(_plan(arms, processes=3))


def test_every_gate_has_every_process_in_balanced_turns(two_gates):
    assert set(two_gates.samples) == {"image", "text"}
    for samples in two_gates.samples.values():
        assert len(samples.processes) == 3
        for process in samples.processes:
            arms = [block.arm for block in process.blocks]
            assert all(tuple(arms[at : at + 4]) in (ABBA, BAAB) for at in range(0, 12, 4))


def test_both_arms_launch_as_often_in_every_block(two_gates):
    for samples in two_gates.samples.values():
        assert len({len(block.ms) for process in samples.processes for block in process.blocks}) == 1


def test_what_was_measured_can_be_judged(two_gates):
    assert judge_samples(two_gates.samples["image"], delta=1e6).status is Status.PASS


def test_each_gate_says_how_it_was_measured(two_gates):
    about = two_gates.samples["text"].about
    assert about["protocol"] == SHORT.id
    assert about["baseline"].startswith("tiny/text-fp16-fake")
    assert "3 quartets a process" in about["order"]
    assert about["launches"] == "plain launches, timed by the host; this backend has no graphs"
    assert {"guard", "clocks", "warm-up", "start", "machine", "launches a block", "baseline load"} <= set(about)


def test_each_process_is_a_fresh_pair_of_workers(two_gates):
    assert len(two_gates.start_ms) == 6
    assert [len(two_gates.host_bytes[arm]) for arm in Arm] == [3, 3]


def test_one_process_can_hold_both_arms():
    measured = measure(_plan(same_process=True))
    assert len(measured.start_ms) == 1
    assert measured.samples["image"].about["processes"] == "both engines in one"
    assert measured.host_bytes[Arm.BASELINE] == []


def test_the_short_form_gives_samples_by_gate():
    samples = measure_pairs({"image": (IMAGE, IMAGE)}, SHORT, 1, rows=1, same_process=True)
    assert len(samples["image"].processes) == 1


def test_cold_launches_say_how_caches_were_emptied():
    protocol = TimingProtocol(block_ms=0.5, quartets=1, cache=Cache.COLD, rest_ms=0.1)
    about = measure(_plan(protocol=protocol, same_process=True)).samples["image"].about
    assert "twice the last-level cache" in about["cold cache"]
    assert "cold" in about["protocol"]


def test_engines_of_other_inputs_are_not_compared():
    with pytest.raises(UnusableEngine, match="expected the same inputs"):
        measure(_plan({"mixed": (IMAGE, TEXT)}, same_process=True))


def test_a_batch_outside_the_profile_is_refused():
    with pytest.raises(OutsideProfile, match="batch of 9"):
        measure(_plan(rows=9, same_process=True))


def test_a_worker_that_takes_too_long_ends_the_measurement():
    with pytest.raises(WorkerHung, match=r"within 0\.001 s"):
        measure(_plan(answer_s=0.001))


def test_two_environments_cannot_share_a_process():
    with pytest.raises(UsageError, match="cannot share a process"):
        _plan(pythons=(None, Path("elsewhere")), same_process=True)
    with pytest.raises(UsageError, match="cannot share a process"):
        _plan({"apart": (IMAGE, fake_engine(backend="onnxruntime"))}, same_process=True)


def test_nothing_to_measure_is_refused():
    with pytest.raises(UsageError, match="at least one of each"):
        _plan(processes=0)


def _block():
    return (1.0, 1.0)


def test_blocks_on_a_gpu_have_its_clock_and_what_lowered_it():
    nvml = FakeNvml(nvmlDeviceSetGpuLockedClocks=NO_PERMISSION)
    nvml.reasons = 0x8
    with Gpu(nvml, UUID) as gpu:
        guard = GpuGuard(gpu, ours=1, lock=True)
        block = guard.block(Arm.CANDIDATE, _block)
        words = guard.words()
    assert (block.arm, block.sm_clock_mhz, block.hard_reasons) == (Arm.CANDIDATE, 1980, ("hw_slowdown",))
    assert "hw_slowdown in 1 blocks" in words["guard"]
    assert words["clocks"].startswith("unlocked: locking clocks is refused")


def test_a_lock_that_does_not_hold_is_told():
    nvml = FakeNvml()
    with Gpu(nvml, UUID) as gpu:
        guard = GpuGuard(gpu, ours=1, lock=True)
        nvml.sm_mhz = 900
        guard.block(Arm.BASELINE, _block)
        assert "run at 900" in guard.words()["clocks"]


def test_a_gpu_that_nobody_can_see_is_timed_without_clocks():
    guard = BlindGuard("absent: no driver")
    assert guard.block(Arm.BASELINE, _block).sm_clock_mhz is None
    assert guard.words()["guard"] == "absent: no driver"


def test_an_arm_whose_capture_failed_is_not_judged_beside_graph_replays():
    replayed = Loaded(
        ports=(), load_ms=1.0, backend_version="1", clock="a test", graph="graph replays", device_uuid=None, peak_before_bytes=None
    )
    plain = replace(replayed, graph="plain launches: no graph was captured: no room")
    pairing._require_launched_alike("a gate", replayed, replayed)
    with pytest.raises(InvalidMeasurement, match=r"baseline is launched as plain launches: .*, the candidate as graph replays"):
        pairing._require_launched_alike("a gate", plain, replayed)
