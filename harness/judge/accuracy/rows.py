"""Judges embeddings against a reference made from the same inputs."""

from __future__ import annotations

import math

import numpy as np

from harness.errors import InvalidMeasurement
from harness.records.observations import Embeddings, Float32Array
from harness.records.verdict import Direction, Judgement, Severity, Status

# The smallest of 299 rows is a 95 % lower tolerance bound for the first percentile: 0.99 ** 299 < 0.05. With fewer rows a
# percentile is a name for the minimum.
ROWS_FOR_P01 = 299


def finite(observed: Embeddings, reference: Embeddings) -> Judgement:
    """How many rows are sound: finite, of the reference's width, not zero, and not the same as every other row.

    An engine that returns one constant vector for all inputs is finite and has a fair cosine; it is caught here.
    """
    rows = observed.rows
    sound = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
    if rows.shape[1] != reference.rows.shape[1]:
        reason = f"rows are {rows.shape[1]} wide, the reference's {reference.rows.shape[1]}"
        return _rows_judgement(observed, 0, reason)
    if len(rows) > 1 and bool((rows == rows[0]).all()):
        return _rows_judgement(observed, 0, "every row is the same: the engine ignores its input")
    worst = np.flatnonzero(~sound)
    reason = f"{len(worst)} rows are zero or not finite, first {observed.ids[worst[0]]}" if len(worst) else ""
    return _rows_judgement(observed, int(sound.sum()), reason)


def cosine_min(observed: Embeddings, reference: Embeddings, *, floor: float) -> Judgement:
    """The cosine of the row that turned furthest from its reference. No unit; 1 is the same direction."""
    cosines = row_cosines(observed, reference)
    worst = int(np.argmin(cosines))
    return _floor_judgement("cosine_min", float(cosines[worst]), floor, len(cosines), unit="", worst=observed.ids[worst])


def cosine_p01(observed: Embeddings, reference: Embeddings, *, floor: float) -> Judgement:
    """The first percentile of the rows' cosines: a gate from 299 rows on, a report below."""
    cosines = row_cosines(observed, reference)
    p01 = float(np.quantile(cosines, 0.01, method="lower"))
    worst = observed.ids[int(np.argmin(cosines))]
    severity = Severity.GATE if len(cosines) >= ROWS_FOR_P01 else Severity.REPORT
    return _floor_judgement("cosine_p01", p01, floor, len(cosines), unit="", worst=worst, severity=severity)


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
    _require_same_inputs(observed, reference)
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
        InvalidMeasurement: the two were computed from different inputs, or differ in width.
    """
    _require_same_inputs(observed, reference)
    return np.einsum("nd,nd->n", observed.unit_rows, reference.unit_rows)


def _require_same_inputs(observed: Embeddings, reference: Embeddings) -> None:
    if observed.inputs_digest != reference.inputs_digest:
        raise InvalidMeasurement(
            f"{observed.made_by} and {reference.made_by} were computed from different inputs "
            f"({observed.inputs_digest[:12]} and {reference.inputs_digest[:12]}); make both from one set"
        )
    if observed.rows.shape != reference.rows.shape:
        raise InvalidMeasurement(
            f"{observed.made_by} gave {observed.rows.shape}, {reference.made_by} {reference.rows.shape}; expected equal shapes"
        )


def _rows_judgement(observed: Embeddings, sound: int, reason: str) -> Judgement:
    total = len(observed.ids)
    return Judgement(
        metric="finite",
        status=Status.PASS if sound == total else Status.FAIL,
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
