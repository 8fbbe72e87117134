"""Judges interleaved launch times of two engines against the ratio they had when the baseline was approved."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from harness.records.verdict import Direction, Judgement, Status

# Below this many rounds the median of the ratios is one or two launches' luck.
ROUNDS_FOR_A_MEDIAN = 9


def latency_ratio(
    candidate_ms: Sequence[float],
    reference_ms: Sequence[float],
    *,
    approved: float | None,
    relative_margin: float,
    is_same_processor: bool = True,
) -> Judgement:
    """Median over rounds of candidate time / reference time, both taken in the same round.

    A ratio within one round cancels what slows both: another process, a lower clock. What is left on a shared CPU is what
    `relative_margin` is for.

    Args:
        candidate_ms, reference_ms: one launch a round, in milliseconds, in round order.
        approved: the ratio stored in the baseline; None when there is none.
        relative_margin: how much above it passes; 0.5 is half as much again.
        is_same_processor: whether the approved ratio was seen on this make of processor. On another one, a higher ratio may be the
            processor's doing, so it is INCONCLUSIVE.
    """
    problem = _problem(candidate_ms, reference_ms)
    if problem is not None:
        status, reason = problem
        return _judgement(status, None, approved, len(candidate_ms), reason)
    observed = ratio_of(candidate_ms, reference_ms)
    if approved is None:
        reason = "no baseline of this key; run with --baselines=create to store one"
        return _judgement(Status.NO_BASELINE, observed, None, len(candidate_ms), reason)
    ceiling = approved * (1 + relative_margin)
    if observed <= ceiling:
        return _judgement(Status.PASS, observed, ceiling, len(candidate_ms), "")
    reason = f"{observed / approved - 1:+.0%} over the approved ratio {approved:.3g}"
    if not is_same_processor:
        reason += ", which was seen on another make of processor; approve one here with --baselines=update"
        return _judgement(Status.INCONCLUSIVE, observed, ceiling, len(candidate_ms), reason)
    reason += f"; a change below {relative_margin:.0%} cannot be seen here"
    return _judgement(Status.FAIL, observed, ceiling, len(candidate_ms), reason)


def ratio_of(candidate_ms: Sequence[float], reference_ms: Sequence[float]) -> float:
    """Median over rounds of candidate / reference. No unit."""
    return median(one / other for one, other in zip(candidate_ms, reference_ms, strict=True))


def _problem(candidate_ms: Sequence[float], reference_ms: Sequence[float]) -> tuple[Status, str] | None:
    if len(candidate_ms) != len(reference_ms):
        return Status.INVALID, f"{len(candidate_ms)} and {len(reference_ms)} samples; expected one of each a round"
    if not all(0 < ms < float("inf") for ms in (*candidate_ms, *reference_ms)):
        return Status.INVALID, "times that are zero, negative or not finite; the clock or the launch is broken"
    if len(candidate_ms) < ROUNDS_FOR_A_MEDIAN:
        return Status.INCONCLUSIVE, f"{len(candidate_ms)} rounds; expected at least {ROUNDS_FOR_A_MEDIAN}"
    return None


def _judgement(status: Status, observed: float | None, bound: float | None, n: int, reason: str) -> Judgement:
    return Judgement(
        metric="latency_ratio",
        status=status,
        observed=observed,
        bound=bound,
        unit="",
        direction=Direction.CEILING,
        n=n,
        reason=reason,
    )
