"""Judges ratios of launch times against approved ones: all latency gates of a run together, in two stages, with Holm's correction.

A stored ratio was seen in another session. What sessions differ by without any change is the gate's `session_spread`; a slow-down is
proven beyond it only, and PASS excludes one of `delta`. An engine timed beside the one that was approved, in one session, is held to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.judge.latency import groups
from harness.judge.latency.contrasts import Floats
from harness.judge.latency.decision import BETA, effect_of, needs_second_stage, run_statuses, two_stage_detectable
from harness.judge.latency.samples import problem_of_guard, process_ratios
from harness.records.gate_lines import LATENCY_RATIO
from harness.records.latency import LatencySamples
from harness.records.verdict import Direction, Judgement, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioGate:
    """One gate: what its ratio is held to.

    Attributes:
        metric: `latency_ratio`, of an engine beside its FP16 twin; or `latency_ms`, of one beside the engine that was approved.
        approved: the stored ratio, or 1; None when there is nothing to hold it to.
        delta: slow-down against it that PASS excludes; 0.25 is a quarter more.
        session_spread: slow-down beyond which one is proven.
        is_same_processor: whether the approved ratio was seen on this make of processor. On another one, a higher ratio may be the
            processor's doing, so it is INCONCLUSIVE.
        why_none: why there is nothing to hold it to, in words.
    """

    approved: float | None
    delta: float
    session_spread: float
    is_same_processor: bool = True
    metric: str = LATENCY_RATIO
    why_none: str = "no baseline of this key; run with --baselines=create to store one"

    @property
    def against(self) -> str:
        """What a change is counted from, in words."""
        if self.metric == LATENCY_RATIO:
            return f"against the approved ratio {self.approved:.4g}"
        return "beside the approved engine, in the same session"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioSeen:
    """What the processes of one gate gave.

    Attributes:
        logs: log ratios, one a process, [processes].
        groups, dropped: groups of blocks, and those of them that the guard dropped.
        problem: why they prove nothing, in words.
    """

    logs: Floats
    groups: int = 0
    dropped: int = 0
    problem: str | None = None


def ratio_seen(samples: LatencySamples) -> RatioSeen:
    """What one stage of a gate gave. Never an exception: what is broken is told in `problem`."""
    problem = groups.problem_of(samples)
    if problem is not None:
        return RatioSeen(logs=np.zeros(0), problem=problem)
    logs, measured, dropped = process_ratios(samples)
    problem = problem_of_guard(measured, dropped)
    if problem is None and len(logs) < len(samples.processes):
        problem = f"{len(samples.processes) - len(logs)} of {len(samples.processes)} processes lost all groups to the guard; measure again"
    return RatioSeen(logs=logs, groups=measured, dropped=dropped, problem=problem)


def asks_again(gates: Mapping[str, RatioGate], first: Mapping[str, RatioSeen], *, alpha: float) -> tuple[str, ...]:
    """Gates that need new processes before they can be judged."""
    return tuple(name for name in _judgeable(gates, first) if _asks(gates[name], first[name], alpha))


def ratio_judgements(
    gates: Mapping[str, RatioGate], first: Mapping[str, RatioSeen], second: Mapping[str, RatioSeen], *, alpha: float
) -> dict[str, Judgement]:
    """A judgement of each gate.

    Args:
        gates: all that share `alpha`, by name.
        first: the first stage of each of them, with as many processes of every one.
        second: the second stage, of new and as many processes, of those that `asks_again` names.
        alpha: chance of any FAIL among them where nothing changed.
    """
    judged = {name: _unjudged(gates[name], first[name]) for name in gates}
    broken = {name for name, seen in second.items() if seen.problem is not None}
    judged |= {name: _unjudged(gates[name], second[name]) for name in broken}
    names = [name for name in _judgeable(gates, first) if name not in broken]
    if not names:
        return judged
    ones = np.stack([_against(gates[name], first[name]) for name in names])
    asked = np.array([name in second for name in names])
    twos = np.stack([_against(gates[name], second[name]) if name in second else ones[row] for row, name in enumerate(names)])
    delta, margin = np.array([gates[name].delta for name in names]), np.array([gates[name].session_spread for name in names])
    # A gate that proves nothing keeps its share of alpha to itself: the others gain nothing from it.
    share = alpha * len(names) / len(gates)
    statuses = run_statuses(ones, twos if asked.any() else None, alpha=share, delta=delta, margin=margin, asked=asked)
    each = alpha / len(gates)
    for name, status in zip(names, statuses, strict=True):
        judged[name] = _judged(gates[name], first[name], second.get(name), Status(status), each)
    return judged


def _asks(gate: RatioGate, seen: RatioSeen, alpha: float) -> bool:
    effect = effect_of(_against(gate, seen))
    return bool(needs_second_stage(effect, alpha=alpha, delta=gate.delta, margin=gate.session_spread))


def _judgeable(gates: Mapping[str, RatioGate], seen: Mapping[str, RatioSeen]) -> list[str]:
    return [name for name, gate in gates.items() if gate.approved is not None and seen[name].problem is None]


def _against(gate: RatioGate, seen: RatioSeen) -> Floats:
    assert gate.approved is not None  # for the type checker: only gates that can be judged come here
    return seen.logs - math.log(gate.approved)


def _unjudged(gate: RatioGate, seen: RatioSeen) -> Judgement:
    """INVALID in the words of what is broken, else NO_BASELINE."""
    if seen.problem is not None:
        return _judgement(gate, Status.INVALID, None, None, len(seen.logs), seen.problem)
    return _judgement(gate, Status.NO_BASELINE, math.exp(seen.logs.mean()), None, len(seen.logs), gate.why_none)


def _judged(gate: RatioGate, first: RatioSeen, second: RatioSeen | None, status: Status, alpha: float) -> Judgement:
    assert gate.approved is not None  # for the type checker: only gates that can be judged come here
    logs = first.logs if second is None else np.concatenate([first.logs, second.logs])
    effect = effect_of(logs)
    interval = math.exp(effect.lower(BETA)), math.exp(effect.upper(BETA))
    sees = float(two_stage_detectable(logs.std(ddof=1), len(first.logs), alpha=alpha, margin=gate.session_spread))
    reason = _words(status, gate, math.exp(effect.mean) / gate.approved - 1)
    if status is Status.FAIL and not gate.is_same_processor:
        status = Status.INCONCLUSIVE
        reason += "; the approved ratio was seen on another make of processor: approve one here with --baselines=update"
    dropped, measured = first.dropped + (second.dropped if second else 0), first.groups + (second.groups if second else 0)
    stages = f"{len(first.logs)} processes" if second is None else f"{len(first.logs)} + {len(logs) - len(first.logs)} processes"
    reason += f"; {stages}, {dropped} of {measured} groups of blocks dropped; sees {sees:+.1%} (minimum detectable effect)"
    bound = gate.approved * (1 + gate.delta)
    return _judgement(gate, status, math.exp(effect.mean), bound, len(logs), reason, interval=interval, detectable=sees)


def _words(status: Status, gate: RatioGate, change: float) -> str:
    against = f"{change:+.1%} {gate.against}"
    if status is Status.FAIL and not gate.session_spread:
        return f"{against}, and seen again in new processes"
    if status is Status.FAIL:
        return f"{against}, beyond the {gate.session_spread:.1%} that sessions differ by, and seen again in new processes"
    if status is Status.INCONCLUSIVE:
        return f"{against}: a slow-down of {gate.delta:.1%} is neither shown nor excluded"
    if change < -gate.delta:
        return f"{against}: baseline_stale, approve the faster one with --baselines=update"
    return against


def _judgement(
    gate: RatioGate,
    status: Status,
    observed: float | None,
    bound: float | None,
    n: int,
    reason: str,
    *,
    interval: tuple[float, float] | None = None,
    detectable: float | None = None,
) -> Judgement:
    return Judgement(
        metric=gate.metric,
        status=status,
        observed=observed,
        bound=bound,
        unit="",
        direction=Direction.CEILING,
        n=n,
        reason=reason,
        interval=interval,
        detectable=detectable,
    )


def in_ms(judgement: Judgement, baseline_ms: float) -> Judgement:
    """A ratio to an engine that took so long in the same session, told in ms; its words keep the ratio."""
    in_unit = replace(
        judgement,
        unit="ms",
        observed=None if judgement.observed is None else judgement.observed * baseline_ms,
        bound=None if judgement.bound is None else judgement.bound * baseline_ms,
    )
    if judgement.interval is None:
        return in_unit
    low, high = judgement.interval
    reason = f"ratio {judgement.observed:.4f} [{low:.4f}, {high:.4f}], {judgement.reason}"
    return replace(in_unit, interval=(low * baseline_ms, high * baseline_ms), reason=reason)
