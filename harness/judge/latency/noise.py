"""What samples of engines that are known to be alike, or slower by a known amount, say about the judge that finds it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.judge.latency import groups
from harness.judge.latency.contrasts import Floats, contrasts
from harness.judge.latency.decision import effect_of, one_stage, processes_needed
from harness.judge.latency.samples import judge_samples, process_ratios
from harness.judge.statistics import rate_bounds
from harness.records.latency import LatencyJudgement, LatencySamples, ProcessBlocks
from harness.records.noise import Counted, Noise, Trace
from harness.records.verdict import Status

# Each side's; together an exact 95 % interval.
_CONFIDENCE = 0.975
# Processes of a judgement: what a quiet GPU needs for one percent, somewhat more, and a third of a study of thirty.
SIZES = (5, 6, 10)


def noise_of(samples: LatencySamples) -> Noise | None:
    """What samples of one comparison say; None where the judge calls them INVALID."""
    judged = judge_samples(samples)
    if judged.status is Status.INVALID or len(samples.processes) < 2:
        return None
    figures, _, _ = process_ratios(samples)
    effect, spread = effect_of(figures), float(figures.std(ddof=1))
    clocks = tuple(_clocks(samples))
    return Noise(
        judgement=judged,
        mean=math.expm1(effect.mean),
        low=math.expm1(effect.lower(judged.alpha)),
        high=math.expm1(effect.upper(judged.beta)),
        process_spread=spread,
        group_spread=_group_spread(samples),
        needed=processes_needed(spread, alpha=judged.alpha, delta=judged.delta),
        counted=tuple(_counted(figures, size, judged) for size in SIZES if len(figures) >= size),
        readings_apart=_readings_apart(clocks),
        arms_apart=max((abs(math.expm1(float(of_arms.mean()))) for _, of_arms, _ in clocks), default=None),
        clocks_with_times=_correlation(clocks),
    )


def trace_of(ms: Sequence[float]) -> Trace | None:
    """What launches in a row say; None where they are too few."""
    if len(ms) < 3:
        return None
    logs = np.log(ms)
    spread = float(logs.std())
    neighbours = float(np.corrcoef(logs[:-1], logs[1:])[0, 1]) if spread else 0.0
    return Trace(launches=len(ms), p50_ms=float(np.median(ms)), spread=spread, neighbours=neighbours)


def _counted(figures: Floats, size: int, judged: LatencyJudgement) -> Counted:
    runs = len(figures) // size
    effect = effect_of(figures[: runs * size].reshape(runs, size))
    slower = int((effect.p_slower() <= judged.alpha).sum())
    passed = sum(status == Status.PASS for status in one_stage(effect, alpha=judged.alpha, delta=judged.delta))
    low, high = rate_bounds(slower, runs, confidence=_CONFIDENCE)
    return Counted(size=size, runs=runs, slower=slower, passed=passed, bounds=(low, high))


def _group_spread(samples: LatencySamples) -> float | None:
    """Of the groups within a process; None where every process has only one."""
    spreads = [float(of_groups.std(ddof=1)) for of_groups in map(_contrasts, samples.processes) if len(of_groups) > 1]
    return float(np.median(spreads)) if spreads else None


def _contrasts(process: ProcessBlocks) -> Floats:
    found = groups.groups_of(process)
    return contrasts(groups.log_medians(found), groups.candidate_blocks(found))


def _clocks(samples: LatencySamples) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Of each process whose clocks were read: logs of the readings [groups, 4], of the arms' ratio of clocks, and of times, [groups]."""
    for process in samples.processes:
        found = groups.groups_of(process)
        readings = [[block.sm_clock_mhz for block in group] for group in found]
        if all(one is not None for group in readings for one in group):
            logs = np.log(np.array(readings, dtype=np.float64))
            yield logs, contrasts(logs, groups.candidate_blocks(found)), _contrasts(process)


def _readings_apart(clocks: Sequence[tuple[Floats, Floats, Floats]]) -> tuple[float, float] | None:
    if not clocks:
        return None
    spans = np.expm1(np.concatenate([np.ptp(logs, axis=1) for logs, _, _ in clocks]))
    return float(np.median(spans)), float(spans.max())


def _correlation(clocks: Sequence[tuple[Floats, Floats, Floats]]) -> float | None:
    if not clocks:
        return None
    of_clocks, of_times = (np.concatenate([one[part] for one in clocks]) for part in (1, 2))
    if not of_clocks.std() or not of_times.std():
        return None
    return float(np.corrcoef(of_clocks, of_times)[0, 1])
