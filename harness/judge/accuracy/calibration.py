"""Judges what calibration saw by what comes later: a range that it found holds most rows that it did not see.

Of `k` rows alike, a fresh one exceeds the largest magnitude of all of them once in `k` + 1 times. So the share of evaluation rows that
stay within a range says how many rows, and of what kind, it was set by. Calibration on one row, on blank pictures or on noise may cost FP8
less than 2 dB, which no bound on accuracy can tell from chance; here it leaves almost no row inside.
"""

from __future__ import annotations

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.estimates import Claim, Estimate, decided
from harness.judge.statistics import CONFIDENCE, Interval, rate_bounds, samples_at_rate
from harness.records.observations import Embeddings, RangeUse
from harness.records.verdict import Direction, Judgement

# E4M3's largest number is 448 and the one below it 416, so that all up to 464 rounds to it as well as to any other. A range that nearly
# every row fills alike, such as a start token's, is passed by a per cent where FP8 before it rounded otherwise than in calibration.
_HELD = 464 / 448


def calibration_coverage(seen: RangeUse, observed: Embeddings, *, floor: float) -> Judgement:
    """The share of rows that FP8 holds in the calibrated range, in the quantizer where fewest do. No unit, 0 to 1.

    Every quantizer must keep the floor, so that no correction is due for there being many; that the worst one breaks it could be chance,
    so that end of the interval is corrected (Bonferroni).

    Raises:
        InvalidMeasurement: the shares are of other inputs than `observed`, or there are none.
    """
    n, quantizers = seen.shares.shape
    if seen.inputs_digest != observed.inputs_digest or n != len(observed.ids):
        raise InvalidMeasurement(f"the use of ranges was seen on other inputs than {observed.made_by} was; expected the same; run again")
    if not seen.shares.size:
        raise InvalidMeasurement("no row and quantizer to see the use of ranges by; expected at least one of each")
    inside = (seen.shares <= _HELD).sum(axis=0)
    worst = int(inside.argmin())
    kept = int(inside[worst])
    high = rate_bounds(kept, n, confidence=1 - (1 - CONFIDENCE) / quantizers).high
    furthest = float(seen.shares[:, worst].max())
    words = f"{kept} of {n} rows within the range of {seen.quantizers[worst]}, the largest at {furthest:.2f} times it"
    estimate = Estimate(observed=kept / n, interval=Interval(rate_bounds(kept, n).low, high), n=n, words=words)
    claim = Claim(metric="calibration_coverage", bound=floor, direction=Direction.FLOOR)
    return decided(claim, estimate, lambda: samples_at_rate(n - kept, n, floor))
