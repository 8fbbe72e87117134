"""Judges what retrieval makes of an engine's embeddings, in CLIP_benchmark's words.

`text_retrieval` looks for a picture's captions, `image_retrieval` for a caption's pictures. recall@k is a hit rate: of queries that have
at least one true match among their first k. Both directions are judged, and the worse is the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from harness.judge.accuracy.drops import Hits, drop, flips
from harness.judge.accuracy.estimates import Claim, Estimate, decided, inconclusive, unsound
from harness.judge.accuracy.matching import Search, image_retrieval, may_be_first, text_retrieval
from harness.judge.accuracy.references import samples_to_narrow
from harness.judge.statistics import Counts, Floats, Interval, clustered_bounds
from harness.records.observations import Embeddings
from harness.records.task import Pairing, Task
from harness.records.verdict import Direction, Judgement, Severity, Status

NEIGHBOURS = 10
_WORST_FIRST = (Status.FAIL, Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE, Status.PASS)


def recall_at_1_drop(observed: Embeddings, exact: Embeddings, task: Task, *, ceiling: float) -> Judgement:
    """How many points recall@1 falls against FP32, in the direction where that is worse.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    return _recall_drop(1, observed, exact, task, ceiling)


def recall_at_5_drop(observed: Embeddings, exact: Embeddings, task: Task, *, ceiling: float) -> Judgement:
    """How many points recall@5 falls against FP32, in the direction where that is worse.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    return _recall_drop(5, observed, exact, task, ceiling)


def top10_overlap(observed: Embeddings, exact: Embeddings, task: Task, *, floor: float) -> Judgement:
    """Share of FP32's ten nearest that the engine also has among its ten, on average over queries, in the worse direction.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    claim = Claim(metric="top10_overlap", bound=floor, direction=Direction.FLOOR)
    searches = _searches(observed, exact, task)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    return _worse_of([_overlap(claim, search, _clusters(search)) for search in searches], task.pairing)


def _recall_drop(k: int, observed: Embeddings, exact: Embeddings, task: Task, ceiling: float) -> Judgement:
    claim = Claim(metric=f"recall_at_{k}_drop", bound=ceiling, direction=Direction.CEILING, unit="pt")
    searches = _searches(observed, exact, task)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    return _worse_of([_recall_judgement(k, search, claim) for search in searches], task.pairing)


def _searches(observed: Embeddings, exact: Embeddings, task: Task) -> tuple[Search, Search]:
    return text_retrieval(observed, exact, task), image_retrieval(observed, exact, task)


def _recall_judgement(k: int, search: Search, claim: Claim) -> tuple[Judgement, str]:
    engine_ahead, exact_ahead = search.ahead()
    hits = Hits(name=f"{search.name}_recall@{k}", engine=engine_ahead < k, exact=exact_ahead < k, clusters=_clusters(search))
    return drop(claim.metric, hits, ceiling=claim.bound), flips(hits)


def _overlap(claim: Claim, search: Search, clusters: Counts | None) -> tuple[Judgement, str]:
    missed = np.concatenate([_missed(scores, exact) for scores, exact, _ in search.chunks()])
    members = np.arange(search.n) if clusters is None else clusters
    _, places, sizes = np.unique(members, return_inverse=True, return_counts=True)
    net = np.zeros(len(sizes), dtype=np.int64)
    np.add.at(net, places, missed)
    bounds = clustered_bounds(net, sizes * NEIGHBOURS, signed=False)
    observed = 1 - float(missed.mean()) / NEIGHBOURS
    interval = Interval(1 - bounds.high, 1 - bounds.low)
    seen = Estimate(observed=observed, interval=interval, n=search.n, words=f"{search.name} {observed:.4f}")
    if search.candidates < 2 * NEIGHBOURS:
        reason = f"{search.candidates} candidates; expected at least {2 * NEIGHBOURS}, since of fewer a guess already has half of the ten"
        return inconclusive(claim, seen, reason), seen.words
    return decided(claim, seen, lambda: samples_to_narrow(seen, claim.bound)), seen.words


def _missed(scores: Floats, exact: Floats) -> Counts:
    """int64 [queries]: how many may be among the engine's ten nearest that cannot be among FP32's, at most ten."""
    kept = min(NEIGHBOURS, scores.shape[1])
    strangers: Counts = np.sum(may_be_first(scores, kept) & ~may_be_first(exact, kept), axis=1)
    return np.minimum(strangers, NEIGHBOURS)


def _clusters(search: Search) -> Counts | None:
    """Which queries stand or fall together: captions that share a picture, also by way of others. None: each stands alone.

    Pictures that share a caption are drawings of one thing, as independent as any; captions of one picture are not, since the one
    picture's embedding makes or breaks all of them.
    """
    if search.name == "text_retrieval":
        return None
    captions, pictures = search.pairs[:, 0], search.pairs[:, 1]
    label = np.arange(search.n)
    while True:
        lowest = np.full(search.candidates, search.n)
        np.minimum.at(lowest, pictures, label[captions])
        joined = label.copy()
        np.minimum.at(joined, captions, lowest[pictures])
        if np.array_equal(joined, label):
            return None if len(np.unique(label)) == search.n else label
        label = joined


def _worse_of(directions: Iterable[tuple[Judgement, str]], pairing: Pairing) -> Judgement:
    """The worse direction's judgement, with what the other one saw."""
    (first, _), (_, seen_by_other) = sorted(directions, key=_badness)
    judgement = replace(first, reason=f"{first.reason}; {seen_by_other}")
    if pairing.pictures >= 2 * pairing.captions:
        words = f"the {pairing.captions} captions are classes of {pairing.pictures} pictures, for which zero-shot is the task"
        return replace(judgement, severity=Severity.REPORT, reason=f"{words}; {judgement.reason}")
    return judgement


def _badness(direction: tuple[Judgement, str]) -> tuple[int, float]:
    judgement = direction[0]
    low, high = judgement.interval or (0.0, 0.0)
    return _WORST_FIRST.index(judgement.status), low if judgement.direction is Direction.FLOOR else -high
