import math

import pytest

from harness.judge.latency.rounds import ROUNDS_FOR_A_MEDIAN, latency_ratio, ratio_of
from harness.records.verdict import Status

REFERENCE_MS = (10.0,) * 15


def judged(candidate_ms, *, reference_ms=REFERENCE_MS, approved=4.0):
    return latency_ratio(candidate_ms, reference_ms, approved=approved, relative_margin=0.5)


def test_the_approved_ratio_passes():
    judgement = judged((40.0,) * 15)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.PASS, 4.0, 6.0)


def test_a_ratio_beyond_the_margin_fails_and_says_what_cannot_be_seen():
    judgement = judged((70.0,) * 15)

    assert judgement.status is Status.FAIL
    assert "+75%" in judgement.reason
    assert "below 50% cannot be seen" in judgement.reason


def test_a_minute_that_slows_both_engines_changes_nothing():
    slow = [3.0 if index > 4 else 1.0 for index in range(15)]

    assert ratio_of([40 * factor for factor in slow], [10 * factor for factor in slow]) == pytest.approx(4)


def test_a_few_spikes_do_not_move_the_median():
    assert judged((40.0,) * 12 + (400.0,) * 3).status is Status.PASS


def test_no_baseline_is_not_a_pass():
    assert judged((40.0,) * 15, approved=None).status is Status.NO_BASELINE


def test_too_few_rounds_carry_no_claim():
    few = ROUNDS_FOR_A_MEDIAN - 1

    assert judged((40.0,) * few, reference_ms=(10.0,) * few).status is Status.INCONCLUSIVE


@pytest.mark.parametrize("broken", [0.0, -1.0, math.nan, math.inf])
def test_times_that_cannot_be_are_invalid(broken):
    assert judged((40.0,) * 14 + (broken,)).status is Status.INVALID


def test_arms_of_different_length_are_invalid():
    assert judged((40.0,) * 14).status is Status.INVALID


def test_a_ratio_approved_on_another_processor_carries_no_failure():
    slower = latency_ratio((70.0,) * 15, REFERENCE_MS, approved=4.0, relative_margin=0.5, is_same_processor=False)
    as_fast = latency_ratio((40.0,) * 15, REFERENCE_MS, approved=4.0, relative_margin=0.5, is_same_processor=False)

    assert (slower.status, as_fast.status) == (Status.INCONCLUSIVE, Status.PASS)
    assert "another make of processor" in slower.reason
