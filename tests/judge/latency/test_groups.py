"""How blocks become groups, which of them count, and what no judge can use."""

from __future__ import annotations

import numpy as np
import pytest

from harness.judge.latency.groups import clock_of, group_size, groups_of, kept_groups, problem_of
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks

A, B = Arm.BASELINE, Arm.CANDIDATE
ABBA = (A, B, B, A)


def process(arms=ABBA * 3, **changes):
    return ProcessBlocks(blocks=tuple(Block(**{"arm": arm, "ms": (2.0,), **changes}) for arm in arms))


def clocked(baseline, candidate):
    """A process whose blocks were read at these clocks, in turn."""
    readings = {A: iter(baseline), B: iter(candidate)}
    arms = ABBA * (len(baseline) // 2)
    return ProcessBlocks(blocks=tuple(Block(arm=arm, ms=(2.0,), sm_clock_mhz=next(readings[arm])) for arm in arms))


@pytest.mark.parametrize(
    ("arms", "size"),
    [
        (ABBA * 2, 4),
        ((B, A, A, B), 4),
        ((A, B) * 3, 2),
        ((A, A, B, B), 4),
        ((A, A, A, B), None),
        ((A, B, A), None),
        ((A, A, B, B, B, A), None),
    ],
)
def test_groups_are_fours_where_arms_take_turns_in_fours_else_twos(arms, size):
    assert group_size(process(arms)) == size
    assert len(groups_of(process(arms))) == (len(arms) // size if size else 0)


def test_a_group_with_a_hard_reason_is_dropped_alone():
    blocks = list(process().blocks)
    blocks[5] = Block(arm=blocks[5].arm, ms=(2.0,), throttle=("sw_power_cap", "hw_slowdown"))
    assert kept_groups(ProcessBlocks(blocks=tuple(blocks))).tolist() == [True, False, True]


def test_a_power_cap_drops_nothing():
    assert kept_groups(process(throttle=("sw_power_cap", "gpu_idle"))).all()


def test_readings_that_jump_in_both_arms_drop_nothing():
    assert kept_groups(clocked((1600, 1980, 1900, 1700), (1980, 1600, 1700, 1900))).all()


def test_a_process_whose_arms_ran_at_other_clocks_is_dropped_whole():
    assert not kept_groups(clocked((1980,) * 4, (1980, 1980, 1800, 1800))).any()
    assert kept_groups(clocked((1980,) * 4, (1980, 1980, 1950, 1950))).all()


def test_clocks_that_nobody_read_drop_nothing():
    assert kept_groups(process()).all()
    assert clock_of(LatencySamples(processes=(process(),)), A) is None


def test_the_clock_of_an_arm_is_its_mean():
    samples = LatencySamples(processes=(clocked((1000, 2000), (1500, 1500)),))
    assert (clock_of(samples, A), clock_of(samples, B)) == (1500, 1500)


def test_whole_samples_have_no_problem_and_two_processes_do():
    assert problem_of(LatencySamples(processes=(process(),) * 3)) is None
    assert "2 processes; expected at least 3" in problem_of(LatencySamples(processes=(process(),) * 2))


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (process(()), "process 2: no blocks"),
        (process((A, A)), "blocks of the baseline alone"),
        (process((A, B, A)), "2 blocks of the baseline and 1 of the candidate"),
        (process((A, A, A, B, B, B)), "turns such as A B B A"),
        (process(ms=()), "block 1: no launches"),
        (process(ms=(2.0, float("nan"))), "a launch of nan ms"),
        (process(sm_clock_mhz=-1.0), "an SM clock of -1.0 MHz"),
    ],
)
def test_a_process_that_proves_nothing_is_named(spoilt, words):
    samples = LatencySamples(processes=(process(), spoilt, process()))
    assert words in problem_of(samples)


def test_twice_the_launches_in_one_arm_are_another_design():
    blocks = tuple(Block(arm=arm, ms=(2.0,) * (4 if arm is A else 2)) for arm in ABBA)
    assert "2 launches a block of one arm and 4 of the other" in problem_of(LatencySamples(processes=(ProcessBlocks(blocks=blocks),) * 3))


def test_arms_at_two_clocks_are_named_with_both():
    found = problem_of(LatencySamples(processes=(clocked((1980,) * 2, (1755,) * 2),) * 3))
    assert "the baseline ran at 1980 MHz and the candidate at 1755" in found


def test_the_groups_of_no_blocks_are_none():
    assert kept_groups(process(())).shape == np.zeros(0).shape
