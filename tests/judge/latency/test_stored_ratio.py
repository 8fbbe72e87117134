"""Ratios against approved ones: who is asked again, what is proven, and what is said of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, asks_again, ratio_judgements, ratio_seen
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.verdict import Status

APPROVED = 6.0
GATE = RatioGate(approved=APPROVED, delta=0.25, session_spread=0.05)
TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)
ALPHA = 0.001


def seen(change, *, processes=5, spread=0.01, seed=1):
    """A stage whose mean ratio is exactly so much above the approved one."""
    noise = np.random.default_rng(seed).normal(0, spread, processes)
    return RatioSeen(logs=math.log(APPROVED * (1 + change)) + noise - noise.mean(), groups=4 * processes)


def judged(first, second=None, *, gate=GATE, alpha=ALPHA, **others):
    gates = {"one": gate, **{name: GATE for name in others}}
    return ratio_judgements(gates, {"one": first, **others}, {} if second is None else {"one": second}, alpha=alpha)["one"]


def test_the_approved_ratio_passes_in_one_stage_and_says_what_could_have_been_seen():
    first = seen(0.0)
    judgement = judged(first)

    assert not asks_again({"one": GATE}, {"one": first}, alpha=ALPHA)
    assert (judgement.status, judgement.observed, judgement.bound, judgement.n) == (Status.PASS, pytest.approx(6.0), 7.5, 5)
    assert judgement.interval[0] < 6.0 < judgement.interval[1] < 7.5
    assert judgement.detectable > GATE.session_spread
    assert "+0.0% against the approved ratio 6; 5 processes, 0 of 20 groups of blocks dropped; sees" in judgement.reason


def test_a_slow_down_is_asked_for_again_and_fails_when_it_is_there_again():
    first, second = seen(0.4), seen(0.38, seed=2)

    assert asks_again({"one": GATE}, {"one": first}, alpha=ALPHA) == ("one",)
    judgement = judged(first, second)
    assert (judgement.status, judgement.n) == (Status.FAIL, 10)
    assert "+39.0% against the approved ratio 6, beyond the 5.0% that sessions differ by" in judgement.reason
    assert "5 + 5 processes" in judgement.reason


def test_a_slow_down_that_new_processes_do_not_show_is_no_failure():
    assert judged(seen(0.4), seen(0.0, seed=2)).status is Status.INCONCLUSIVE


def test_what_is_too_noisy_to_pass_is_asked_again_and_may_pass_then():
    first, second = seen(0.0, spread=0.2), seen(0.0, spread=0.02, seed=3)

    assert asks_again({"one": GATE}, {"one": first}, alpha=ALPHA) == ("one",)
    assert judged(first, second).status in (Status.PASS, Status.INCONCLUSIVE)
    assert judged(seen(0.0, spread=0.12), second).status is Status.PASS


def test_noise_without_a_slow_down_never_fails():
    judgement = judged(seen(0.0, spread=0.5), seen(0.0, spread=0.5, seed=4))

    assert judgement.status is Status.INCONCLUSIVE
    assert "a slow-down of 25.0% is neither shown nor excluded" in judgement.reason


def test_what_sessions_differ_by_is_no_slow_down():
    narrow = RatioGate(approved=APPROVED, delta=0.25, session_spread=0.0)
    first, second = seen(0.3, spread=0.001), seen(0.3, spread=0.001)
    wide = RatioGate(approved=APPROVED, delta=0.31, session_spread=0.301)

    assert judged(first, second, gate=narrow).status is Status.FAIL
    assert judged(seen(0.3, spread=0.02), seen(0.3, spread=0.02, seed=5), gate=wide).status is Status.INCONCLUSIVE


def test_more_gates_share_the_chance_of_a_false_alarm():
    first, second = seen(0.30, spread=0.05), seen(0.30, spread=0.05, seed=6)
    many = {f"gate {number}": seen(0.0) for number in range(400)}

    assert judged(first, second, alpha=0.05).status is Status.FAIL
    assert judged(first, second, alpha=0.001, **many).status is Status.INCONCLUSIVE


def test_a_faster_engine_asks_for_a_new_baseline():
    judgement = judged(seen(-0.4))

    assert judgement.status is Status.PASS
    assert "baseline_stale" in judgement.reason


def test_a_slow_down_beside_a_ratio_of_another_processor_is_inconclusive():
    other = RatioGate(approved=APPROVED, delta=0.25, session_spread=0.05, is_same_processor=False)

    judgement = judged(seen(0.4), seen(0.4, seed=2), gate=other)
    assert judgement.status is Status.INCONCLUSIVE
    assert "another make of processor" in judgement.reason
    assert judged(seen(0.0), gate=other).status is Status.PASS


def test_without_a_baseline_nothing_is_judged():
    none = RatioGate(approved=None, delta=0.25, session_spread=0.05)
    first = seen(0.0)

    assert not asks_again({"one": none}, {"one": first}, alpha=ALPHA)
    judgement = judged(first, gate=none)
    assert (judgement.status, judgement.observed) == (Status.NO_BASELINE, pytest.approx(6.0))


def test_a_gate_that_proves_nothing_leaves_the_others_their_verdicts():
    broken = RatioSeen(logs=np.zeros(0), problem="the clock is broken")
    gates = {"one": GATE, "other": GATE}
    found = ratio_judgements(gates, {"one": broken, "other": seen(0.0)}, {}, alpha=ALPHA)

    assert (found["one"].status, found["one"].reason) == (Status.INVALID, "the clock is broken")
    assert found["other"].status is Status.PASS


def test_a_second_stage_that_is_broken_makes_the_gate_invalid():
    assert judged(seen(0.4), RatioSeen(logs=np.zeros(0), problem="throttled")).status is Status.INVALID


def samples(*, processes=5, quartets=5, throttled=0):
    """Processes of a ratio of six, the first of which has so many throttled quartets."""

    def blocks(process):
        for quartet in range(quartets):
            throttle = ("hw_slowdown",) if process == 0 and quartet < throttled else ()
            yield from (Block(arm=arm, ms=(1.0 if arm is Arm.BASELINE else 6.0,), throttle=throttle) for arm in TURNS)

    return LatencySamples(processes=tuple(ProcessBlocks(blocks=tuple(blocks(process))) for process in range(processes)))


def test_a_stage_is_one_log_ratio_a_process():
    stage = ratio_seen(samples(throttled=2))
    assert stage.logs == pytest.approx([math.log(6)] * 5)
    assert (stage.groups, stage.dropped, stage.problem) == (25, 2, None)


def test_a_process_that_lost_all_groups_is_told():
    assert "1 of 5 processes lost all groups" in ratio_seen(samples(throttled=5)).problem


def test_two_processes_prove_nothing():
    assert "expected at least 3" in ratio_seen(samples(processes=2)).problem


def test_what_a_second_stage_showed_counts_also_where_another_gate_lost_its_share():
    # Asked again at the square root of alpha, and not at that of the half that is left when the other gate has no baseline.
    unapproved = RatioGate(approved=None, delta=0.25, session_spread=0.05)
    gates = {"one": GATE, "other": unapproved}
    alpha = 0.02
    first = next(
        stage
        for stage in (seen(change / 1000, spread=0.05) for change in range(50, 250))
        if asks_again({"one": GATE}, {"one": stage}, alpha=alpha) and not asks_again({"one": GATE}, {"one": stage}, alpha=alpha / 2)
    )
    second = seen(0.6, spread=0.05, seed=2)

    judgement = ratio_judgements(gates, {"one": first, "other": seen(0.0)}, {"one": second}, alpha=alpha)["one"]

    assert judgement.interval[1] > judgement.bound
    assert judgement.status is not Status.PASS
