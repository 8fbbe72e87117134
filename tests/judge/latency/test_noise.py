"""What a noise study says of samples whose size of change is known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.judge.latency.noise import noise_of, trace_of
from harness.pipeline.studying import read_study
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks

HOPPER = Path(__file__).parents[3] / "docs/data/hopper-trt-10.6/latency"
TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)


def _samples(slower, processes=10, spread=0.001, quartets=4):
    rng = random.Random(1)

    def block(arm, process):
        own = 1.0 + slower + process if arm is Arm.CANDIDATE else 1.0
        return Block(arm=arm, ms=(own * (1 + rng.gauss(0, spread)),) * 5, sm_clock_mhz=1980.0)

    def process():
        apart = rng.gauss(0, spread)
        return ProcessBlocks(blocks=tuple(block(arm, apart) for _ in range(quartets) for arm in TURNS))

    return LatencySamples(processes=tuple(process() for _ in range(processes)))


def test_a_slow_down_is_found_in_every_group_and_its_size_is_told():
    noise = noise_of(_samples(0.02))

    assert noise.mean == pytest.approx(0.02, abs=0.002)
    assert noise.low < noise.mean < noise.high
    assert [(one.size, one.runs, one.slower, one.passed) for one in noise.counted] == [(5, 2, 2, 0), (6, 1, 1, 0), (10, 1, 1, 0)]


def test_without_a_change_nothing_is_called_slower_and_the_bound_says_how_little_that_shows():
    noise = noise_of(_samples(0.0))
    five = noise.counted[0]

    assert (five.slower, five.passed) == (0, 2)
    assert five.bounds == (0.0, pytest.approx(1 - 0.025**0.5))  # Clopper-Pearson of none in two


def test_samples_that_prove_nothing_have_no_noise():
    assert noise_of(_samples(0.0, processes=2)) is None
    assert noise_of(LatencySamples(processes=())) is None


def test_one_group_a_process_has_no_spread_within_it():
    assert noise_of(_samples(0.0, quartets=1)).group_spread is None


def test_clocks_that_never_moved_go_with_nothing():
    noise = noise_of(_samples(0.0))

    assert noise.readings_apart == (0.0, 0.0)
    assert noise.clocks_with_times is None


def test_launches_in_a_row_are_told_by_how_alike_neighbours_are():
    trace = trace_of([1.0, 1.1] * 50)

    assert trace.launches == 100
    assert trace.neighbours == pytest.approx(-1.0)
    assert trace_of([1.0, 1.0]) is None
    assert trace_of([1.0] * 9).neighbours == 0.0


def test_the_figures_of_the_kept_study_on_an_h100_are_those_of_the_page():
    study = read_study(HOPPER)

    means = {name: round(100 * noise.mean, 2) for name, noise in study.noises.items()}
    assert means == {"none": 0.07, "half": 0.63, "one": 1.19, "other": -4.79, "two": 2.28}
    assert [one.slower for one in study.noises["none"].counted] == [0, 0, 0]
    assert study.injected == {}  # those samples do not say by how much they were meant to be longer
    assert (study.trace.launches, round(study.trace.p50_ms, 3), round(study.trace.neighbours, 3)) == (3100, 3.217, 0.978)
