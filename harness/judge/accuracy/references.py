"""Judges one reference against another: what the compiler adds to the quantizers' error, and whether FP8 is active at all.

An absolute floor cannot do this: FP8 rounding amplifies tiny differences, so an engine is as far from the fake-quantized encoder as both
are from FP32, and how far that is depends on the weights. All three are ratios of energies of the same rows, so what makes a row hard
cancels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.comparable import require_finite, require_same_inputs
from harness.judge.accuracy.estimates import Claim, Estimate, decided, inconclusive, unsound
from harness.judge.statistics import Floats, Interval, bootstrap_bounds
from harness.records.observations import Embeddings
from harness.records.verdict import Direction, Judgement, Status

ROWS_FOR_BOOTSTRAP = 20  # fewer rows drawn anew say too little about rows that were not seen

# Embeddings are float32, whose rounding alone is 144 dB below a row; a difference below that is none.
_NOTHING = 1e-15


def snr_loss_db(observed: Embeddings, fake_quant: Embeddings, exact: Embeddings, *, ceiling: float) -> Judgement:
    """How much worse the engine's signal-to-noise ratio is than that of the quantizers alone, both against FP32, in dB.

    It isolates the compiler: calibration and rounding of weights cost both the same.

    Raises:
        InvalidMeasurement: the rows are of different inputs, or the fake-quantized encoder is the FP32 one.
    """
    claim = Claim(metric="snr_loss_db", bound=ceiling, direction=Direction.CEILING, unit="dB", decimals=2)
    _require_comparable(observed, fake_quant, exact)
    quantizers = _error(fake_quant, exact)
    if not quantizers.sum():
        raise InvalidMeasurement(
            f"{fake_quant.made_by} equals {exact.made_by} in every row; expected quantizers that round; look whether they are enabled"
        )
    return unsound(claim, observed) or _judged(claim, _error(observed, exact), quantizers, _signal(exact))


def fp8_error_db(observed: Embeddings, half: Embeddings, exact: Embeddings, *, floor: float) -> Judgement:
    """How much further from FP32 the engine is than the FP16 engine, in dB: next to nothing if it fell back to FP16.

    Raises:
        InvalidMeasurement: the rows are of different inputs.
    """
    claim = Claim(metric="fp8_error_db", bound=floor, direction=Direction.FLOOR, unit="dB", decimals=2)
    _require_comparable(observed, half, exact)
    return unsound(claim, observed) or _judged(claim, _error(observed, exact), _error(half, exact), _signal(exact))


def snr_to_fake_quant_db(
    observed: Embeddings, fake_quant: Embeddings, exact: Embeddings, *, margin_db: float, approved_db: float | None = None
) -> Judgement:
    """Signal-to-noise ratio of the engine against the quantizers alone, in dB.

    Its floor is what those leave against FP32, less `margin_db`: an engine is no further from its own plan than the plan from FP32. That is
    a claim about all inputs. On the same inputs as the approved engine it is held to that one's figure too, as it is: what changed the
    engine's inputs or code and not its plan shows there long before it is as large as all that quantization costs.

    Args:
        margin_db: of either.
        approved_db: what the stored baseline has for the same model, recipe and inputs; None where there is none.

    Raises:
        InvalidMeasurement: the rows are of different inputs.
    """
    _require_comparable(observed, fake_quant, exact)
    planned_db = _db(_signal(exact), _error(fake_quant, exact), _signal(exact))
    claim = Claim(metric="snr_to_fake_quant_db", bound=planned_db - margin_db, direction=Direction.FLOOR, unit="dB", decimals=2)
    broken = unsound(claim, observed)
    if broken is not None:
        return broken
    # The floor is an estimate too: both are drawn together, and the interval is shown around the floor that these rows give.
    above = (_signal(fake_quant), _error(fake_quant, exact))
    below = (_error(observed, fake_quant), _signal(exact))
    by_plan = _judged(claim, above, below, _signal(exact), shown_from_db=planned_db)
    return by_plan if approved_db is None else _held_to_approved(by_plan, approved_db, margin_db)


def _held_to_approved(by_plan: Judgement, approved_db: float, margin_db: float) -> Judgement:
    floor_db, seen_db = approved_db - margin_db, by_plan.observed
    if by_plan.status is Status.FAIL or seen_db is None or seen_db >= floor_db:
        return by_plan
    words = f"{seen_db:.2f} dB; the approved engine had {approved_db:.2f} dB on the same inputs, and {margin_db:g} dB less are allowed"
    return replace(by_plan, status=Status.FAIL, bound=floor_db, reason=words)


def _judged(
    claim: Claim, above: Floats | tuple[Floats, ...], below: Floats | tuple[Floats, ...], signal: Floats, *, shown_from_db: float = 0.0
) -> Judgement:
    """The ratio in dB of the products of `above` and of `below`, energies by row."""
    tops = above if isinstance(above, tuple) else (above,)
    bottoms = below if isinstance(below, tuple) else (below,)
    least = float(signal.sum()) * _NOTHING / len(signal)

    parts = np.stack([*tops, *bottoms], axis=1)
    signs = np.repeat([1.0, -1.0], [len(tops), len(bottoms)])

    def ratio_db(times: Floats) -> Floats:
        means = (times @ parts) / times.sum(axis=1, keepdims=True)
        return 10 * (np.log10(means + least) @ signs)

    rows = len(signal)
    observed = float(ratio_db(np.ones((1, rows)))[0]) + shown_from_db
    drawn = bootstrap_bounds(ratio_db, rows)
    interval = Interval(drawn.low + shown_from_db, drawn.high + shown_from_db)
    seen = Estimate(observed=observed, interval=interval, n=rows)
    if rows < ROWS_FOR_BOOTSTRAP:
        return inconclusive(claim, seen, f"{rows} rows; expected at least {ROWS_FOR_BOOTSTRAP}")
    return decided(claim, seen, lambda: samples_to_narrow(seen, claim.bound))


def samples_to_narrow(seen: Estimate, bound: float) -> int | None:
    """About how many samples would move the near end of the interval past the bound: its width falls with the root of their number."""
    distance = abs(bound - seen.observed)
    width = max(seen.observed - seen.interval.low, seen.interval.high - seen.observed)
    return math.ceil(seen.n * (width / distance) ** 2) if distance else None


def _require_comparable(observed: Embeddings, reference: Embeddings, exact: Embeddings) -> None:
    for one in (observed, reference):
        require_same_inputs(one, exact)
    for one in (reference, exact):
        require_finite(one)
    if not _signal(exact).sum():
        raise InvalidMeasurement(
            f"the {len(exact.ids)} rows of {exact.made_by} are all alike, so nothing tells them apart; give more inputs"
        )


def _error(observed: Embeddings, reference: Embeddings) -> Floats:
    """float64 [n]: squared distance of each row from its reference, both of norm 1."""
    return np.square(observed.unit_rows.astype(np.float64) - reference.unit_rows).sum(axis=1)


def _signal(reference: Embeddings) -> Floats:
    """float64 [n]: squared distance of each row from the mean row."""
    rows = reference.unit_rows.astype(np.float64)
    return np.square(rows - rows.mean(axis=0)).sum(axis=1)


def _db(above: Floats, below: Floats, signal: Floats) -> float:
    least = float(signal.sum()) * _NOTHING
    return 10 * math.log10((float(above.sum()) + least) / (float(below.sum()) + least))
