"""Bounds hold as often as they say: exactly where what is counted can be enumerated, by seeded draws where it cannot."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.judge import statistics
from harness.judge.statistics import (
    RESAMPLES,
    Interval,
    bootstrap_bounds,
    clustered_bounds,
    drop_bounds,
    drop_budget,
    drop_holds,
    failure_budget,
    mcnemar_p,
    net_bounds,
    rank_above,
    rank_below,
    rate_bounds,
    ratio_of_sums,
    samples_at_drop,
    samples_at_rate,
    samples_for,
)

# -- rates -----------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.data())
def test_rate_bounds_are_those_of_scipy(n, data):
    successes = data.draw(st.integers(0, n))

    bounds = rate_bounds(successes, n)

    ours, theirs = bounds, stats.binomtest(successes, n).proportion_ci(confidence_level=0.90, method="exact")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.3, 0.5, 0.98])
def test_rate_bounds_hold_at_least_as_often_as_they_say(rate):
    n = 60
    chances = stats.binom.pmf(np.arange(n + 1), n, rate)
    bounds = [rate_bounds(successes, n) for successes in range(n + 1)]

    assert sum(chance for chance, (low, _) in zip(chances, bounds, strict=True) if low <= rate) >= 0.95
    assert sum(chance for chance, (_, high) in zip(chances, bounds, strict=True) if high >= rate) >= 0.95


def test_twenty_of_twenty_certify_no_more_than_0_861():
    assert rate_bounds(20, 20).low == pytest.approx(0.861, abs=5e-4)


@pytest.mark.parametrize(("n", "budget"), [(148, -1), (149, 0), (312, 1), (313, 2), (523, 5), (845, 10)])
def test_what_0_98_takes_to_certify(n, budget):
    assert failure_budget(n, 0.98) == budget


@pytest.mark.parametrize(("failures", "n"), [(0, 149), (2, 313), (5, 523), (10, 845)])
def test_the_smallest_sample_that_certifies_0_98_in_spite_of_failures(failures, n):
    assert samples_for(0.98, failures=failures) == n
    assert rate_bounds(n - failures, n).low >= 0.98 > rate_bounds(n - 1 - failures, n - 1).low


@given(st.integers(1, 3000), st.floats(0.5, 0.999))
def test_the_budget_is_where_the_bound_leaves_the_floor(n, floor):
    budget = failure_budget(n, floor)

    assert budget == -1 or rate_bounds(n - budget, n).low >= floor - 1e-9
    assert budget + 1 > n or rate_bounds(n - budget - 1, n).low < floor + 1e-9


def test_no_number_of_samples_certifies_what_the_rate_itself_misses():
    assert samples_at_rate(0, 50, 0.98) == 149
    assert samples_at_rate(1, 50, 0.98) is None
    assert samples_at_rate(3, 50, 0.98) is None
    assert samples_for(1.0) is None


# -- percentiles -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rank"), [(298, None), (299, 1), (472, 1), (473, 2), (1510, 9)])
def test_which_row_bounds_the_first_percentile_from_below(n, rank):
    assert rank_below(n, 0.01) == rank


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 1), (6, 2), (1510, 23)])
def test_which_row_bounds_the_first_percentile_from_above(n, rank):
    assert rank_above(n, 0.01) == rank


def test_too_few_rows_bound_no_high_percentile_from_above():
    assert rank_above(298, 0.99) is None
    assert rank_above(299, 0.99) == 299


@pytest.mark.parametrize("n", [299, 700, 1510])
def test_ranks_bound_a_percentile_as_often_as_they_say(n):
    below, above = rank_below(n, 0.01), rank_above(n, 0.01)

    # How many of n values lie below the percentile is binomial, whatever they are.
    assert stats.binom.sf(below - 1, n, 0.01) >= 0.95  # at least `below` of them: that row is among them
    assert stats.binom.sf(below, n, 0.01) < 0.95
    assert stats.binom.cdf(above - 1, n, 0.01) >= 0.95
    assert stats.binom.cdf(above - 2, n, 0.01) < 0.95


# -- paired samples --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemars_test_is_scipys_binomial_test(worse, better):
    expected = stats.binomtest(worse, worse + better, 0.5).pvalue if worse + better else 1.0

    assert mcnemar_p(worse, better) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_sees_fifteen_against_five_and_not_seven_against_three():
    assert mcnemar_p(15, 5) == pytest.approx(0.041, abs=5e-4)
    assert mcnemar_p(7, 3) == pytest.approx(0.344, abs=5e-4)


@pytest.mark.parametrize("n", [7, 20])
def test_drop_bounds_hold_at_least_as_often_as_they_say_whatever_differs(n):
    seen = [(worse, better) for worse in range(n + 1) for better in range(n + 1 - worse)]
    bounds = np.array([drop_bounds(worse, better, n) for worse, better in seen])
    counts = np.array([(worse, better, n - worse - better) for worse, better in seen])

    for worse in np.linspace(0, 1, 21):
        for better in np.linspace(0, 1 - worse, 11):
            chances = stats.multinomial.pmf(counts, n, [worse, better, max(0.0, 1 - worse - better)])
            assert chances[bounds[:, 0] <= worse - better + 1e-9].sum() >= 0.95
            assert chances[bounds[:, 1] >= worse - better - 1e-9].sum() >= 0.95


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (3, 1), (1, 4), (6, 6)])
def test_a_bound_on_a_drop_is_where_all_outcomes_no_worse_have_the_chance_that_is_left(worse, better):
    n, spent = 16, 0.005
    counts = np.array([(lost, won, n - lost - won) for lost in range(n + 1) for won in range(n + 1 - lost)])
    high = drop_bounds(worse, better, n).high
    most_that_differ = stats.binomtest(worse + better, n).proportion_ci(confidence_level=1 - 2 * spent, method="exact").high

    chances = [
        stats.multinomial.pmf(counts, n, [(share + high) / 2, (share - high) / 2, 1 - share])
        for share in np.linspace(abs(high), most_that_differ, 200)
    ]

    no_worse = counts[:, 0] - counts[:, 1] <= worse - better
    assert max(chance[no_worse].sum() for chance in chances) == pytest.approx(0.05 - spent, abs=2e-4)


def test_a_drop_is_bounded_about_as_tightly_as_a_large_sample_allows():
    n, differing = 20_000, 600

    low, high = drop_bounds(differing // 2, differing // 2, n)

    normal = stats.norm.ppf(0.95) * math.sqrt(differing) / n
    assert normal < high < 1.2 * normal
    assert -low == pytest.approx(high)


def test_drop_bounds_include_the_drop_itself_and_turn_with_it():
    low, high = drop_bounds(9, 4, 300)

    assert low < 5 / 300 < high
    assert drop_bounds(4, 9, 300) == pytest.approx((-high, -low))
    assert drop_bounds(5, 0, 5).high == 1
    assert drop_bounds(0, 5, 5).low == -1


@settings(max_examples=30, deadline=None)  # a search of many sums
@given(st.integers(20, 2000), st.integers(0, 8), st.floats(0.003, 0.2))
def test_the_drop_budget_is_where_the_bound_leaves_the_ceiling(n, better, ceiling):
    budget = drop_budget(better, n, ceiling)

    assert budget == -1 or drop_bounds(budget, better, n).high <= ceiling + 1e-6
    assert drop_bounds(budget + 1, better, n).high >= ceiling - 1e-6


def test_samples_that_carry_a_drop_are_those_at_which_it_holds():
    needed = samples_at_drop(10, 10, 1000, 0.01)

    assert needed is not None
    assert not drop_holds(10, 10, 1000, 0.01)
    assert drop_holds(math.ceil(10 * needed / 1000), 10 * needed // 1000, needed, 0.01)
    assert samples_at_drop(20, 5, 1000, 0.01) is None


def test_how_many_samples_a_hair_takes_is_told_without_counting_them():
    needed = samples_at_drop(69, 60, 1000, 0.01)

    assert 350_000 < needed < 420_000  # (1.645 / 0.001)**2 * 0.129, and a tenth


# -- means of units --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chances", [[0.0, 0.0, 0.9, 0.08, 0.02], [0.05, 0.1, 0.7, 0.1, 0.05], [0.0, 0.0, 0.99, 0.0, 0.01]])
def test_net_bounds_hold_at_least_as_often_as_they_say(chances):
    generator, values = np.random.default_rng(0), np.arange(-2, 3)
    true = float(values @ chances)

    seen = [net_bounds(generator.choice(values, 60, p=chances), least=-2, most=2) for _ in range(200)]

    assert sum(low <= true for low, _ in seen) >= 0.95 * 200
    assert sum(high >= true for _, high in seen) >= 0.95 * 200


def test_counts_of_single_failures_are_a_rate():
    failed = np.zeros(100, dtype=np.int64)
    failed[:3] = 1

    assert net_bounds(failed, least=0, most=1) == pytest.approx(rate_bounds(3, 100))


def clusters_of_captions(generator, *, pictures=300, spoilt=0.1):
    """Captions lost, less those won, of five a picture, where a spoilt picture loses most of its captions; the true share is 0.06."""
    sizes = np.full(pictures, 5)
    lost = np.where(generator.random(pictures) < spoilt, generator.binomial(5, 0.7, pictures), 0)
    return lost - generator.binomial(5, 0.01, pictures), sizes


def test_bounds_of_clusters_hold_nearly_as_often_as_they_say():
    generator = np.random.default_rng(0)
    true = 0.1 * 0.7 - 0.01

    seen = [clustered_bounds(*clusters_of_captions(generator), signed=True) for _ in range(150)]

    assert sum(low <= true for low, _ in seen) >= 0.91 * 150
    assert sum(high >= true for _, high in seen) >= 0.91 * 150


def test_bounds_that_took_captions_of_one_picture_for_independent_would_not():
    generator = np.random.default_rng(0)
    lost, sizes = clusters_of_captions(generator)

    apart = clustered_bounds(lost, sizes, signed=True)
    taken_as_one = bootstrap_bounds(ratio_of_sums(np.repeat([1, 0], [lost.sum(), 5 * 300 - lost.sum()]), np.ones(1500)), 1500)

    assert apart.high - apart.low > 1.4 * (taken_as_one.high - taken_as_one.low)


def test_clusters_without_a_failure_are_not_taken_for_certain():
    none, sizes = np.zeros(400, dtype=np.int64), np.full(400, 5)

    low, high = clustered_bounds(none, sizes, signed=True)

    assert (low, high) == pytest.approx((-high, high))
    assert high > drop_bounds(0, 0, 400).high


def test_few_clusters_that_differ_get_exact_bounds():
    lost, sizes = np.zeros(400, dtype=np.int64), np.full(400, 5)
    lost[:19] = 1
    exact = net_bounds(lost, least=-5, most=5).scaled(400 / 2000)
    few = clustered_bounds(lost, sizes, signed=True)
    lost[19] = 1

    assert few == exact
    assert clustered_bounds(lost, sizes, signed=True) != net_bounds(lost, least=-5, most=5).scaled(400 / 2000)


def test_clusters_that_all_lose_alike_leave_resampling_nothing_to_say_and_get_exact_bounds():
    low, high = clustered_bounds(np.full(30, 2), np.full(30, 2), signed=True)

    assert 0.5 < low < high == 1


@pytest.mark.parametrize("units", [20, 80, 599])
def test_bootstrap_bounds_are_scipys_of_the_same_draws(units):
    above, below = np.random.default_rng(0).exponential(size=(2, units))

    def ratio(above, below, axis):
        return above.sum(axis=axis) / below.sum(axis=axis)

    bounds = bootstrap_bounds(ratio_of_sums(above, below), units)

    alike = {"paired": True, "vectorized": True, "confidence_level": 0.9, "n_resamples": RESAMPLES, "rng": np.random.default_rng(0)}
    assert bounds == pytest.approx(stats.bootstrap((above, below), ratio, **alike).confidence_interval, rel=1e-9)


def test_bounds_of_more_units_than_a_block_holds_are_much_the_same(monkeypatch):
    above, below = np.random.default_rng(0).exponential(size=(2, 300))
    whole = bootstrap_bounds(ratio_of_sums(above, below), 300)

    monkeypatch.setattr(statistics, "_BLOCK", 7 * 300)

    assert bootstrap_bounds(ratio_of_sums(above, below), 300) == pytest.approx(whole, rel=0.02)


def test_bootstrap_bounds_of_what_never_varies_are_the_figure_itself():
    assert bootstrap_bounds(ratio_of_sums(np.full(30, 2.5), np.ones(30)), 30) == Interval(2.5, 2.5)


def test_more_samples_narrow_every_interval():
    widths = [[high - low for low, high in (rate_bounds(n - n // 50, n), drop_bounds(n // 50, n // 100, n))] for n in (100, 400, 1600)]

    assert all(larger < smaller for before, after in pairwise(widths) for smaller, larger in zip(before, after, strict=True))
