"""How sure a figure is: bounds on rates, drops, means and percentiles, and how many failures a claim can bear.

Each end of an interval is a bound of its own that holds with the confidence asked for, so that the end on the bad side decides and
reads as one. Bounds on what is counted are exact: they hold at least as often as they say, for every n. Where figures are not
counted, units are drawn anew (bootstrap), and those bounds hold about as often as they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.need import need

CONFIDENCE = 0.95

# With fewer units that differ, drawing them anew cannot show what has not happened yet; an exact bound is used instead.
UNITS_FOR_BOOTSTRAP = 20
_BLOCK = 2**22  # figures of draws in memory at once; 2,097 units in one block
RESAMPLES = 2000  # moves a bound at the 5 % tail by less than a fiftieth of its distance from the figure

# An exact bound on a drop spends this share of its error on how often anything differs at all, the rest on the drop.
_NUISANCE_SHARE = 0.1
_NUISANCE_POINTS = 25
_MOST_SAMPLES = 10_000_000
_ENUMERATED = 50_000  # pairs beyond which how many are needed is not told exactly
_NORMAL_95 = 1.6449

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
OfDraws = Callable[[Floats], Floats]


class Interval(NamedTuple):
    """Bounds from below and from above on a true figure; each alone holds with the confidence asked for."""

    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """In another unit, for a positive `factor`."""
        return Interval(self.low * factor, self.high * factor)


# -- rates -----------------------------------------------------------------------------------------------------------------------


def rate_bounds(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Clopper and Pearson's exact bounds on a rate of which `successes` of `n` were seen. No unit, 0 to 1."""
    special, alpha = _special(), 1 - confidence
    low = float(special.betaincinv(successes, n - successes + 1, alpha)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 1 - alpha)) if successes < n else 1.0
    return Interval(low, high)


def failure_budget(n: int, floor: float, *, confidence: float = CONFIDENCE) -> int:
    """How many of `n` may fail so that a success rate of at least `floor` is still certain; -1 where not even none may.

    To certify 0.98: none of 149, 2 of 313, 5 of 523, 10 of 845.
    """
    failures = np.arange(n + 1)
    chances = _special().bdtr(failures, n, min(1.0, max(0.0, 1 - floor)))  # of so few failures, were the rate just `floor`
    return int(np.searchsorted(chances, 1 - confidence, side="right")) - 1


def samples_for(floor: float, *, failures: int = 0, confidence: float = CONFIDENCE) -> int | None:
    """The smallest n at which a success rate of at least `floor` is certain in spite of `failures`; None: no number is enough."""
    return _smallest(lambda n: failure_budget_holds(n, failures, floor, confidence), failures + 1)


def failure_budget_holds(n: int, failures: int, floor: float, confidence: float = CONFIDENCE) -> bool:
    """Whether `failures` of `n` leave a success rate of at least `floor` certain."""
    return failures < n and float(_special().bdtr(failures, n, min(1.0, max(0.0, 1 - floor)))) <= 1 - confidence


def samples_at_rate(failures: int, n: int, floor: float, *, confidence: float = CONFIDENCE) -> int | None:
    """How many samples would make `floor` certain, were failures to stay as frequent as `failures` in `n`; None: no number would."""
    if failures and failures >= (1 - floor) * n:
        return None
    return _smallest(lambda size: failure_budget_holds(size, math.ceil(failures * size / n), floor, confidence), 1)


# -- percentiles -----------------------------------------------------------------------------------------------------------------


def rank_below(n: int, share: float, *, confidence: float = CONFIDENCE) -> int | None:
    """Which of `n` values in ascending order, counted from 1, is surely no higher than the `share` quantile; None: n is too small.

    The first percentile (0.01) of 299 rows is bounded by the smallest, of 1,510 by the ninth.
    """
    return failure_budget(n, 1 - share, confidence=confidence) + 1 or None


def rank_above(n: int, share: float, *, confidence: float = CONFIDENCE) -> int | None:
    """Which of `n` values in ascending order, counted from 1, is surely no lower than the `share` quantile; None: n is too small."""
    chances = _special().bdtr(np.arange(n), n, share)
    rank = int(np.searchsorted(chances, confidence, side="left")) + 1
    return rank if rank <= n else None


# -- paired samples --------------------------------------------------------------------------------------------------------------


def mcnemar_p(worse: int, better: int) -> float:
    """McNemar's exact test, two-sided: how likely a split at least as uneven as `worse` against `better` is by chance alone."""
    discordant = worse + better
    return min(1.0, 2 * float(_special().bdtr(min(worse, better), discordant, 0.5))) if discordant else 1.0


