"""Judges how many hits an engine loses against FP32, on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.judge.accuracy.estimates import Claim, Estimate, decided, inconclusive
from harness.judge.accuracy.matching import Bools
from harness.judge.accuracy.references import samples_to_narrow
from harness.judge.statistics import Counts, clustered_bounds, drop_bounds, drop_budget, mcnemar_p, rate_bounds, samples_at_drop
from harness.records.verdict import Direction, Judgement

POINTS = 100  # a drop of 0.01 is one point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hits:
    """Which samples hit, twice over the same ones.

    Attributes:
        name: of what is hit, for people.
        engine, exact: bool [n].
        clusters: int64 [n], which samples belong together; samples of different clusters are independent. None: all are.
    """

    name: str
    engine: Bools
    exact: Bools
    clusters: Counts | None = None


def drop(metric: str, hits: Hits, *, ceiling: float) -> Judgement:
    """How many points lower the engine's hit rate is than FP32's.

    It passes only if the 95 % bound on the drop is at most `ceiling` points: that no difference was found would not be enough. The
    budget is how many may get worse beside those that get better.
    """
    claim = Claim(metric=metric, bound=ceiling, direction=Direction.CEILING, unit="pt", decimals=2)
    worse, better = int((hits.exact & ~hits.engine).sum()), int((hits.engine & ~hits.exact).sum())
    n, right = len(hits.exact), int(hits.exact.sum())
    if hits.clusters is None:
        seen = _independent(hits, worse, better, ceiling)
    else:
        seen = _clustered(hits, hits.clusters)
    if rate_bounds(right, n).low * POINTS <= ceiling:
        reason = f"FP32 itself hits so rarely that losing every hit could pass; expected surely more than {claim.spelled(ceiling)}"
        return inconclusive(claim, seen, reason)
    if hits.clusters is not None:
        return decided(claim, seen, lambda: samples_to_narrow(seen, ceiling))
    return decided(claim, seen, lambda: samples_at_drop(worse, better, n, ceiling / POINTS))


def flips(hits: Hits) -> str:
    """How many samples changed sides, and how likely so uneven a split is by chance."""
    n, worse, better = len(hits.exact), int((hits.exact & ~hits.engine).sum()), int((hits.engine & ~hits.exact).sum())
    chance = f"McNemar p {mcnemar_p(worse, better):.2g}{'' if hits.clusters is None else ' were all independent'}"
    return f"{hits.name} {hits.exact.mean():.1%} in FP32, {worse} worse and {better} better of {n:,}, {chance}"


def _independent(hits: Hits, worse: int, better: int, ceiling: float) -> Estimate:
    n = len(hits.exact)
    interval = drop_bounds(worse, better, n).scaled(POINTS)
    budget = drop_budget(better, n, ceiling / POINTS)
    return Estimate(observed=(worse - better) / n * POINTS, interval=interval, n=n, budget=budget, words=flips(hits))


def _clustered(hits: Hits, clusters: Counts) -> Estimate:
    _, members, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    lost = hits.exact.astype(np.int64) - hits.engine.astype(np.int64)
    net = np.zeros(len(sizes), dtype=np.int64)
    np.add.at(net, members, lost)
    interval = clustered_bounds(net, sizes, signed=True).scaled(POINTS)
    observed = float(lost.mean()) * POINTS
    return Estimate(observed=observed, interval=interval, n=len(lost), words=f"{flips(hits)}, in {len(sizes):,} clusters")
