"""Judges what zero-shot classification makes of an engine's embeddings. Pictures are the samples, captions the classes.

Where the text tower is under test, the engine's rows are the classifier's weights. The list of classes is the task itself and not a
sample of one, so pictures count as independent in both cases.
"""

from __future__ import annotations

import math

import numpy as np

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.drops import Hits, drop
from harness.judge.accuracy.estimates import Claim, Estimate, decided, inconclusive, unsound
from harness.judge.accuracy.matching import Bools, Search, image_retrieval, may_be_first, text_retrieval
from harness.judge.accuracy.references import samples_to_narrow
from harness.judge.accuracy.rows import ROWS_FOR_P01
from harness.judge.statistics import (
    CONFIDENCE,
    Floats,
    Interval,
    bootstrap_bounds,
    failure_budget,
    rate_bounds,
    samples_at_rate,
)
from harness.records.observations import Embeddings, Float32Array
from harness.records.spec import Tower
from harness.records.task import Task
from harness.records.verdict import Direction, Judgement

_MOST_LOGITS = 2**24  # beyond it, every k-th candidate stands for all
_LEVELS = 512  # of the upper tenth of drifts, between which a drawn percentile is not told apart


def zero_shot_agreement(observed: Embeddings, exact: Embeddings, task: Task, *, floor: float) -> Judgement:
    """Share of pictures whose nearest caption is FP32's. No unit; the budget is how many may disagree.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    claim = Claim(metric="zero_shot_agreement", bound=floor, direction=Direction.FLOOR)
    search = text_retrieval(observed, exact, task)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    agrees = np.concatenate([_agrees(scores, reference) for scores, reference, _ in search.chunks()])
    n, missed = len(agrees), int((~agrees).sum())
    seen = Estimate(
        observed=(n - missed) / n,
        interval=rate_bounds(n - missed, n),
        n=n,
        budget=failure_budget(n, floor),
        words=f"{missed} of {n:,} pictures change their class",
    )
    if search.candidates < 2:
        return inconclusive(claim, seen, "one class; expected at least two, since any engine agrees on one")
    return decided(claim, seen, lambda: samples_at_rate(missed, n, floor))


def zero_shot_top1_drop(observed: Embeddings, exact: Embeddings, task: Task, *, ceiling: float) -> Judgement:
    """How many points fewer pictures have one of their own captions nearest than in FP32.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    claim = Claim(metric="zero_shot_top1_drop", bound=ceiling, direction=Direction.CEILING, unit="pt")
    search = text_retrieval(observed, exact, task)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    engine_ahead, exact_ahead = search.ahead()
    return drop(claim.metric, Hits(name="top-1", engine=engine_ahead == 0, exact=exact_ahead == 0), ceiling=ceiling)


def logit_drift_p99(observed: Embeddings, exact: Embeddings, task: Task, *, ceiling: float) -> Judgement:
    """99th percentile of how far logits move, over the standard deviation of the FP32 logits of the same row of the tower under test.

    Rows are drawn anew for its interval, since logits of one row move together.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about, or FP32's logits of a row are all the same.
    """
    claim = Claim(metric="logit_drift_p99", bound=ceiling, direction=Direction.CEILING)
    search = (text_retrieval if task.tower is Tower.IMAGE else image_retrieval)(observed, exact, task)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    drift, logits = _drifts(search, task.logit_scale, exact)
    observed_p99 = float(np.quantile(drift, 0.99, method="higher"))
    logits_p99 = float(np.quantile(logits, 0.99, method="higher"))
    seen = Estimate(
        observed=observed_p99,
        interval=_p99_bounds(drift, observed_p99),
        n=len(drift),
        words=f"{logits_p99:.2g} logits at scale {task.logit_scale:.3g}",
    )
    if len(drift) < ROWS_FOR_P01:
        return inconclusive(claim, seen, f"{len(drift)} rows; of fewer than {ROWS_FOR_P01}, one in a hundred may be unseen")
    return decided(claim, seen, lambda: samples_to_narrow(seen, ceiling))


def _agrees(scores: Floats, reference: Floats) -> Bools:
    changed: Bools = np.any(may_be_first(scores, 1) & ~may_be_first(reference, 1), axis=1)
    return ~changed


def _drifts(search: Search, logit_scale: float, exact: Embeddings) -> tuple[Float32Array, Float32Array]:
    """float32 [n, candidates] twice: how far each logit moved, over its row's spread, and in logits."""
    every = slice(None, None, math.ceil(search.n * search.candidates / _MOST_LOGITS))
    relative: list[Float32Array] = []
    absolute: list[Float32Array] = []
    for scores, reference, _ in search.chunks():
        moved = np.abs(scores - reference)[:, every]
        spread = reference.std(axis=1, keepdims=True)
        if not (spread > 0).all():
            row = sum(map(len, relative)) + int(np.argmin(spread))
            raise InvalidMeasurement(
                f"the FP32 logits of {exact.ids[row]} are all the same, so nothing says how far is far; expected candidates that differ"
            )
        relative.append((moved / spread).astype(np.float32))
        absolute.append((moved * logit_scale).astype(np.float32))
    return np.concatenate(relative), np.concatenate(absolute)


def _p99_bounds(drift: Float32Array, observed: float) -> Interval:
    """Bounds on the 99th percentile of all drifts, rows drawn anew."""
    levels = np.unique(np.append(np.quantile(drift, np.linspace(0.9, 1, _LEVELS), method="higher"), observed))
    if len(levels) < 2:
        return Interval(observed, observed)
    beyond = np.stack([len(row) - np.searchsorted(row, levels, side="right") for row in np.sort(drift, axis=1)]).astype(np.float64)
    allowed = 0.01 * drift.shape[1]

    def p99(times: Floats) -> Floats:
        share = (times @ beyond) / times.sum(axis=1, keepdims=True)
        return levels[np.argmax(share <= allowed, axis=1)]  # the last level has nothing beyond it

    return bootstrap_bounds(p99, len(drift), confidence=CONFIDENCE)
