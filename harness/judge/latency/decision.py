"""Judges log ratios of fresh processes, one figure a process. All functions take any leading axes, such as runs and gates.

Blocks of one process share its memory layout and its modules, so only processes are independent, and only they are counted. Two bounds
decide: a slow-down is proven when its lower bound is above the margin, and excluded when its upper bound is below delta. A test of
difference alone would pass whatever it is too weak to see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.need import need
from harness.records.verdict import Status

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statuses = NDArray[np.object_]

FEWEST_PROCESSES = 3
# One slow engine in a hundred, of exactly delta, may pass; MDE is what is found in 99 of 100.
BETA = 0.01
MOST_PROCESSES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect:
    """Mean log ratio over processes and its standard error, [...], with the number of processes."""

    mean: Floats
    se: Floats
    processes: int

    def lower(self, alpha: float) -> Floats:
        """What the true log ratio is above, but for `alpha`."""
        return self.mean - _t_quantile(alpha, self.processes) * self.se

    def upper(self, beta: float) -> Floats:
        """What the true log ratio is below, but for `beta`."""
        return self.mean + _t_quantile(beta, self.processes) * self.se

    def detectable(self, alpha: float, beta: float = BETA) -> Floats:
        """Log ratio that FAIL would find but for `beta`, if processes always spread as these do: the minimum detectable effect.

        From the noncentral t, the law of the test itself. The sum of two t quantiles, which is often used, promises too much of few
        processes: 3 % of misses where it says 1 %.
        """
        return _distance(alpha, beta, self.processes) * self.se

    def p_slower(self, margin: float | Floats = 0.0) -> Floats:
        """Chance of a mean as high as this one, were the true log ratio `margin`."""
        above = self.mean - margin
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.se > 0, above / self.se, np.sign(above) * np.inf)
        # Without any spread and without any effect there is nothing to hold against the candidate: sign(0) * inf is NaN.
        return np.asarray(_special().stdtr(self.processes - 1, -np.where(np.isnan(t), 0.0, t)))


def effect_of(effects: Floats) -> Effect:
    """Mean and standard error of process figures, [..., processes]."""
    processes = effects.shape[-1]
    return Effect(mean=effects.mean(axis=-1), se=effects.std(axis=-1, ddof=1) / np.sqrt(processes), processes=processes)


def one_stage(effect: Effect, *, alpha: float, delta: float, margin: float = 0.0) -> Statuses:
    """PASS, FAIL or INCONCLUSIVE of each effect: PASS is tried first, so a slow-down that is real and below delta passes.

    Args:
        alpha: chance of FAIL at no change.
        delta: slow-down that must be excluded for PASS; 0.01 is one percent.
        margin: slow-down that must be exceeded for FAIL.
    """
    return _statuses(effect, proven=effect.lower(alpha) > np.log1p(margin), delta=delta)


def needs_second_stage(first: Effect, *, alpha: float, delta: float | Floats = np.inf, margin: float | Floats = 0.0) -> Bools:
    """For which gates new processes are asked: those that look slow, at the square root of alpha, and those not shown to be within delta.

    The second kind cannot fail, since the first stage alone is above that root; new processes only help it to pass.
    """
    looks_slow = first.p_slower(np.log1p(margin)) <= np.sqrt(alpha)
    return looks_slow | ~_excludes(first, delta)


def two_stage_p(first_p: Floats, second_p: Floats) -> Floats:
    """One p-value of two independent stages: the square of the larger.

    At no change both are uniform, so the larger is below x with chance x * x, and its square is uniform too. A gate that needed no
    second stage has 1 for `second_p`: larger than what it would have had, hence on the safe side.
    """
    return np.maximum(first_p, second_p) ** 2


def holm(p: Floats, alpha: float) -> Bools:
    """Which of the gates, [..., gates], are rejected so that any false rejection in a run has a chance of at most `alpha` (Holm 1979)."""
    gates = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    limits: Floats = alpha / np.arange(gates, 0, -1, dtype=np.float64)
    rejected = np.logical_and.accumulate(np.take_along_axis(p, order, axis=-1) <= limits, axis=-1)
    out = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(out, order, rejected, axis=-1)
    return out


def two_stage_detectable(sd: Floats, processes: int, *, alpha: float, margin: float | Floats = 0.0) -> Floats:
    """Slow-down, 0.01 for one percent, that both stages find but for a chance of `BETA`: the minimum detectable effect of a gate.

    Args:
        sd: spread of process figures.
        processes: in each stage.
        alpha: chance of FAIL of this gate at a slow-down of `margin`.
        margin: slow-down that must be exceeded for FAIL.
    """
    # Each stage has to find it, so each may miss half as often.
    distance = _distance(float(np.sqrt(alpha)), BETA / 2, processes)
    return np.expm1(np.log1p(margin) + distance * sd / np.sqrt(processes))


def run_statuses(
    first: Floats,
    second: Floats | None,
    *,
    alpha: float,
    delta: float | Floats,
    margin: float | Floats = 0.0,
    asked: Bools | None = None,
) -> Statuses:
    """Statuses of all gates of a run, [..., gates], in two stages with Holm's correction.

    Args:
        first: process figures of the first stage, [..., gates, processes].
        second: of the second, of new processes; figures of gates that did not need it are not looked at. None where none did.
        alpha: chance of any FAIL in a run without a change.
        delta, margin: as of `one_stage`; one for all gates, or one a gate, [gates].
        asked: which gates have a second stage, where more do than need one at `alpha`: what was measured counts.
    """
    one = effect_of(first)
    needed = needs_second_stage(one, alpha=alpha, delta=delta, margin=margin)
    asked = needed if asked is None else asked | needed
    if second is None:
        if asked.any():
            raise ValueError("a gate needs its second stage; expected figures of new processes")
        return _statuses(one, proven=np.zeros(asked.shape, dtype=bool), delta=delta)
    two = effect_of(second)
    level = np.log1p(margin)
    p = two_stage_p(one.p_slower(level), np.where(asked, two.p_slower(level), 1.0))
    pooled = _statuses(effect_of(np.concatenate([first, second], axis=-1)), proven=holm(p, alpha), delta=delta)
    alone = _statuses(one, proven=np.zeros(asked.shape, dtype=bool), delta=delta)
    return np.where(asked, pooled, alone)


def processes_needed(sd: float, *, alpha: float, delta: float) -> int | None:
    """Fewest processes with a minimum detectable effect of at most delta, if their figures spread by `sd`; None above 10,000."""
    target = float(np.log1p(delta))

    def enough(processes: int) -> bool:
        return _distance(alpha, BETA, processes) * sd / processes**0.5 <= target

    low, high = FEWEST_PROCESSES - 1, FEWEST_PROCESSES
    while not enough(high):
        if high >= MOST_PROCESSES:
            return None
        low, high = high, min(high * 2, MOST_PROCESSES)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _excludes(effect: Effect, delta: float | Floats) -> Bools:
    return np.asarray(effect.upper(BETA) < np.log1p(delta))


def _statuses(effect: Effect, *, proven: Bools, delta: float | Floats) -> Statuses:
    names = np.where(_excludes(effect, delta), Status.PASS.value, np.where(proven, Status.FAIL.value, Status.INCONCLUSIVE.value))
    return np.asarray(names, dtype=object)


def _t_quantile(share: float, processes: int) -> float:
    return -float(_special().stdtrit(processes - 1, share))


def _distance(alpha: float, beta: float, processes: int) -> float:
    """Standard errors between no change and a change that a test at `alpha` finds but for `beta`."""
    return float(_special().nctdtrinc(processes - 1, beta, _t_quantile(alpha, processes)))


def _special() -> Any:
    return need("scipy.special", extra=None, to="judge figures of few processes")
