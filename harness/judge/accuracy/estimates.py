"""From an estimated figure to a verdict: PASS only where the data carry the claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.judge.statistics import Interval
from harness.records.observations import Embeddings
from harness.records.verdict import Direction, Judgement, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is claimed of a metric. `bound` is in `unit`, `decimals` are those that words have."""

    metric: str
    bound: float
    direction: Direction
    unit: str = ""
    decimals: int = 4

    def spelled(self, figure: float) -> str:
        """The figure with its unit."""
        return f"{figure:.{self.decimals}f} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What was seen of it.

    Attributes:
        observed, interval: in the claim's unit.
        n: independent samples, or rows where those are clustered.
        budget: as in `Judgement`.
        words: what else there is to say.
    """

    observed: float
    interval: Interval
    n: int
    budget: int | None = None
    words: str = ""


def decided(claim: Claim, seen: Estimate, needed: Callable[[], int | None]) -> Judgement:
    """PASS if the bound on the bad side keeps the claim, FAIL if the one on the good side breaks it as well, else INCONCLUSIVE.

    Args:
        claim: with a floor or a ceiling.
        seen: the estimate.
        needed: how many samples would carry the claim, were the figure to stay; None where no number would. Asked only if undecided.
    """
    is_floor = claim.direction is Direction.FLOOR
    bad, good = (seen.interval.low, seen.interval.high) if is_floor else (seen.interval.high, seen.interval.low)
    if _keeps(claim, bad):
        return _judgement(claim, seen, Status.PASS, seen.words)
    if not _keeps(claim, good):
        return _judgement(claim, seen, Status.FAIL, seen.words)
    return _judgement(claim, seen, Status.INCONCLUSIVE, _joined(_undecided(claim, seen, needed()), seen.words))


def inconclusive(claim: Claim, seen: Estimate, reason: str) -> Judgement:
    """INCONCLUSIVE whatever the interval says, since the data cannot show what is claimed."""
    return _judgement(claim, seen, Status.INCONCLUSIVE, _joined(reason, seen.words))


def unsound(claim: Claim, observed: Embeddings) -> Judgement | None:
    """FAIL for an engine with rows that are not finite: no figure about them means anything. None for sound rows."""
    broken = np.flatnonzero(~np.isfinite(observed.rows).all(axis=1))
    if not len(broken):
        return None
    return Judgement(
        metric=claim.metric,
        status=Status.FAIL,
        observed=None,
        bound=claim.bound,
        unit=claim.unit,
        direction=claim.direction,
        n=len(observed.ids),
        reason=f"{len(broken)} of {len(observed.ids)} rows are not finite, first {observed.ids[broken[0]]}",
    )


def _keeps(claim: Claim, figure: float) -> bool:
    return figure >= claim.bound if claim.direction is Direction.FLOOR else figure <= claim.bound


def _undecided(claim: Claim, seen: Estimate, needed: int | None) -> str:
    low, high = (f"{end:.{claim.decimals}f}" for end in seen.interval)
    found = f"{seen.n:,} samples leave {low} to {high} possible, on both sides of {claim.spelled(claim.bound)}"
    if needed is None or not _keeps(claim, seen.observed):
        return f"{found}; the figure itself, {claim.spelled(seen.observed)}, gives no hope that more samples would carry the claim"
    return f"{found}; about {needed:,} would carry the claim, were the figure to stay {claim.spelled(seen.observed)}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _judgement(claim: Claim, seen: Estimate, status: Status, reason: str) -> Judgement:
    return Judgement(
        metric=claim.metric,
        status=status,
        observed=seen.observed,
        bound=claim.bound,
        unit=claim.unit,
        direction=claim.direction,
        n=seen.n,
        reason=reason,
        interval=(seen.interval.low, seen.interval.high),
        budget=seen.budget,
    )
