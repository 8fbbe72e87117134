"""Judges embeddings against a reference made from the same inputs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.comparable import require_finite, require_same_digest, require_same_inputs
from harness.judge.accuracy.estimates import Claim, Estimate, decided, unsound
from harness.judge.statistics import Interval, rank_above, rank_below, samples_at_rate
from harness.records.observations import Embeddings, Float32Array
from harness.records.verdict import Direction, Judgement, Severity, Status

# The smallest of 299 rows is a 95 % lower tolerance bound for the first percentile: 0.99 ** 299 < 0.05. With fewer rows a
# percentile is a name for the minimum.
ROWS_FOR_P01 = 299

_SAME = 1e-6  # distance of two unit rows that float32 cannot tell apart
_OTHER = 1e-3  # and of two that are other rows: a cosine of less than 0.9999995


def finite(observed: Embeddings, reference: Embeddings) -> Judgement:
    """How many rows are sound: float32, finite, of the reference's width, not zero, and equal only where the reference's are.

    An engine that returns one constant vector for all inputs, or for all of a batch, is finite and may have a fair cosine; it is caught
    here.

    Raises:
        InvalidMeasurement: the two were computed from different inputs.
    """
    rows = observed.rows
    require_same_digest(observed, reference)
    unlike = _unlike(rows, reference.rows)
    if unlike:
        return _rows_judgement(observed, 0, unlike)
    if len(rows) > 1 and bool((rows == rows[0]).all()):
        return _rows_judgement(observed, 0, "every row is the same: the engine ignores its input")
    broken = ~np.isfinite(rows).all(axis=1) | (rows == 0).all(axis=1)
    repeated = _repeated(observed, reference) & ~broken
    words = [
        f"{len(where)} rows {what}, first {observed.ids[where[0]]}"
        for where, what in (
            (np.flatnonzero(broken), "are zero or not finite"),
            (np.flatnonzero(repeated), "repeat one of another input, which FP32 tells apart"),
        )
        if len(where)
    ]
    return _rows_judgement(observed, int((~broken & ~repeated).sum()), "; ".join(words))


def cosine_min(observed: Embeddings, reference: Embeddings, *, floor: float) -> Judgement:
    """The cosine of the row that turned furthest from its reference. No unit; 1 is the same direction."""
    cosines = row_cosines(observed, reference)
    worst = int(np.argmin(cosines))
    return _floor_judgement("cosine_min", float(cosines[worst]), floor, len(cosines), unit="", worst=observed.ids[worst])


def cosine_p01(observed: Embeddings, reference: Embeddings, *, floor: float) -> Judgement:
    """The first percentile of the rows' cosines: a gate from 299 rows on, a report below.

    It passes if the row that surely lies no higher than the percentile keeps the floor, and fails if the one that surely lies no lower
    does not. The budget is how many rows may be below the floor.
    """
    cosines = row_cosines(observed, reference)
    n = len(cosines)
    claim = Claim(metric="cosine_p01", bound=floor, direction=Direction.FLOOR)
    broken = unsound(claim, observed)
    if broken is not None:
        return replace(broken, severity=Severity.GATE if n >= ROWS_FOR_P01 else Severity.REPORT)
    order: NDArray[np.intp] = np.argsort(cosines)
    p01 = float(np.quantile(cosines, 0.01, method="lower"))
    below, above = rank_below(n, 0.01), rank_above(n, 0.01)
    if below is None:
        worst = observed.ids[int(order[0])]
        return _floor_judgement("cosine_p01", p01, floor, n, unit="", worst=worst, severity=Severity.REPORT)
    interval = Interval(float(cosines[order[below - 1]]), float(cosines[order[(above or n) - 1]]))
    words = (
        f"row {below} of {n:,} from below, {observed.ids[order[below - 1]]}, bounds the percentile; worst input {observed.ids[order[0]]}"
    )
    seen = Estimate(observed=p01, interval=interval, n=n, budget=below - 1, words=words)
    return decided(claim, seen, lambda: samples_at_rate(int((cosines < floor).sum()), n, 0.99))


def centred_snr_db(
    observed: Embeddings, reference: Embeddings, *, floor: float, approved_db: float | None = None, margin_db: float = 0.0
) -> Judgement:
    """Energy of the reference around its own mean, over the energy of the error, in decibels.

    Subtracting the mean first keeps the measure honest where all embeddings point nearly the same way, as those of untrained
    weights do: raw cosine then measures the mean.

    Args:
        observed, reference: from the same inputs.
        floor: absolute, in dB.
        approved_db: what the stored baseline has for the same model, recipe and inputs; None where there is none.
        margin_db: how far below that it may fall.
    """
    snr_db = snr_of(observed, reference)
    bound = floor if approved_db is None else max(floor, approved_db - margin_db)
    worst = observed.ids[int(np.argmax(np.linalg.norm(observed.unit_rows - reference.unit_rows, axis=1)))]
    return _floor_judgement("centred_snr_db", snr_db, bound, len(observed.ids), unit="dB", worst=worst)


def snr_of(observed: Embeddings, reference: Embeddings) -> float:
    """Centred signal-to-noise ratio in dB; infinite for equal embeddings."""
    require_same_inputs(observed, reference)
    require_finite(reference)
    signal = reference.unit_rows - reference.unit_rows.mean(axis=0)
    noise = observed.unit_rows - reference.unit_rows
    signal_energy = float(np.square(signal, dtype=np.float64).sum())
    noise_energy = float(np.square(noise, dtype=np.float64).sum())
    if not signal_energy:
        raise InvalidMeasurement(
            f"the {len(reference.ids)} reference embeddings are all alike, so nothing tells them apart; give more inputs"
        )
    return 10 * math.log10(signal_energy / noise_energy) if noise_energy else math.inf


def row_cosines(observed: Embeddings, reference: Embeddings) -> Float32Array:
    """float32 [n]: cosine of each row with its reference.

    Raises:
        InvalidMeasurement: the two were computed from different inputs or differ in width, or the reference is not finite.
    """
    require_same_inputs(observed, reference)
    require_finite(reference)
    return np.einsum("nd,nd->n", observed.unit_rows, reference.unit_rows)


def _repeated(observed: Embeddings, reference: Embeddings) -> NDArray[np.bool_]:
    """Which rows have the direction of another row whose reference has a direction of its own."""
    seen, expected = observed.unit_rows.astype(np.float64), reference.unit_rows.astype(np.float64)
    # Rows of one direction have one projection, so sorted by it they are neighbours.
    projected: NDArray[np.float64] = np.einsum("nd,d->n", seen, np.random.default_rng(0).standard_normal(int(seen.shape[1])))
    order: NDArray[np.intp] = np.argsort(projected)
    ones, others = order[:-1], order[1:]
    is_same = np.linalg.norm(seen[ones] - seen[others], axis=1) < _SAME
    repeats = is_same & (np.linalg.norm(expected[ones] - expected[others], axis=1) > _OTHER)
    marked = np.zeros(len(seen), dtype=np.bool_)
    marked[ones[repeats]] = marked[others[repeats]] = True
    return marked


def _unlike(rows: Float32Array, expected: Float32Array) -> str:
    if not len(rows):
        return "there are no rows; expected at least one"
    if rows.dtype != np.float32:
        return f"rows are {rows.dtype}; expected float32, to which whatever an engine gives is converted where it is measured"
    if rows.shape[1] != expected.shape[1]:
        return f"rows are {rows.shape[1]} wide, the reference's {expected.shape[1]}"
    return "" if len(rows) == len(expected) else f"there are {len(rows)} rows, of the reference {len(expected)}"


def _rows_judgement(observed: Embeddings, sound: int, reason: str) -> Judgement:
    total = len(observed.ids)
    return Judgement(
        metric="finite",
        status=Status.PASS if sound == total > 0 else Status.FAIL,
        observed=sound,
        bound=total,
        unit="rows",
        direction=Direction.EQUAL,
        n=total,
        reason=reason,
    )


def _floor_judgement(
    metric: str, value: float, floor: float, n: int, *, unit: str, worst: str, severity: Severity = Severity.GATE
) -> Judgement:
    passes = value >= floor  # False for NaN, so that a broken engine never passes
    shown = value if math.isfinite(value) else None
    return Judgement(
        metric=metric,
        status=Status.PASS if passes else Status.FAIL,
        observed=shown,
        bound=floor,
        unit=unit,
        direction=Direction.FLOOR,
        n=n,
        reason="" if passes else f"worst input {worst}" + ("" if shown is not None else "; the value is not finite"),
        severity=severity,
    )
