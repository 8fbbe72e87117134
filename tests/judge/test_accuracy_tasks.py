"""What embeddings are for: classes and neighbours that an engine keeps, against FP32 on the same samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.all_metrics import METRICS, judgement
from harness.judge.accuracy.retrieval import recall_at_1_drop, recall_at_5_drop, top10_overlap
from harness.judge.accuracy.tasks import logit_drift_p99, zero_shot_agreement, zero_shot_top1_drop
from harness.records.spec import Tower
from harness.records.task import Pairing
from harness.records.verdict import Severity, Status
from tests.helpers.towers import embeddings, evidence, task_of, with_rows

TASK_METRICS = [name for name, metric in METRICS.items() if metric.needs_task]
LIMITS = {
    "calibration_coverage": 0.6,
    "cosine_min": 0.975,
    "cosine_p01": 0.99,
    "centred_snr_db": 10.0,
    "snr_loss_db": 1.0,
    "fp8_error_db": 6.0,
    "logit_drift_p99": 0.25,
    "zero_shot_agreement": 0.95,
    "zero_shot_top1_drop": 2.0,
    "recall_at_1_drop": 2.0,
    "recall_at_5_drop": 2.0,
    "top10_overlap": 0.8,
}
MARGINS = {"centred_snr_db": 3.0, "snr_to_fake_quant_db": 0.0}


def judged(metric, seen, **limits):
    return judgement(metric, seen, limit={**LIMITS, **limits}.__getitem__, margin=MARGINS.__getitem__)


def basis(n, width=None):
    return np.eye(n, width or n)


# -- definitions, by hand --------------------------------------------------------------------------------------------------------


def test_a_picture_is_right_if_its_nearest_caption_is_one_of_its_own():
    captions = basis(4)
    exact = embeddings(captions)
    observed = embeddings(np.roll(captions, 1, axis=0)[[1, 1, 2, 3]])  # the first picture moves to where it was, the others to another

    seen = zero_shot_top1_drop(observed, exact, task_of(captions), ceiling=1.0)

    assert seen.observed == 75
    assert "3 worse and 0 better of 4, McNemar p 0.25" in seen.reason


def test_two_captions_of_one_picture_are_both_right():
    pictures, captions = basis(2, 4), basis(4)
    pairs = [(0, 0), (0, 2), (1, 1), (1, 3)]
    moved = embeddings(captions[[2, 3]])  # each to its other caption

    assert zero_shot_top1_drop(moved, embeddings(pictures), task_of(captions, pairs=pairs), ceiling=1.0).observed == 0
    assert zero_shot_agreement(moved, embeddings(pictures), task_of(captions, pairs=pairs), floor=0.5).observed == 0


def test_where_the_text_tower_is_under_test_its_rows_are_the_classes():
    pictures = basis(3)
    swapped = embeddings(pictures[[1, 0, 2]])

    seen = zero_shot_agreement(swapped, embeddings(pictures), task_of(pictures, tower=Tower.TEXT), floor=0.98)

    assert (seen.observed, seen.n) == (pytest.approx(1 / 3), 3)


def test_drift_is_measured_in_spreads_of_a_rows_fp32_logits_and_told_in_logits():
    others = basis(2)
    exact = embeddings(np.tile([1.0, 0.0], (300, 1)))
    task = task_of(others, pairs=[(row, row % 2) for row in range(300)], logit_scale=50.0)
    # FP32 cosines 1 and 0: spread 0.5. The engine's are 0.8 and 0.6, moved by 0.2 and 0.6.
    seen = logit_drift_p99(embeddings(np.tile([0.8, 0.6], (300, 1))), exact, task, ceiling=0.25)

    assert seen.observed == pytest.approx(1.2)
    assert seen.status is Status.FAIL
    assert "30 logits at scale 50" in seen.reason


def test_recall_is_a_hit_rate_of_which_one_true_match_is_enough():
    captions = basis(8)
    exact = embeddings(captions)
    # Picture 0 has its caption in the second place: a miss at 1, a hit at 5.
    rows = captions.copy()
    rows[0, 1] = 2
    at_1, at_5 = (judge(embeddings(rows), exact, task_of(captions), ceiling=1.0) for judge in (recall_at_1_drop, recall_at_5_drop))

    assert (at_1.observed, at_5.observed) == (12.5, 0)
    assert "text_retrieval_recall@1 100.0% in FP32, 1 worse" in at_1.reason


def test_the_worse_direction_is_the_verdict_and_the_reason_gives_both():
    seen = evidence(n=200)
    # One picture that is near every caption: no picture loses its caption, every caption finds that picture before its own.
    rows = seen.exact.rows.copy()
    rows[0] = seen.task.other.unit_rows.sum(axis=0) * 100
    hub = with_rows(seen.observed, rows)

    both = recall_at_1_drop(hub, seen.exact, seen.task, ceiling=2.0)

    assert "text_retrieval_recall@1" in both.reason
    assert "image_retrieval_recall@1" in both.reason
    assert both.observed == pytest.approx(max(drops_by_hand(hub, seen, 1)))


def drops_by_hand(observed, seen, k):
    """Points of recall@k lost, text and image retrieval, one caption a picture, without a tie."""
    found = []
    for turn in (lambda scores: scores, lambda scores: scores.T):
        hits = []
        for rows in (observed, seen.exact):
            scores = turn(rows.unit_rows.astype(np.float64) @ seen.task.other.unit_rows.T)
            first = np.argsort(-scores, axis=1)[:, :k]
            hits.append((first == np.arange(len(scores))[:, None]).any(axis=1).mean())
        found.append(100 * (hits[1] - hits[0]))
    return found


@pytest.mark.parametrize(("judge", "k"), [(recall_at_1_drop, 1), (recall_at_5_drop, 5)])
def test_recall_is_what_a_plain_sort_gives(judge, k):
    seen = evidence(n=250, noise=0.6, hardness=2.0, seed=3)

    drops = drops_by_hand(seen.observed, seen, k)

    judgement = judge(seen.observed, seen.exact, seen.task, ceiling=5.0)
    assert min(drops) >= 0
    assert any(judgement.observed == pytest.approx(drop) for drop in drops)


def test_overlap_is_the_share_of_the_ten_nearest_that_both_have():
    seen = evidence(n=120, noise=0.5)
    engine, exact = (rows.unit_rows.astype(np.float64) @ seen.task.other.unit_rows.T for rows in (seen.observed, seen.exact))
    shares = []
    for one, other in ((engine, exact), (engine.T, exact.T)):
        first, second = (np.argsort(-scores, axis=1)[:, :10] for scores in (one, other))
        shares.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)]))

    judgement = top10_overlap(seen.observed, seen.exact, seen.task, floor=0.8)

    assert any(judgement.observed == pytest.approx(share) for share in shares)
    assert f"text_retrieval {shares[0]:.4f}" in judgement.reason
    assert f"image_retrieval {shares[1]:.4f}" in judgement.reason


# -- verdicts --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", list(Tower))
@pytest.mark.parametrize("captions_each", [1, 3])
def test_a_clean_engine_passes_every_metric(tower, captions_each):
    seen = evidence(n=600, tower=tower, captions_each=captions_each, noise=0.02, compiler=0.004, hardness=1.2)

    found = {metric: judged(metric, seen) for metric in METRICS}

    assert {metric: found[metric].reason for metric in METRICS if found[metric].status is not Status.PASS} == {}


@pytest.mark.parametrize("tower", list(Tower))
@pytest.mark.parametrize("metric", TASK_METRICS)
@pytest.mark.parametrize("spoil", ["constant", "zero", "shuffled", "negated", "nan", "inf", "in two groups"])
def test_a_broken_engine_never_passes_a_task_metric(metric, tower, spoil):
    seen = evidence(n=310, tower=tower)
    rows = seen.observed.rows.copy()
    broken = {
        "constant": np.ones_like(rows),
        "zero": np.zeros_like(rows),
        "shuffled": np.random.default_rng(0).permutation(rows),
        "negated": -rows,
        "nan": np.where(np.arange(len(rows))[:, None] == 7, np.nan, rows),
        "inf": np.where(np.arange(len(rows))[:, None] == 7, np.inf, rows),
        "in two groups": rows[np.arange(len(rows)) % 2],
    }[spoil]

    assert judged(metric, replace(seen, observed=with_rows(seen.observed, broken))).status is Status.FAIL


@pytest.mark.parametrize("metric", TASK_METRICS)
def test_a_small_sample_is_inconclusive_and_says_how_many_would_do(metric):
    seen = evidence(n=25, noise=0.01, compiler=0.001, hardness=0.5)

    judgement = judged(metric, seen, top10_overlap=0.97)

    assert judgement.status is Status.INCONCLUSIVE
    assert "would carry the claim" in judgement.reason or "299" in judgement.reason
    assert judgement.interval is not None


def test_agreement_has_the_budget_that_its_floor_leaves():
    n, width = 313, 313
    captions = basis(n, width)

    def changed(count):
        rows = captions.copy()
        rows[:count] = np.roll(captions, 1, axis=0)[:count]
        return zero_shot_agreement(embeddings(rows), embeddings(captions), task_of(captions), floor=0.98)

    assert (changed(2).status, changed(2).budget, changed(2).n) == (Status.PASS, 2, 313)
    assert changed(3).status is Status.INCONCLUSIVE
    assert "3 of 313 pictures change their class" in changed(3).reason
    assert changed(8).status is Status.INCONCLUSIVE  # 0.9744 misses the floor, and 0.98 is still possible
    assert "gives no hope that more samples would" in changed(8).reason
    assert changed(40).status is Status.FAIL


def test_what_samples_would_carry_is_told_and_does():
    captions = basis(100)
    few = zero_shot_agreement(embeddings(captions), embeddings(captions), task_of(captions), floor=0.98)
    enough = zero_shot_agreement(embeddings(basis(149)), embeddings(basis(149)), task_of(basis(149)), floor=0.98)

    assert "about 149 would carry the claim" in few.reason
    assert (few.status, few.budget, enough.status) == (Status.INCONCLUSIVE, -1, Status.PASS)


def test_a_drop_has_the_budget_that_its_ceiling_leaves():
    captions = basis(400)
    budget = zero_shot_top1_drop(embeddings(captions), embeddings(captions), task_of(captions), ceiling=2.0).budget

    def lost(count):
        rows = captions.copy()
        rows[:count] = np.roll(captions, 1, axis=0)[:count]
        return zero_shot_top1_drop(embeddings(rows), embeddings(captions), task_of(captions), ceiling=2.0)

    assert budget > 0
    assert (lost(budget).status, lost(budget + 1).status) == (Status.PASS, Status.INCONCLUSIVE)
    assert lost(100).status is Status.FAIL


def test_a_task_that_fp32_itself_fails_certifies_no_engine():
    captions = basis(600)
    clueless = embeddings(np.roll(captions, 1, axis=0))

    for judge in (zero_shot_top1_drop, recall_at_1_drop, recall_at_5_drop):
        judgement = judge(clueless, clueless, task_of(captions), ceiling=1.0)
        assert judgement.status is Status.INCONCLUSIVE
        assert "losing every hit could pass" in judgement.reason


def test_one_class_certifies_no_engine():
    pictures = np.random.default_rng(0).standard_normal((400, 8))
    task = task_of(np.ones((1, 8)), pairs=[(row, 0) for row in range(400)])

    judgement = zero_shot_agreement(embeddings(pictures), embeddings(pictures), task, floor=0.98)

    assert (judgement.status, "one class" in judgement.reason) == (Status.INCONCLUSIVE, True)


def test_ten_neighbours_of_few_candidates_certify_no_engine():
    few, enough = (evidence(n=n, noise=0.01, compiler=0.001) for n in (19, 20))

    judgements = [top10_overlap(seen.observed, seen.exact, seen.task, floor=0.3) for seen in (few, enough)]

    assert [judgement.status for judgement in judgements] == [Status.INCONCLUSIVE, Status.PASS]
    assert "a guess already has half of the ten" in judgements[0].reason


def test_recall_among_as_many_candidates_as_are_looked_at_certifies_no_engine():
    pictures = basis(5)[np.arange(1000) % 5]
    task = task_of(basis(5), pairs=[(row, row % 5) for row in range(1000)])

    assert recall_at_5_drop(embeddings(pictures), embeddings(pictures), task, ceiling=2.0).status is Status.INCONCLUSIVE


def test_retrieval_among_classes_of_many_pictures_is_a_report():
    generator = np.random.default_rng(0)
    classes = generator.standard_normal((40, 16))
    pictures = classes[np.arange(400) % 40] + 0.2 * generator.standard_normal((400, 16))
    task = task_of(classes, pairs=[(row, row % 40) for row in range(400)])

    for seen in (
        recall_at_1_drop(embeddings(pictures), embeddings(pictures), task, ceiling=1.0),
        top10_overlap(embeddings(pictures), embeddings(pictures), task, floor=0.8),
    ):
        assert seen.severity is Severity.REPORT
        assert "classes" in seen.reason
    assert zero_shot_top1_drop(embeddings(pictures), embeddings(pictures), task, ceiling=1.0).severity is Severity.GATE


def test_captions_that_share_a_picture_are_no_samples_of_their_own():
    together = evidence(n=300, captions_each=4, tower=Tower.IMAGE, noise=0.4, hardness=1.5)
    apart = evidence(n=1200, captions_each=1, tower=Tower.IMAGE, noise=0.4, hardness=1.5)

    one, other = (recall_at_1_drop(seen.observed, seen.exact, seen.task, ceiling=5.0) for seen in (together, apart))

    assert "in 300 clusters" in one.reason
    assert "clusters" not in other.reason


def test_captions_joined_by_way_of_others_are_one_cluster():
    # Caption 0 shares a picture with caption 1, caption 1 another with caption 2; caption 3 stands alone.
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (3, 3)]
    pictures, captions = basis(4), basis(4)

    judgement = recall_at_1_drop(embeddings(pictures), embeddings(pictures), task_of(captions, pairs=pairs), ceiling=1.0)

    assert "in 2 clusters" in judgement.reason


# -- ties ------------------------------------------------------------------------------------------------------------------------


def test_captions_that_fp32_cannot_tell_apart_cost_a_clean_engine_nothing():
    classes = np.repeat(basis(150, 150), 2, axis=0)  # every caption twice
    task = task_of(classes)

    agreement = zero_shot_agreement(embeddings(classes), embeddings(classes), task, floor=0.98)
    drop = recall_at_5_drop(embeddings(classes), embeddings(classes), task, ceiling=2.0)

    assert (agreement.status, agreement.observed) == (Status.PASS, 1)
    assert drop.observed == 0


def test_a_tie_is_no_hit():
    captions = basis(3)
    between = embeddings([[1, 1, 0], [0, 1, 0], [0, 0, 1]])

    seen = zero_shot_top1_drop(between, embeddings(captions), task_of(captions), ceiling=1.0)

    assert seen.observed == pytest.approx(100 / 3)


# -- bad input -------------------------------------------------------------------------------------------------------------------

MISTAKES = {
    "other inputs": (lambda seen: {"observed": embeddings(seen.observed.rows, inputs="others")}, "different inputs"),
    "another width": (lambda seen: {"observed": with_rows(seen.observed, seen.observed.rows[:, :8])}, "expected equal shapes"),
    "fewer rows": (lambda seen: {"observed": with_rows(seen.observed, seen.observed.rows[:-1])}, "expected equal shapes"),
    "no rows": (lambda seen: {key: with_rows(seen.observed, np.zeros((0, 32))) for key in ("observed", "exact")}, "no rows"),
    "fewer rows than the task": (
        lambda seen: {key: with_rows(seen.observed, seen.exact.rows[:-1]) for key in ("observed", "exact")},
        "pairs 30 of that tower",
    ),
    "another tower's width": (
        lambda seen: {"task": replace(seen.task, other=embeddings(seen.task.other.rows[:, :8]))},
        "two towers of one model",
    ),
    "fewer rows of the other tower": (
        lambda seen: {"task": replace(seen.task, other=embeddings(seen.task.other.rows[:-1]))},
        "pairs 30 of that tower",
    ),
    "a reference that is not finite": (lambda seen: {"exact": with_rows(seen.exact, np.full((30, 32), np.nan))}, "not finite"),
    "another tower that is not finite": (
        lambda seen: {"task": replace(seen.task, other=embeddings(np.full((30, 32), np.inf)))},
        "not finite",
    ),
    "a broken logit scale": (lambda seen: {"task": replace(seen.task, logit_scale=math.nan)}, "logit scale"),
    "no task": (lambda seen: {"task": None}, "what embeddings are for"),
    "other weights": (lambda seen: {"weights": "seeded:1"}, "one model's two towers"),
}


@pytest.mark.parametrize("metric", TASK_METRICS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_compared_is_invalid_and_says_why(metric, mistake):
    seen = evidence(n=30)
    change, words = MISTAKES[mistake]

    with pytest.raises(InvalidMeasurement, match=words):
        judged(metric, replace(seen, **change(seen)))


def test_logits_that_are_all_the_same_measure_no_drift():
    alike = task_of(np.ones((30, 4)))

    with pytest.raises(InvalidMeasurement, match="all the same"):
        logit_drift_p99(embeddings(basis(30, 4) + 1), embeddings(basis(30, 4) + 1), alike, ceiling=0.25)


def test_an_unknown_metric_is_refused_by_name():
    with pytest.raises(InvalidMeasurement, match="recall_at_2_drop"):
        judged("recall_at_2_drop", evidence(n=30))


# -- properties ------------------------------------------------------------------------------------------------------------------

FEW = settings(max_examples=6, deadline=None)


def figures(seen, metric):
    judgement = judged(metric, seen)
    return judgement.status, judgement.observed, judgement.budget, judgement.n


def same(one, other):
    return one[0] is other[0] and one[1] == pytest.approx(other[1], rel=1e-4, abs=1e-6) and one[2:] == other[2:]


@FEW
@given(st.sampled_from(TASK_METRICS), st.sampled_from(list(Tower)), st.integers(0, 100))
def test_the_order_of_the_rows_changes_nothing(metric, tower, seed):
    seen = evidence(n=310, tower=tower, noise=0.2)
    order = np.random.default_rng(seed).permutation(310)
    place, column = np.argsort(order), 0 if tower is Tower.IMAGE else 1
    pairs = seen.task.pairing.pairs.copy()
    pairs[:, column] = place[pairs[:, column]]
    shuffled = replace(
        seen,
        observed=with_rows(seen.observed, seen.observed.rows[order]),
        exact=with_rows(seen.exact, seen.exact.rows[order]),
        task=replace(seen.task, pairing=Pairing(source="a test set", pictures=310, captions=310, pairs=pairs)),
    )

    assert same(figures(seen, metric), figures(shuffled, metric))


@FEW
@given(st.sampled_from(TASK_METRICS), st.integers(-30, 30))
def test_the_length_of_a_row_changes_nothing(metric, exponent):
    seen = evidence(n=310, noise=0.2)
    factors = 2.0 ** np.random.default_rng(0).integers(-5, 5, (310, 1)) * 2.0**exponent

    assert same(figures(seen, metric), figures(replace(seen, observed=with_rows(seen.observed, seen.observed.rows * factors)), metric))


@FEW
@given(st.sampled_from(TASK_METRICS), st.floats(0.05, 0.6))
def test_a_looser_bound_never_turns_a_pass(metric, noise):
    seen = evidence(n=310, noise=noise)
    is_floor = metric in ("zero_shot_agreement", "top10_overlap")
    bounds = [0.999, 0.97, 0.9, 0.6, 0.1] if is_floor else [0.001, 0.1, 1.0, 5.0, 40.0]

    badness = [list(Status).index(judged(metric, seen, **{metric: bound}).status) for bound in bounds]

    order = [Status.FAIL, Status.INCONCLUSIVE, Status.PASS]
    found = [order.index(list(Status)[index]) for index in badness]
    assert found == sorted(found)
