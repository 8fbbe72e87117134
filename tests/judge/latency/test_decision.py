"""The latency judge sees what it says it sees, and cries wolf as rarely as it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.judge.latency.contrasts import contrasts, process_effects
from harness.judge.latency.decision import (
    effect_of,
    holm,
    needs_second_stage,
    one_stage,
    processes_needed,
    run_statuses,
    two_stage_p,
)
from harness.records.verdict import Status
from tests.helpers.latency_simulator import ABBA, MACHINES, effects_by_block, effects_by_process

SPREADS = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=30).map(np.array)


def test_a_linear_drift_leaves_a_contrast_of_nothing():
    drifting = np.linspace(0, 1, 4) * np.ones((5, 1))
    assert contrasts(drifting, ABBA) == pytest.approx(np.zeros(5), abs=1e-12)


def test_a_contrast_is_the_log_of_the_ratio():
    times_ms = np.where(ABBA, 1.03, 1.0)
    assert contrasts(np.log(times_ms), ABBA) == pytest.approx(math.log(1.03))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_a_process_figure_is_scipys_trimmed_mean(figures):
    assert process_effects(np.array(figures)) == pytest.approx(stats.trim_mean(figures, 0.1), abs=1e-12)


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=40).filter(lambda drawn: any(keep for _, keep in drawn)))
def test_dropped_groups_do_not_count(drawn):
    figures, keep = np.array([figure for figure, _ in drawn]), np.array([keep for _, keep in drawn])
    assert process_effects(figures, keep) == pytest.approx(stats.trim_mean(figures[keep], 0.1), abs=1e-12)


def test_a_process_that_lost_all_groups_has_no_figure():
    assert np.isnan(process_effects(np.array([0.1, 0.2]), np.array([False, False])))


@given(SPREADS)
def test_p_and_bounds_are_students(effects):
    effect = effect_of(effects)
    if effect.se > 1e-9:  # below, scipy itself warns of lost digits
        expected = stats.ttest_1samp(effects, 0.0, alternative="greater")
        assert effect.p_slower() == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
        assert effect.lower(0.001) == pytest.approx(expected.confidence_interval(0.999).low, rel=1e-6, abs=1e-9)


@given(SPREADS)
def test_swapping_the_arms_mirrors_the_bounds(effects):
    one, other = effect_of(effects), effect_of(-effects)
    assert one.lower(0.01) == pytest.approx(-other.upper(0.01), abs=1e-12)
    assert one.detectable(0.001) == pytest.approx(other.detectable(0.001))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array))
def test_holm_rejects_no_less_than_bonferroni_and_no_more_than_no_correction(p):
    rejected = holm(p, 0.05)
    assert not (rejected & (p > 0.05)).any()
    assert rejected[p <= 0.05 / len(p)].all()


def test_holm_stops_at_the_first_gate_that_is_not_rejected():
    assert holm(np.array([0.04, 0.001, 0.03]), 0.05).tolist() == [False, True, False]


def test_two_stages_square_the_larger_p():
    assert two_stage_p(np.array([0.03, 0.5]), np.array([0.01, 0.0])).tolist() == pytest.approx([0.0009, 0.25])


def test_no_spread_and_no_change_is_no_slow_down():
    assert one_stage(effect_of(np.zeros(5)), alpha=0.001, delta=0.01).item() == Status.PASS


def test_a_small_slow_down_that_is_real_passes():
    effects = np.full(5, math.log(1.003)) + np.array([-1, 0, 0, 0, 1]) * 1e-5
    assert one_stage(effect_of(effects), alpha=0.001, delta=0.01).item() == Status.PASS


@pytest.mark.parametrize(("alpha", "delta", "sd", "needed"), [(0.001, 0.01, 0.004, 10), (0.001, 0.01, 0.0075, 22)])
def test_the_processes_needed_are_those_of_the_exact_power(alpha, delta, sd, needed):
    assert processes_needed(sd, alpha=alpha, delta=delta) == needed


@pytest.mark.parametrize("processes", [3, 8, 22])
def test_the_detectable_effect_is_found_in_99_of_100(processes):
    """By scipy's noncentral t, with the spread known."""
    effects = np.linspace(-1, 1, processes)
    effect = effect_of(effects)
    distance = effect.detectable(0.001) / effect.se
    assert stats.nct.sf(stats.t.isf(0.001, processes - 1), processes - 1, distance) == pytest.approx(0.99, abs=1e-6)


def test_what_would_need_more_than_ten_thousand_processes_is_not_promised():
    assert processes_needed(1.0, alpha=0.001, delta=0.01) is None


def test_a_gate_that_needs_new_processes_is_not_judged_without_them():
    slow = np.full((1, 4), 0.05) + np.arange(4) * 1e-4
    assert needs_second_stage(effect_of(slow), alpha=0.001).all()
    with pytest.raises(ValueError, match="second stage"):
        run_statuses(slow, None, alpha=0.001, delta=0.01)


def test_a_slow_down_that_new_processes_do_not_show_is_no_failure():
    first, second = np.full((1, 6), 0.05) + np.arange(6) * 1e-3, (np.arange(6) - 2.5)[np.newaxis] * 1e-3
    assert run_statuses(first, second, alpha=0.001, delta=0.01).tolist() == [Status.INCONCLUSIVE]


@pytest.mark.parametrize("name", ["quiet", "typical"])
def test_blocks_and_processes_tell_the_same_story(name):
    """The law that the long study draws from: normal, of the spread that the blocks give."""
    effects = effects_by_block(MACHINES[name], np.random.default_rng(1), (4000,), groups=30, change=0.0)
    assert abs(effects.mean()) < 4 * effects.std() / math.sqrt(4000)
    drawn = effects_by_process(float(effects.std()), np.random.default_rng(2), (4000,), change=0.0)
    assert stats.ks_2samp(effects, drawn).pvalue > 0.001


def test_forty_gates_without_a_change_alarm_in_no_more_runs_than_stated():
    """A short form: alpha 5 %, where 2,000 runs can tell; the judge's code has no other path for 0.1 %."""
    rng = np.random.default_rng(3)
    first, second = (effects_by_process(0.004, rng, (2000, 40, 6), change=0.0) for _ in range(2))
    alarms = int((run_statuses(first, second, alpha=0.05, delta=0.01) == Status.FAIL).any(axis=-1).sum())
    assert stats.binomtest(alarms, 2000).proportion_ci(0.999).low <= 0.05


@pytest.mark.parametrize("name", ["quiet", "typical"])
def test_one_percent_is_found(name):
    rng = np.random.default_rng(4)
    machine = MACHINES[name]
    sd = float(effects_by_block(machine, rng, (2000,), groups=30, change=0.0).std())
    processes = processes_needed(sd, alpha=0.001, delta=0.01)
    effects = effects_by_block(machine, rng, (600, processes), groups=30, change=0.01)
    found = effect_of(effects).lower(0.001) > 0
    assert stats.binomtest(int(found.sum()), 600).proportion_ci(0.999).high >= 0.99