def drop_bounds(worse: int, better: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Exact bounds on how much lower a hit rate is, of `n` pairs in which `worse` lost their hit and `better` gained one.

    The chance that a pair differs at all is unknown. Of all values that it may have (a bound on it takes a tenth of the allowed
    error), the one that is worst for the claim counts, so the bounds hold whatever it is.

    Returns:
        Bounds on P(worse) - P(better), -1 to 1.
    Source: R. L. Berger and D. D. Boos, P values maximized over a confidence set for the nuisance parameter, JASA 89 (1994).
    """
    return Interval(-_drop_ceiling(better, worse, n, confidence), _drop_ceiling(worse, better, n, confidence))


def drop_holds(worse: int, better: int, n: int, ceiling: float, *, confidence: float = CONFIDENCE) -> bool:
    """Whether `worse` and `better` of `n` pairs make it certain that the drop is at most `ceiling`, 0 to 1."""
    return _drop_p(worse, better, n, ceiling, 1 - confidence) <= 1 - confidence


def drop_budget(better: int, n: int, ceiling: float, *, confidence: float = CONFIDENCE) -> int:
    """How many of `n` pairs may get worse, with `better` that got better, so that a drop of at most `ceiling` is still certain.

    -1 where not even none may.
    """
    low, high = -1, n - better + 1  # it holds at low, and does not at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if drop_holds(middle, better, n, ceiling, confidence=confidence) else (low, middle)
    return low


def samples_at_drop(worse: int, better: int, n: int, ceiling: float) -> int | None:
    """About how many pairs would make `ceiling` certain, were flips to stay as frequent as in these `n`; None: no number would."""
    if worse and worse - better >= ceiling * n:
        return None

    rough = _smallest_by_normal_law((worse + better) / n, ceiling - (worse - better) / n)
    if rough > _ENUMERATED:
        return rough

    def enough(size: int) -> bool:
        return drop_holds(math.ceil(worse * size / n), better * size // n, size, ceiling)

    return _smallest(enough, n)


def _smallest_by_normal_law(differing: float, distance: float) -> int:
    """How many pairs, of which the share `differing` differs, bound a drop to within `distance`; a tenth more for an exact bound."""
    return math.ceil(1.1 * _NORMAL_95**2 * differing / distance**2)


def _drop_ceiling(worse: int, better: int, n: int, confidence: float) -> float:
    alpha, seen = 1 - confidence, (worse - better) / n
    highest = _most_discordant(worse + better, n, alpha)
    if seen >= highest:
        return highest

    def excess(drop: float) -> float:
        return _drop_p(worse, better, n, drop, alpha) - alpha

    root: float = need("scipy.optimize", extra=None, to="bound a drop").brentq(excess, seen, highest, xtol=1e-7)
    return min(highest, root + 1e-7)


def _most_discordant(discordant: int, n: int, alpha: float) -> float:
    return rate_bounds(discordant, n, confidence=1 - alpha * _NUISANCE_SHARE).high


@lru_cache(maxsize=4096)
def _drop_p(worse: int, better: int, n: int, drop: float, alpha: float) -> float:
    """How likely so small a net loss is, were the true drop `drop`, for the worst share of pairs that differ; valid as a p-value."""
    special = _special()
    spent = alpha * _NUISANCE_SHARE
    highest = _most_discordant(worse + better, n, alpha)
    if abs(drop) >= highest:
        return spent if drop > 0 else 1.0
    shares = np.linspace(max(abs(drop), highest * 1e-3), highest, _NUISANCE_POINTS)[:, None]
    spread = 9 * math.sqrt(n * highest) + 9  # beyond it lies less than 1e-12 of the chance
    differing = np.arange(max(0, math.floor(n * float(shares[0, 0]) - spread)), min(n, math.ceil(n * highest + spread)) + 1)
    chances = special.bdtr(differing, n, shares) - np.where(differing > 0, special.bdtr(differing - 1, n, shares), 0)
    lost = (worse - better + differing) // 2  # of so many that differ, at most so many are losses
    up_to = special.bdtr(np.clip(lost, 0, differing), differing, np.clip((1 + drop / shares) / 2, 0, 1))
    tail = np.where(lost >= 0, up_to, 0)
    return min(1.0, float((chances * tail).sum(axis=1).max()) + spent + 1e-12)


# -- means of units --------------------------------------------------------------------------------------------------------------


def net_bounds(net: Counts, *, least: int, most: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact bounds on the mean of whole numbers between `least` and `most`, one an independent unit.

    The mean is the sum over j of P(net >= j) - P(net <= -j); each of them is bounded, and they share the allowed error.

    Args:
        net: int64 [units].
        least, most: known beforehand, and not from `net`; `least` is 0 where a unit cannot be negative.
    """
    layers = max(most, -least)
    each = 1 - (1 - confidence) / layers
    low = high = 0.0
    for layer in range(1, layers + 1):
        above, below = int((net >= layer).sum()), int((net <= -layer).sum())
        bounds = drop_bounds(above, below, len(net), confidence=each) if least < 0 else rate_bounds(above, len(net), confidence=each)
        low, high = low + bounds.low, high + bounds.high
    return Interval(low, high)


def clustered_bounds(net: Counts, sizes: Counts, *, signed: bool, confidence: float = CONFIDENCE) -> Interval:
    """Bounds on sum(net) / sum(sizes), where clusters are independent and what is in one of them is not.

    Args:
        net: int64 [clusters], at most `sizes` each, and at least `-sizes` if `signed`, else at least 0.
        sizes: int64 [clusters], how much each cluster counts.
        signed: whether a cluster's `net` may be negative.
    """
    if np.count_nonzero(net) >= UNITS_FOR_BOOTSTRAP and len(np.unique(net / sizes)) > 1:
        return bootstrap_bounds(ratio_of_sums(net, sizes), len(net), confidence=confidence)
    largest = int(sizes.max())
    exact = net_bounds(net, least=-largest if signed else 0, most=largest, confidence=confidence)
    return exact.scaled(len(net) / int(sizes.sum()))


def ratio_of_sums(above: NDArray[Any], below: NDArray[Any]) -> OfDraws:
    """What a cluster bootstrap draws anew: one total over another."""
    return lambda times: (times @ above) / (times @ below)


def bootstrap_bounds(statistic: OfDraws, units: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Bounds by drawing units anew, bias-corrected and accelerated (BCa); the same for the same units, as the draws are seeded.

    Args:
        statistic: of draws, each told as how often every unit is in it: float64 [draws, units] to [draws].
        units: how many there are.

    Returns:
        The statistic itself twice where every draw gives the same: then resampling says nothing, and callers look closer.
    Source: B. Efron, Better bootstrap confidence intervals, JASA 82 (1987); the acceleration is the jackknife's.
    """
    special = _special()
    whole = float(statistic(np.ones((1, units)))[0])
    drawn, left_out = _blockwise(statistic, _draws, RESAMPLES, units), _blockwise(statistic, _without_one, units, units)
    bias = special.ndtri(((drawn < whole).mean() + (drawn <= whole).mean()) / 2)
    pull = left_out.mean() - left_out
    if not math.isfinite(bias) or not pull.any():
        return Interval(whole, whole)
    acceleration = (pull**3).sum() / (6 * np.square(pull).sum() ** 1.5)
    moved = bias + special.ndtri(np.array([1 - confidence, confidence]))
    low, high = (float(np.quantile(drawn, float(share))) for share in special.ndtr(bias + moved / (1 - acceleration * moved)))
    return Interval(low, high)


def _blockwise(statistic: OfDraws, block_of: Callable[[int, int, int], Floats], draws: int, units: int) -> Floats:
    """The statistic of so many draws, of which only a block at a time lies in memory."""
    step = max(1, _BLOCK // units)
    return np.concatenate([statistic(block_of(start, min(start + step, draws), units)) for start in range(0, draws, step)])


@lru_cache(maxsize=2)
def _draws(start: int, end: int, units: int) -> Floats:
    """How often each unit is in each draw from `start` up to `end`: float64 [draws, units]."""
    drawn = np.random.default_rng(start).integers(0, units, (end - start, units))
    drawn += np.arange(end - start)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _without_one(start: int, end: int, units: int) -> Floats:
    """Draws of every unit but one, from the unit `start` up to `end`."""
    return 1 - np.eye(end - start, units, start)


def _special() -> Any:
    return need("scipy.special", extra=None, to="bound what is counted")


def _smallest(holds: Callable[[int], bool], least: int) -> int | None:
    """The smallest n from `least` on at which `holds` is true, found by doubling and halving; None beyond ten million."""
    low, high = least - 1, max(1, least)
    while not holds(high):
        low, high = high, high * 2
        if high > _MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
