"""Pictures and captions of both towers side by side: what is nearest to what, for the engine and for FP32.

Ties are misses. Candidates within `TIE` of each other have no order that an engine may claim, so the worst one for the query counts,
for the engine and for FP32 alike: an engine that returns a constant finds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.comparable import require_finite, require_same_inputs
from harness.judge.statistics import Counts, Floats
from harness.records.observations import Embeddings
from harness.records.spec import Tower
from harness.records.task import Task

TIE = 1e-7  # in cosines: what float32 embeddings cannot tell apart
_CHUNK = 2**22  # scores that are held at a time

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """Queries of one tower looking for their own among the rows of the other.

    Attributes:
        name: CLIP_benchmark's: `text_retrieval` looks for captions, `image_retrieval` for pictures.
        found_by: what is asked and what is looked for, for people.
        queries, gallery: float64 unit rows of the engine under test, or of FP32 for the tower that is not under test.
        exact_queries, exact_gallery: the same, both in FP32.
        pairs: int64 [m, 2], a query's row and a gallery row that belong together.
    """

    name: str
    found_by: tuple[str, str]
    queries: Floats
    gallery: Floats
    exact_queries: Floats
    exact_gallery: Floats
    pairs: Counts

    @property
    def n(self) -> int:
        """How many queries there are."""
        return len(self.queries)

    @property
    def candidates(self) -> int:
        """How many rows are looked through."""
        return len(self.gallery)

    def chunks(self) -> Iterator[tuple[Floats, Floats, Bools]]:
        """Cosines of some queries with the gallery, by the engine and by FP32, and which of them belong together."""
        step = max(1, _CHUNK // self.candidates)
        for start in range(0, self.n, step):
            end = min(self.n, start + step)
            own = np.zeros((end - start, self.candidates), dtype=np.bool_)
            here = self.pairs[(self.pairs[:, 0] >= start) & (self.pairs[:, 0] < end)]
            own[here[:, 0] - start, here[:, 1]] = True
            yield self.queries[start:end] @ self.gallery.T, self.exact_queries[start:end] @ self.exact_gallery.T, own

    def ahead(self) -> tuple[Counts, Counts]:
        """int64 [n] twice, by the engine and by FP32: how many rows that are not the query's own are as near as its nearest own."""
        seen = [(_ahead(scores, own), _ahead(exact, own)) for scores, exact, own in self.chunks()]
        return np.concatenate([one for one, _ in seen]), np.concatenate([other for _, other in seen])


def text_retrieval(observed: Embeddings, exact: Embeddings, task: Task) -> Search:
    """Each picture looks for its captions, which is also how zero-shot classification works.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    _require_task(observed, exact, task)
    other = unit_rows(task.other)
    under_test, reference = unit_rows(observed), unit_rows(exact)
    is_image = task.tower is Tower.IMAGE
    return Search(
        name="text_retrieval",
        found_by=("picture", "caption"),
        queries=under_test if is_image else other,
        gallery=other if is_image else under_test,
        exact_queries=reference if is_image else other,
        exact_gallery=other if is_image else reference,
        pairs=task.pairing.pairs,
    )


def image_retrieval(observed: Embeddings, exact: Embeddings, task: Task) -> Search:
    """Each caption looks for its pictures.

    Raises:
        InvalidMeasurement: the rows are not those that the task is about.
    """
    other = text_retrieval(observed, exact, task)
    return Search(
        name="image_retrieval",
        found_by=("caption", "picture"),
        queries=other.gallery,
        gallery=other.queries,
        exact_queries=other.exact_gallery,
        exact_gallery=other.exact_queries,
        pairs=other.pairs[:, ::-1],
    )


def unit_rows(embeddings: Embeddings) -> Floats:
    """float64 [n, d], each of norm 1 whatever its scale; a row of zeros stays zero, one that is not finite becomes NaN."""
    rows = embeddings.rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms == 0, 1, norms)


def may_be_first(scores: Floats, kept: int) -> Bools:
    """Which candidates of each query may be among its first `kept`, ties with the last of them included."""
    last = np.partition(scores, -kept, axis=1)[:, -kept, None]
    return scores >= last - TIE


def _ahead(scores: Floats, own: Bools) -> Counts:
    best_own = np.where(own, scores, -math.inf).max(axis=1, keepdims=True)
    return (~own & (scores >= best_own - TIE)).sum(axis=1)


def _require_task(observed: Embeddings, exact: Embeddings, task: Task) -> None:
    require_same_inputs(observed, exact)
    for reference in (exact, task.other):
        require_finite(reference)
    pairing, is_image = task.pairing, task.tower is Tower.IMAGE
    expected = (pairing.pictures, pairing.captions) if is_image else (pairing.captions, pairing.pictures)
    for rows, count in zip((observed, task.other), expected, strict=True):
        if len(rows.ids) != count:
            raise InvalidMeasurement(f"{rows.made_by} has {len(rows.ids)} rows; {pairing.source} pairs {count} of that tower")
    if task.other.rows.shape[1] != exact.rows.shape[1]:
        raise InvalidMeasurement(
            f"{exact.made_by} is {exact.rows.shape[1]} wide and {task.other.made_by} {task.other.rows.shape[1]}; "
            "expected two towers of one model"
        )
    if not (math.isfinite(task.logit_scale) and task.logit_scale > 0):
        raise InvalidMeasurement(f"the logit scale of {task.same_weights} is {task.logit_scale}; expected a finite number above 0")
