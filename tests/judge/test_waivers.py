"""Waivers: what they lift, how far, and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from harness.judge.waivers import waived
from harness.records.gate_lines import Waiver
from harness.records.verdict import Direction, Judgement, Status

LAST_DAY = date(2027, 1, 31)
WAIVER = Waiver(metric="latency_ratio", ceiling=1.05, reason="a kernel of the next release", owner="Ada", expires=LAST_DAY)
SLOWER = Judgement(
    metric="latency_ratio",
    status=Status.FAIL,
    observed=1.03,
    bound=1.01,
    unit="",
    direction=Direction.CEILING,
    n=8,
    reason="3 % slower",
    interval=(1.02, 1.04),
)


def test_a_failure_below_the_ceiling_passes_and_names_who_answers_for_it():
    seen = waived(SLOWER, WAIVER, today=LAST_DAY)

    assert seen.status is Status.PASS
    assert seen.bound == 1.05
    assert seen.reason == "waived until 2027-01-31 by Ada, up to 1.05: a kernel of the next release; 3 % slower"


def test_a_failure_above_the_ceiling_stays_one():
    seen = waived(replace(SLOWER, observed=1.06, interval=(1.05, 1.07)), WAIVER, today=LAST_DAY)

    assert seen.status is Status.FAIL
    assert seen.reason.startswith("above the ceiling 1.05 that Ada answers for until 2027-01-31")


def test_a_failure_that_may_lie_above_the_ceiling_is_inconclusive():
    assert waived(replace(SLOWER, interval=(1.0, 1.06)), WAIVER, today=LAST_DAY).status is Status.INCONCLUSIVE


def test_a_counted_figure_has_no_interval_and_needs_none():
    assert waived(replace(SLOWER, interval=None), WAIVER, today=LAST_DAY).status is Status.PASS


def test_data_that_cannot_carry_the_tighter_bound_may_carry_the_waiver():
    unclear = replace(SLOWER, status=Status.INCONCLUSIVE)

    assert waived(unclear, WAIVER, today=LAST_DAY).status is Status.PASS
    assert waived(replace(unclear, interval=None), WAIVER, today=LAST_DAY).status is Status.INCONCLUSIVE


@pytest.mark.parametrize("status", [Status.FAIL, Status.INCONCLUSIVE, Status.PASS])
def test_a_waiver_that_is_over_fails_whatever_was_judged(status):
    seen = waived(replace(SLOWER, status=status), WAIVER, today=date(2027, 2, 1))

    assert seen.status is Status.FAIL
    assert seen.reason.startswith("the waiver of latency_ratio by Ada ended on 2027-01-31")


@pytest.mark.parametrize("status", [Status.INVALID, Status.NO_BASELINE])
@pytest.mark.parametrize("today", [LAST_DAY, date(2027, 2, 1)])
def test_no_waiver_mends_a_measurement(status, today):
    broken = replace(SLOWER, status=status)

    assert waived(broken, WAIVER, today=today) is broken


def test_what_passes_alone_needs_no_waiver():
    passed = replace(SLOWER, status=Status.PASS, reason="")

    assert waived(passed, WAIVER, today=LAST_DAY) is passed
    assert waived(passed, None, today=LAST_DAY) is passed
