"""Judges what somebody answers for until a day, as the `[[waiver]]` lines of gate.toml say."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from harness.records.gate_lines import Waiver
from harness.records.verdict import Judgement, Status

_LIFTED = (Status.FAIL, Status.INCONCLUSIVE)


def waived(judgement: Judgement, waiver: Waiver | None, *, today: date) -> Judgement:
    """The judgement as it counts beside the waiver that covers it.

    A waiver is another, wider bound for as long as it holds. It lifts a FAIL, and an INCONCLUSIVE that carries an interval, if all that the
    data leave possible lies at or below its ceiling. It never mends a broken measurement or a missing baseline. One that is over turns
    even a PASS into a FAIL: nobody reads gate.toml again unless something is red.

    Args:
        judgement: of the metric that the waiver names.
        waiver: None where nobody wrote one.
        today: in UTC.
    """
    if waiver is None or judgement.status in (Status.INVALID, Status.NO_BASELINE):
        return judgement
    if waiver.is_over(today):
        words = f"the waiver of {waiver.metric} by {waiver.owner} ended on {waiver.expires}; mend what it was for, or agree on another day"
        return _said(judgement, Status.FAIL, words)
    if judgement.status not in _LIFTED or judgement.observed is None:
        return judgement
    worst = judgement.observed if judgement.interval is None else max(judgement.observed, judgement.interval[1])
    if judgement.observed > waiver.ceiling:
        words = f"above the ceiling {waiver.ceiling:g} that {waiver.owner} answers for until {waiver.expires}"
        return replace(_said(judgement, Status.FAIL, words), bound=waiver.ceiling)
    if worst > waiver.ceiling or (judgement.status is Status.INCONCLUSIVE and judgement.interval is None):
        words = f"not shown to stay below the ceiling {waiver.ceiling:g} that {waiver.owner} answers for until {waiver.expires}"
        return _said(judgement, Status.INCONCLUSIVE, words)
    words = f"waived until {waiver.expires} by {waiver.owner}, up to {waiver.ceiling:g}: {waiver.reason}"
    return replace(_said(judgement, Status.PASS, words), bound=waiver.ceiling)


def _said(judgement: Judgement, status: Status, words: str) -> Judgement:
    """With `words` first; what was said without the waiver follows."""
    return replace(judgement, status=status, reason="; ".join(filter(None, (words, judgement.reason))))
