"""One reference against another, and rows that only look sound."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.all_metrics import METRICS, judgement
from harness.judge.accuracy.references import fp8_error_db, snr_loss_db, snr_to_fake_quant_db
from harness.judge.accuracy.rows import centred_snr_db, cosine_min, cosine_p01, finite, snr_of
from harness.records.observations import Embeddings
from harness.records.verdict import Severity, Status
from tests.helpers.towers import embeddings, evidence, with_rows

CLEAN = evidence(n=200, noise=0.1, compiler=0.02)


def loss(observed, ceiling=1.0):
    return snr_loss_db(observed, CLEAN.fake_quant, CLEAN.exact, ceiling=ceiling)


def to_fake_quant(observed, margin_db=0.0, approved_db=None):
    return snr_to_fake_quant_db(observed, CLEAN.fake_quant, CLEAN.exact, margin_db=margin_db, approved_db=approved_db)


def fp8_error(observed, floor=6.0):
    return fp8_error_db(observed, CLEAN.half, CLEAN.exact, floor=floor)


def test_figures_are_differences_of_signal_to_noise_ratios():
    engine, planned, half = (snr_of(rows, CLEAN.exact) for rows in (CLEAN.observed, CLEAN.fake_quant, CLEAN.half))

    assert loss(CLEAN.observed).observed == pytest.approx(planned - engine, abs=1e-3)
    assert fp8_error(CLEAN.observed).observed == pytest.approx(half - engine, abs=1e-2)
    assert to_fake_quant(CLEAN.observed).observed == pytest.approx(snr_of(CLEAN.observed, CLEAN.fake_quant), abs=1e-2)
    assert to_fake_quant(CLEAN.observed, margin_db=2.0).bound == pytest.approx(planned - 2, abs=1e-3)


def test_an_engine_is_held_to_its_plan_and_to_what_was_approved():
    clean_db, planned_db = (to_fake_quant(CLEAN.observed).observed, to_fake_quant(CLEAN.observed).bound)
    noisy = with_rows(CLEAN.observed, CLEAN.observed.rows + 0.03 * np.random.default_rng(2).standard_normal(CLEAN.observed.rows.shape))

    by_plan, by_approved = (to_fake_quant(noisy, 1.0, approved_db) for approved_db in (None, clean_db))

    assert planned_db < by_plan.observed < clean_db - 1
    assert by_approved.observed == pytest.approx(by_plan.observed)
    assert (by_plan.status, by_plan.bound) == (Status.PASS, pytest.approx(planned_db - 1))
    assert (by_approved.status, by_approved.bound) == (Status.FAIL, pytest.approx(clean_db - 1))
    assert to_fake_quant(CLEAN.observed, 1.0, clean_db).status is Status.PASS
    assert to_fake_quant(CLEAN.observed, 1.0, clean_db).bound == pytest.approx(planned_db - 1)
    assert f"the approved engine had {clean_db:.2f} dB on the same inputs, and 1 dB less are allowed" in by_approved.reason


def test_what_fails_its_plan_fails_by_that_whatever_was_approved():
    broken = with_rows(CLEAN.observed, np.random.default_rng(3).standard_normal(CLEAN.observed.rows.shape))

    assert to_fake_quant(broken, 1.0, 40.0) == to_fake_quant(broken, 1.0)


def test_a_clean_engine_passes_all_three():
    assert [judge(CLEAN.observed).status for judge in (loss, to_fake_quant, fp8_error)] == [Status.PASS] * 3


def test_what_the_compiler_adds_is_found():
    noisy = CLEAN.fake_quant.rows + 0.15 * np.random.default_rng(1).standard_normal(CLEAN.fake_quant.rows.shape)

    assert [judge(with_rows(CLEAN.observed, noisy)).status for judge in (loss, to_fake_quant)] == [Status.FAIL] * 2


def test_an_engine_that_fell_back_to_fp16_has_no_fp8_error():
    assert fp8_error(CLEAN.half).status is Status.FAIL
    assert fp8_error(CLEAN.exact).status is Status.FAIL
    assert loss(CLEAN.half).status is Status.PASS


def test_an_engine_that_equals_its_plan_is_as_near_as_float32_can_tell():
    judgement = to_fake_quant(CLEAN.fake_quant)

    assert judgement.status is Status.PASS
    assert 100 < judgement.observed < 200


def test_few_rows_are_inconclusive():
    few = [with_rows(rows, rows.rows[:19]) for rows in (CLEAN.observed, CLEAN.fake_quant, CLEAN.exact)]

    judgement = snr_loss_db(*few, ceiling=1.0)

    assert (judgement.status, "expected at least 20" in judgement.reason) == (Status.INCONCLUSIVE, True)


def test_a_figure_near_its_bound_is_inconclusive_and_says_what_would_do():
    seen = loss(CLEAN.observed)

    near = loss(CLEAN.observed, ceiling=seen.observed + (seen.interval[1] - seen.observed) / 2)

    assert near.status is Status.INCONCLUSIVE
    assert "would carry the claim, were the figure to stay" in near.reason


@pytest.mark.parametrize("judge", [loss, to_fake_quant, fp8_error])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_rows_that_are_not_finite_fail_by_name(judge, broken):
    rows = CLEAN.observed.rows.copy()
    rows[4, 1] = broken

    judgement = judge(with_rows(CLEAN.observed, rows))

    assert (judgement.status, judgement.observed) == (Status.FAIL, None)
    assert "1 of 200 rows are not finite, first input 4" in judgement.reason


@pytest.mark.parametrize("judge", [loss, to_fake_quant, fp8_error])
@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (embeddings(CLEAN.observed.rows, inputs="others"), "different inputs"),
        (with_rows(CLEAN.observed, CLEAN.observed.rows[:, :3]), "equal shapes"),
        (with_rows(CLEAN.observed, CLEAN.observed.rows[:7]), "equal shapes"),
    ],
)
def test_rows_of_another_kind_are_not_compared(judge, observed, words):
    with pytest.raises(InvalidMeasurement, match=words):
        judge(observed)


def test_quantizers_that_do_nothing_are_no_reference():
    with pytest.raises(InvalidMeasurement, match="look whether they are enabled"):
        snr_loss_db(CLEAN.observed, CLEAN.exact, CLEAN.exact, ceiling=1.0)


@pytest.mark.parametrize("metric", ["snr_loss_db", "snr_to_fake_quant_db", "fp8_error_db"])
@pytest.mark.parametrize("lacks", ["fake_quant", "half"])
def test_a_missing_reference_is_named(metric, lacks):
    bare = replace(CLEAN, **{lacks: None})

    if (metric == "fp8_error_db") == (lacks == "half"):
        with pytest.raises(InvalidMeasurement, match=f"{metric} needs the rows of"):
            judgement(metric, bare, limit=lambda _: 1.0, margin=lambda _: 0.0)
    else:
        assert judgement(metric, bare, limit=lambda _: 1.0, margin=lambda _: 0.0).metric == metric


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([loss, to_fake_quant, fp8_error]), st.integers(0, 100), st.floats(1e-3, 1e3))
def test_neither_the_order_of_all_rows_nor_the_length_of_one_changes_a_figure(judge, seed, factor):
    order = np.random.default_rng(seed).permutation(200)
    names = {loss: "fake_quant", to_fake_quant: "fake_quant", fp8_error: "half"}
    turned = [with_rows(rows, rows.rows[order]) for rows in (CLEAN.observed, getattr(CLEAN, names[judge]), CLEAN.exact)]
    turned[0] = with_rows(turned[0], turned[0].rows * np.float32(factor))

    again = {
        loss: lambda: snr_loss_db(*turned, ceiling=1.0),
        to_fake_quant: lambda: snr_to_fake_quant_db(*turned, margin_db=0.0),
        fp8_error: lambda: fp8_error_db(*turned, floor=6.0),
    }[judge]()

    assert (again.status, again.observed) == (judge(CLEAN.observed).status, pytest.approx(judge(CLEAN.observed).observed, abs=1e-2))


# -- rows ------------------------------------------------------------------------------------------------------------------------


def test_each_batch_that_repeats_its_first_row_is_unsound():
    rows = np.repeat(CLEAN.exact.rows[::8], 8, axis=0)

    judgement = finite(with_rows(CLEAN.observed, rows), CLEAN.exact)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert "200 rows repeat one of another input" in judgement.reason


def test_one_repeated_row_at_another_length_is_found_and_named():
    rows = CLEAN.observed.rows.copy()
    rows[150] = 3 * rows[9]

    judgement = finite(with_rows(CLEAN.observed, rows), CLEAN.exact)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.FAIL, 198, 200)
    assert "first input 9" in judgement.reason


def test_rows_may_repeat_where_the_inputs_do():
    exact = embeddings(np.repeat(CLEAN.exact.rows[:50], 2, axis=0))

    assert finite(exact, exact).status is Status.PASS


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (CLEAN.exact.rows[:-3], "there are 197 rows, of the reference 200"),
        (CLEAN.exact.rows[:, :5], "5 wide"),
        (CLEAN.exact.rows[:0], "no rows"),
    ],
)
def test_rows_of_another_shape_are_unsound(rows, words):
    judgement = finite(with_rows(CLEAN.observed, rows), CLEAN.exact)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert words in judgement.reason


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, object])
def test_rows_of_another_type_are_unsound(dtype):
    odd = Embeddings(rows=CLEAN.exact.rows.astype(dtype), ids=CLEAN.exact.ids, inputs_digest="the same", made_by="a test")

    judgement = finite(odd, CLEAN.exact)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert str(np.dtype(dtype)) in judgement.reason


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "calibration_coverage"])  # which looks at no row
def test_rows_that_are_no_floats_are_refused_with_words(metric):
    odd = Embeddings(rows=CLEAN.exact.rows.astype(object), ids=CLEAN.exact.ids, inputs_digest="the same", made_by="a test")
    seen = replace(CLEAN, observed=odd)

    if metric == "finite":
        assert judgement(metric, seen, limit=lambda _: 1.0, margin=lambda _: 0.0).status is Status.FAIL
    else:
        with pytest.raises(InvalidMeasurement, match="expected float32"):
            judgement(metric, seen, limit=lambda _: 1.0, margin=lambda _: 0.0)


def test_soundness_is_not_asked_of_other_inputs():
    with pytest.raises(InvalidMeasurement, match="different inputs"):
        finite(embeddings(CLEAN.exact.rows, inputs="others"), CLEAN.exact)


@pytest.mark.parametrize("judge", [cosine_min, cosine_p01, centred_snr_db])
def test_a_reference_that_is_not_finite_is_invalid(judge):
    with pytest.raises(InvalidMeasurement, match="not finite"):
        judge(CLEAN.observed, with_rows(CLEAN.exact, np.full((200, 32), np.nan)), floor=0.5)


def turned(count, n=1510):
    """Rows of which `count` have a cosine of 0.6 with their reference, and the others 1."""
    exact = np.tile([1.0, 0.0], (n, 1))
    rows = exact.copy()
    rows[:count] = [0.6, 0.8]
    return cosine_p01(embeddings(rows), embeddings(exact), floor=0.99)


def test_the_first_percentile_passes_by_its_tolerance_bound():
    assert (turned(8).status, turned(8).budget, turned(8).n) == (Status.PASS, 8, 1510)
    assert "row 9 of 1,510 from below, input" in turned(8).reason
    assert turned(9).status is Status.INCONCLUSIVE
    assert turned(22).status is Status.INCONCLUSIVE
    assert turned(23).status is Status.FAIL
    assert turned(23).interval == pytest.approx((0.6, 0.6))


def test_one_bad_row_of_299_is_too_many_and_says_how_many_rows_would_do():
    assert turned(0, 299).status is Status.PASS
    assert turned(1, 299).status is Status.INCONCLUSIVE
    assert "about 773 would carry the claim" in turned(1, 299).reason
    assert turned(0, 299).severity is Severity.GATE


def test_rows_that_are_not_finite_fail_the_first_percentile():
    rows = CLEAN.observed.rows.copy()
    rows[4] = math.nan

    judgement = cosine_p01(with_rows(CLEAN.observed, rows), CLEAN.exact, floor=0.5)

    assert (judgement.status, judgement.severity) == (Status.FAIL, Severity.REPORT)  # of 200 rows
