"""A whole file of samples: what it says, and what is left of it after the guard."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.judge.latency.samples import judge_samples, process_ratios
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.verdict import Status
from harness.report.latency import latency_text

TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)


def samples(ratios=(1.0, 1.001, 0.999, 1.0, 1.0), *, quartets=5):
    """One process a ratio; its baseline takes 2 ms."""
    return LatencySamples(
        processes=tuple(
            ProcessBlocks(
                blocks=tuple(
                    Block(arm=arm, ms=(2.0 * (ratio if arm is Arm.CANDIDATE else 1),) * 3, sm_clock_mhz=1980.0) for arm in TURNS * quartets
                )
            )
            for ratio in ratios
        )
    )


def spoilt(found, *, blocks, process=0, **changes):
    """The same with changes to the first blocks of one process."""
    changed = [replace(block, **changes) if place < blocks else block for place, block in enumerate(found.processes[process].blocks)]
    processes = list(found.processes)
    processes[process] = ProcessBlocks(blocks=tuple(changed))
    return replace(found, processes=tuple(processes))


def test_each_process_is_one_log_ratio():
    logs, groups, dropped = process_ratios(samples((1.1, 1.2, 1.3)))
    assert logs == pytest.approx([math.log(1.1), math.log(1.2), math.log(1.3)])
    assert (groups, dropped) == (15, 0)


def test_a_slow_down_counts_from_the_ratio_it_is_held_against():
    slow = samples((6.0, 6.01, 5.99, 6.0, 6.0))

    assert judge_samples(slow).status is Status.FAIL
    held = judge_samples(slow, against=6.0)
    assert (held.status, held.against) == (Status.PASS, 6.0)
    assert held.low < 6.0 < held.high
    assert held.ratio == pytest.approx(6.0)
    assert judge_samples(slow, against=5.0).reason.startswith("slower by 20.0")


def test_a_fifth_of_the_groups_may_be_dropped_and_no_more():
    one = spoilt(samples(), blocks=20, throttle=("hw_slowdown",))
    assert (judge_samples(one).status, judge_samples(one).dropped, judge_samples(one).processes) == (Status.PASS, 5, 4)
    more = spoilt(one, blocks=1, process=1, throttle=("hw_slowdown",))
    assert judge_samples(more).status is Status.INVALID
    assert "6 of 25 groups were throttled" in judge_samples(more).reason


def test_groups_beside_other_processes_do_not_count():
    beside = spoilt(samples(), blocks=20, throttle=("other_processes",))
    assert (judge_samples(beside).status, judge_samples(beside).dropped) == (Status.PASS, 5)
    more = judge_samples(spoilt(beside, blocks=1, process=1, throttle=("other_processes",)))
    assert more.status is Status.INVALID
    assert "6 of 25 groups were throttled, beside other processes" in more.reason


def test_a_process_whose_arms_ran_at_other_clocks_counts_as_dropped():
    blocks = [replace(block, sm_clock_mhz=1900.0 if block.arm is Arm.BASELINE else 1980.0) for block in samples().processes[0].blocks]
    found = replace(samples(), processes=(ProcessBlocks(blocks=tuple(blocks)), *samples().processes[1:]))
    judged = judge_samples(found)
    assert (judged.status, judged.dropped, judged.processes) == (Status.PASS, 5, 4)


def test_too_few_processes_left_by_the_guard_are_invalid():
    three = samples((1.0, 1.001, 0.999), quartets=1)
    few = LatencySamples(
        processes=(*samples((1.0, 1.0), quartets=10).processes, *spoilt(three, blocks=4, throttle=("hw_slowdown",)).processes[:1])
    )
    assert "2 processes are left" in judge_samples(few).reason


def test_what_is_slower_and_below_delta_passes_and_is_told():
    judged = judge_samples(samples((1.003, 1.0031, 1.0029, 1.003, 1.003)))
    assert judged.status is Status.PASS
    assert "slower by 0.30%, which is real, and below 1.00%" in judged.reason


def test_figures_say_launches_and_the_mean_clock_of_each_arm():
    judged = judge_samples(samples())
    assert (judged.baseline.p50_ms, judged.baseline.launches, judged.baseline.sm_clock_mhz) == (2.0, 150, 1980.0)


@pytest.mark.parametrize(("launches", "p99_ms"), [(456, None), (459, 153.0), (660, 220.0), (663, 221.0)])
def test_a_tail_is_told_only_of_as_many_launches_as_it_takes(launches, p99_ms):
    counted = tuple(float(number) for number in range(1, launches // 3 + 1))
    blocks = tuple(Block(arm=arm, ms=counted) for arm in TURNS[:2])
    figures = judge_samples(LatencySamples(processes=(ProcessBlocks(blocks=blocks),) * 3)).baseline

    assert (figures.launches, figures.p99_ms) == (launches, p99_ms)
    words = latency_text(judge_samples(LatencySamples(processes=(ProcessBlocks(blocks=blocks),) * 3)))
    assert (f"p99 below {p99_ms:g} ms" if p99_ms else "no p99 from fewer than 459 launches") in words
