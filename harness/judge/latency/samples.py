"""Judges a whole file of samples: one stage, all of its processes."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np

from harness.judge.latency import groups
from harness.judge.latency.contrasts import Floats, contrasts, process_effects
from harness.judge.latency.decision import BETA, FEWEST_PROCESSES, Effect, effect_of, one_stage, processes_needed
from harness.judge.statistics import rank_above
from harness.records.latency import Arm, ArmFigures, LatencyJudgement, LatencySamples
from harness.records.verdict import Status

ALPHA = 0.001  # one false alarm in a thousand judgements
DELTA = 0.01
TAIL, TAIL_CONFIDENCE = 0.99, 0.99
# The guard may drop this share of the groups; with more, what is left was picked by the machine's mood.
DROPPED_SHARE = 0.2


def judge_samples(samples: LatencySamples, *, alpha: float = ALPHA, delta: float = DELTA, against: float = 1.0) -> LatencyJudgement:
    """Is the candidate slower than the baseline; or, beside a ratio that was approved, slower than it was then?

    Args:
        alpha: chance of FAIL when nothing changed, 0 to 0.5.
        delta: slow-down that must be excluded for PASS; 0.01 is one percent.
        against: candidate time / baseline time that is no slow-down.

    Returns:
        INVALID, with words, when the samples cannot carry any claim; never an exception.
    """
    blank = LatencyJudgement(status=Status.INVALID, alpha=alpha, beta=BETA, delta=delta, against=against, processes=len(samples.processes))
    problem = groups.problem_of(samples)
    if problem is not None:
        return replace(blank, reason=problem)
    effects, measured, dropped = process_ratios(samples)
    seen = replace(
        blank,
        processes=len(effects),
        groups=measured,
        dropped=dropped,
        baseline=_figures(samples, Arm.BASELINE),
        candidate=_figures(samples, Arm.CANDIDATE),
    )
    problem = problem_of_guard(measured, dropped)
    if problem is not None:
        return replace(seen, reason=problem)
    if len(effects) < FEWEST_PROCESSES:
        found = f"{len(effects)} processes are left after what was throttled is dropped"
        return replace(seen, reason=f"{found}; expected at least {FEWEST_PROCESSES}; measure again")
    return _judged(seen, effects - math.log(against))


def _judged(seen: LatencyJudgement, effects: Floats) -> LatencyJudgement:
    effect = effect_of(effects)
    status = Status(one_stage(effect, alpha=seen.alpha, delta=seen.delta).item())
    needed = processes_needed(float(np.std(effects, ddof=1)), alpha=seen.alpha, delta=seen.delta)
    judged = replace(
        seen,
        status=status,
        ratio=math.exp(effect.mean) * seen.against,
        low=math.exp(effect.lower(seen.alpha)) * seen.against,
        high=math.exp(effect.upper(seen.beta)) * seen.against,
        detectable=math.expm1(effect.detectable(seen.alpha)),
        p=float(effect.p_slower()),
        processes_needed=needed,
    )
    return replace(judged, reason=_words(judged, effect))


def _words(judged: LatencyJudgement, effect: Effect) -> str:
    change = math.expm1(effect.mean)
    if judged.status is Status.FAIL:
        return f"slower by {change:.2%}, at least {math.expm1(effect.lower(judged.alpha)):.2%}"
    if judged.status is Status.INCONCLUSIVE:
        enough = "more than 10,000" if judged.processes_needed is None else f"some {judged.processes_needed}"
        return f"a slow-down of {judged.delta:.2%} is neither shown nor excluded; {enough} processes that spread as these do would see it"
    if effect.lower(judged.alpha) > 0:
        return f"slower by {change:.2%}, which is real, and below {judged.delta:.2%}"
    if effect.upper(judged.beta) < -math.log1p(judged.delta):
        return f"faster by {-change:.2%}: the baseline is stale"
    return ""


def process_ratios(samples: LatencySamples) -> tuple[Floats, int, int]:
    """One log ratio a process that has any group left, the number of groups, and how many of them were dropped."""
    effects: list[float] = []
    measured = dropped = 0
    for process in samples.processes:
        every = groups.groups_of(process)
        kept = groups.kept_groups(process)
        measured, dropped = measured + len(every), dropped + int((~kept).sum())
        effect = float(process_effects(contrasts(groups.log_medians(every), groups.candidate_blocks(every)), kept))
        if math.isfinite(effect):
            effects.append(effect)
    return np.array(effects), measured, dropped


def problem_of_guard(measured: int, dropped: int) -> str | None:
    """Why what the guard left of `measured` groups proves nothing, in words; None when it does."""
    if dropped <= DROPPED_SHARE * measured:
        return None
    why = "throttled, beside other processes on the GPU, or in processes of ours whose arms ran at clocks more than 2 % apart"
    found = f"{dropped} of {measured} groups were {why}"
    return f"{found}; expected at most {DROPPED_SHARE:.0%}; have the GPU alone, cool it or lock its clocks, and measure again"


def _figures(samples: LatencySamples, arm: Arm) -> ArmFigures:
    ms = [one for process in samples.processes for block in process.blocks if block.arm is arm for one in block.ms]
    return ArmFigures(p50_ms=median(ms), launches=len(ms), p99_ms=_tail_ms(ms), sm_clock_mhz=groups.clock_of(samples, arm))


def _tail_ms(ms: list[float]) -> float | None:
    """The smallest launch that the 99th percentile lies below, but for a chance of one percent; None below 459 launches.

    All of 458 stay below it with a chance of 0.99 ** 458, which is more than one percent. From 662 on it is the second largest.
    """
    rank = rank_above(len(ms), TAIL, confidence=TAIL_CONFIDENCE)
    return None if rank is None else sorted(ms)[rank - 1]
