"""What no verdict may rest on is INVALID in words wherever it is judged: as a file, and in either stage of either latency gate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.judge.latency.samples import judge_samples
from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, ratio_judgements, ratio_seen
from harness.records.gate_lines import LATENCY_MS, LATENCY_RATIO
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.verdict import Status

A, B = Arm.BASELINE, Arm.CANDIDATE
ABBA = (A, B, B, A)


def process(arms=ABBA * 4, **changes):
    return ProcessBlocks(blocks=tuple(Block(**{"arm": arm, "ms": (2.0, 2.0), **changes}) for arm in arms))


def each(change):
    """Four processes in which some blocks are otherwise."""
    blocks = tuple(change(number, block) for number, block in enumerate(process(sm_clock_mhz=1980.0).blocks))
    return LatencySamples(processes=(ProcessBlocks(blocks=blocks),) * 4)


def one_time(ms):
    return each(lambda number, block: replace(block, ms=(2.0, ms)) if number == 5 else block)


def of_candidates(**changes):
    return each(lambda _, block: replace(block, **changes) if block.arm is B else block)


def processes(*spoilt):
    return LatencySamples(processes=(*(process(),) * 3, *spoilt))


BROKEN = {
    "no process": (LatencySamples(processes=()), "0 processes; expected at least 3"),
    "one process": (LatencySamples(processes=(process(),)), "1 process; expected at least 3"),
    "no block": (processes(process(())), "process 4: no blocks"),
    "an empty block": (processes(process(ms=())), "no launches; expected at least one"),
    "one arm only": (processes(process((A, A))), "blocks of the baseline alone"),
    "a negative time": (one_time(-1.0), "a launch of -1.0 ms"),
    "a time of zero": (one_time(0.0), "a launch of 0.0 ms"),
    "a time that is no number": (one_time(math.nan), "a launch of nan ms"),
    "an infinite time": (one_time(math.inf), "a launch of inf ms"),
    "a block more in one arm": (processes(process((A, B, A))), "2 blocks of the baseline and 1 of the candidate"),
    "arms that take no turns": (processes(process((A, A, A, B, B, B))), "expected turns such as A B B A"),
    "twice the launches in one arm": (of_candidates(ms=(2.0,) * 4), "2 launches a block of one arm and 4 of the other"),
    "clocks that differ": (of_candidates(sm_clock_mhz=1755.0), "the baseline ran at 1980 MHz and the candidate at 1755"),
    "clocks of one arm": (of_candidates(sm_clock_mhz=None), "SM clocks of one arm alone"),
    "a quarter throttled": (
        each(lambda number, block: replace(block, throttle=("hw_slowdown",)) if number < 4 else block),
        "4 of 16 groups were throttled",
    ),
}
SOUND = RatioSeen(logs=np.log([1.0, 1.001, 0.999, 1.0]), groups=16)


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_of_it_is_invalid_in_words(name):
    samples, words = BROKEN[name]
    judged = judge_samples(samples)
    assert judged.status is Status.INVALID
    assert words in judged.reason


@pytest.mark.parametrize("approved", [1.0, None])
@pytest.mark.parametrize("metric", [LATENCY_RATIO, LATENCY_MS])
@pytest.mark.parametrize("name", BROKEN)
def test_a_gate_with_it_in_either_stage_is_invalid_in_words_also_where_nothing_is_approved(name, metric, approved):
    samples, words = BROKEN[name]
    gates = {"one": RatioGate(metric=metric, approved=approved, delta=0.25, session_spread=0.0)}
    broken = {"one": ratio_seen(samples)}
    for first, second in ((broken, {}), ({"one": SOUND}, broken)):
        judged = ratio_judgements(gates, first, second, alpha=0.001)["one"]
        assert (judged.status, judged.observed, judged.bound) == (Status.INVALID, None, None)
        assert words in judged.reason


def test_the_same_without_what_is_broken_passes():
    gates = {"one": RatioGate(approved=1.0, delta=0.25, session_spread=0.0)}
    whole = {"one": ratio_seen(LatencySamples(processes=(process(),) * 4))}
    assert ratio_judgements(gates, whole, {}, alpha=0.001)["one"].status is Status.PASS
    assert judge_samples(LatencySamples(processes=(process(),) * 4)).status is Status.PASS
