"""Turns what a check found into one judgement: no finding passes, and a check that looked at nothing passes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.policy import RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Severity, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one check saw.

    Attributes:
        n: how many nodes, pairs, blocks or tensors it looked at.
        findings: what it found, worst first.
        why_not: why it cannot judge, in words; None when it can.
    """

    n: int
    findings: tuple[Finding, ...]
    why_not: str | None = None


def judged(check: str, looked: Looked, policy: RecipePolicy) -> Judgement:
    """A check as a judgement of metric `check_<id>`: the number of its findings, of which there may be none.

    Findings of lower severity than the policy's are handed on and not counted. What cannot be judged is told under every policy.
    """
    counted = [found for found in looked.findings if found.severity is policy.severity]
    why_not = looked.why_not or (
        None if looked.n or counted else f"cannot judge: nothing in this graph is of the kind that {check} looks at"
    )
    status = Status.INVALID if why_not else Status.FAIL if counted else Status.PASS
    return Judgement(
        metric=f"check_{check}",
        status=status,
        observed=None if why_not else len(counted),
        bound=0,
        unit="findings",
        direction=Direction.CEILING,
        n=looked.n,
        reason=why_not or _first_of(counted),
        severity=Severity.GATE if why_not else policy.severity,
        findings=looked.findings,
    )


def _first_of(findings: list[Finding]) -> str:
    if not findings:
        return ""
    first, *others = findings
    return f"{first.message} ({len(findings)} such findings)" if others else first.message
