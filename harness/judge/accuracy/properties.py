"""Judges what must hold of an engine whatever its inputs are: rows that should be alike, that should be finite, calls that should fail.

Where a property holds exactly it is asserted exactly. Where kernels may round otherwise, a distance is told in units of the engine's
own error (`own_error`): the largest distance from FP32 that it has on the evaluation rows. A rounding that fell otherwise stays below
that; a row that its neighbours reach does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement
from harness.records.observations import Embeddings
from harness.records.verdict import Direction, Judgement, Status

Rows = NDArray[np.floating]

FP16_DISTANCE = math.sqrt(2 * (1 - 0.9999))  # between unit rows whose cosine is 0.9999, the least asked of FP16 rows of one engine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Rows that should be alike.

    Attributes:
        seen, wanted: [n, d] each, not normalised, in whatever floating type the engine gives.
        names: what each pair is, for people.
        own_error: the engine's largest distance from FP32 on the evaluation rows (`own_error`); None where bits are compared.
    """

    seen: Rows
    wanted: Rows
    names: tuple[str, ...]
    own_error: float | None = None

    def __post_init__(self) -> None:
        if self.seen.shape != self.wanted.shape or len(self.names) != len(self.seen):
            raise InvalidMeasurement(
                f"rows of shapes {self.seen.shape} and {self.wanted.shape} under {len(self.names)} names were to be compared; "
                "expected pairs of like rows: look at what the engine returns"
            )


def own_error(observed: Embeddings, reference: Embeddings, fake_quant: Embeddings | None) -> float:
    """The largest distance between the unit rows of an engine and of FP32, and no more than arithmetic like the engine's may make.

    A broken engine is far from FP32, and must not be measured by that.

    Args:
        observed, reference: of the engine and of FP32 torch.
        fake_quant: what quantization alone makes of the same inputs, whose largest distance from FP32 is the most; None for FP16, where
            a cosine of 0.9999 is.
    """
    most = FP16_DISTANCE if fake_quant is None else float(_distances(fake_quant.rows, reference.rows).max())
    if observed.rows.shape != reference.rows.shape:
        raise InvalidMeasurement(
            f"{observed.made_by} gave {observed.rows.shape}, {reference.made_by} {reference.rows.shape}; expected equal shapes"
        )
    return float(np.fmin(most, _distances(observed.rows, reference.rows).max()))


def same_bits(metric: str, pairs: Pairs) -> Judgement | None:
    """Every pair is equal, bit for bit. None when there is no pair."""
    differing = [name for name, one, other in _each(pairs) if one.tobytes() != other.tobytes()]
    return _counted(metric, differing, len(pairs.names), "differ in bits", unit="rows")


def near(metric: str, pairs: Pairs, *, ceiling: float) -> Judgement | None:
    """The largest distance between the unit rows of a pair, in units of the engine's own error. None when there is no pair."""
    if not pairs.names:
        return None
    distances = _distances(pairs.seen, pairs.wanted)
    worst = int(np.argmax(np.nan_to_num(distances, nan=np.inf)))
    return _ceiling(metric, _in_units(float(distances[worst]), pairs.own_error), ceiling, pairs, worst, unit="own error")


def stays_finite(metric: str, rows: Rows, names: Sequence[str]) -> Judgement | None:
    """Rows of finite inputs are finite. None when there is no row."""
    broken = [name for name, row in zip(names, rows, strict=True) if not np.isfinite(row).all()]
    return _counted(metric, broken, len(names), "are not finite", unit="rows")


def as_promised(metric: str, outcomes: Mapping[str, str | None], *, note: str = "") -> Judgement:
    """Every call went as it should.

    Args:
        outcomes: each call in words, with what was wrong with it; None for nothing.
        note: what was left out, told beside a PASS.
    """
    wrong = [f"{call}: {problem}" for call, problem in outcomes.items() if problem is not None]
    return Judgement(
        metric=metric,
        status=Status.FAIL if wrong else Status.PASS,
        observed=len(wrong),
        bound=0,
        unit="calls",
        direction=Direction.EQUAL,
        n=len(outcomes),
        reason="; ".join(wrong) if wrong else note,
    )


def merged(judgements: Sequence[Judgement]) -> Judgement:
    """Judgements of one metric over several examples as one: the worst, over all their rows.

    Raises:
        InvalidMeasurement: there is none, so nothing was shown.
    """
    if not judgements:
        raise InvalidMeasurement("no example showed this property, so nothing was judged; give the engine a wider --batch")
    worst = max(judgements, key=_badness)
    return replace(worst, n=sum(one.n for one in judgements))


def _badness(judgement: Judgement) -> tuple[bool, float]:
    return judgement.status is not Status.PASS, np.inf if judgement.observed is None else abs(judgement.observed)


def _each(pairs: Pairs) -> zip[tuple[str, Rows, Rows]]:
    return zip(pairs.names, pairs.seen, pairs.wanted, strict=True)


def _distances(one: Rows, other: Rows) -> NDArray[np.float64]:
    return np.linalg.norm(_unit(one) - _unit(other), axis=1)


def _unit(rows: Rows) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        return wide / np.where(norms == 0, 1, norms)


def _in_units(distance: float, error: float | None) -> float | None:
    """None for what no ceiling admits: a distance that is not finite, or one of an engine that makes no error at all."""
    if distance == 0:
        return 0.0
    return distance / error if error and np.isfinite(distance) else None


def _counted(metric: str, broken: list[str], total: int, words: str, *, unit: str) -> Judgement | None:
    if not total:
        return None
    reason = f"{len(broken)} of {total} rows {words}, first {broken[0]}" if broken else ""
    return Judgement(
        metric=metric,
        status=Status.FAIL if broken else Status.PASS,
        observed=len(broken),
        bound=0,
        unit=unit,
        direction=Direction.EQUAL,
        n=total,
        reason=reason,
    )


def _ceiling(metric: str, observed: float | None, ceiling: float, pairs: Pairs, worst: int, *, unit: str) -> Judgement:
    passes = observed is not None and observed <= ceiling
    return Judgement(
        metric=metric,
        status=Status.PASS if passes else Status.FAIL,
        observed=observed,
        bound=ceiling,
        unit=unit,
        direction=Direction.CEILING,
        n=len(pairs.names),
        reason="" if passes else f"worst {pairs.names[worst]}" + ("; it is not finite" if observed is None else ""),
    )
