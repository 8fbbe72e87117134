"""Says which stage of a tower is at fault, and which of its quantizers, from the error of each on its own.

Errors add up from block to block, so a curve of the hidden states' SNR falls also behind a fault and in towers without one. A stage's
own error does not: it is given exact tensors, so that another stage's fault reaches neither its input nor its figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median

import numpy as np
from numpy.typing import NDArray

from harness.judge.quantizers import Quantizer
from harness.records.localisation import LeftOut, Localisation, Stage
from harness.records.observations import Float32Array

MOST_DB = 150.0  # no error at all; single precision itself ends at about 140

# What clean stages keep, and how far below that one stands out. Of clean emoji-clip and seeded towers, blocks in FP8 kept 22 to 31 dB,
# in one transformer at most 4.2 below the median of the others, and stages
# in FP16 44 to 73 dB, at most 7.4 below it.
FP8_DB = 25.0
HALF_DB = 55.0
_FP8_GAP_DB = 4.5
_HALF_GAP_DB = 10.0
_ALONE_GAP_DB = 10.0  # where no other block says what is usual
_DEVIATIONS = 3.0
_SIGMA_OF_MAD = 1.4826  # of a normal distribution

BEFORE, AFTER = "before the blocks", "after the blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageErrors:
    """What was measured of one stage. See `Stage`."""

    name: str
    block: int | None
    curve_db: float | None
    own_db: float | None
    quantizers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The suspect's own SNR without one quantizer, in dB; None where something is not finite."""

    quantizer: Quantizer
    own_db: float | None


def own_snr_db(observed: NDArray[np.generic], exact: Float32Array, entering: Float32Array | None) -> float | None:
    """Energy of what a stage adds over the energy of its error, in dB; None where something is not finite.

    What a residual block adds is its output less its input. Held against that, quantization costs nearly the same in every block;
    held against the whole stream, which grows from block to block, the last block of a clean tower looks better than the first.

    Args:
        observed, exact: what comes out, of the same shape.
        entering: what went in; where its shape is another, or there is none, the stage makes all of `exact`.
    """
    added = exact - entering if entering is not None and entering.shape == exact.shape else exact
    return _snr_db(added, observed.astype(np.float32) - exact)


def curve_snr_db(observed: NDArray[np.generic], exact: Float32Array) -> float | None:
    """Energy of the exact tensor around its mean over the first axis, over the energy of the error, in dB; None: not finite."""
    return _snr_db(exact - exact.mean(axis=0), observed.astype(np.float32) - exact)


def _snr_db(signal: Float32Array, noise: Float32Array) -> float | None:
    with np.errstate(over="ignore", invalid="ignore"):
        energy, lost = (float(np.square(part, dtype=np.float64).sum()) for part in (signal, noise))
    if not (math.isfinite(energy) and math.isfinite(lost)):
        return None
    if not lost:
        return MOST_DB
    return min(MOST_DB, 10 * math.log10(energy / lost)) if energy else -MOST_DB


def judged_stages(measured: Sequence[StageErrors]) -> tuple[Stage, ...]:
    """The stages, each with what was to be expected of it and whether it stands out."""
    return tuple(_judged(stage, [other for other in measured if other is not stage]) for stage in measured)


def _judged(stage: StageErrors, others: Sequence[StageErrors]) -> Stage:
    usual = [
        -math.inf if other.own_db is None else other.own_db
        for other in others
        if other.block is not None and bool(other.quantizers) == bool(stage.quantizers)
    ]
    # The head and the stem do other work than blocks, so what half precision keeps is all that is known of them.
    is_known_by_others = bool(usual) and (stage.block is not None or stage.quantizers > 0)
    expected = median(usual) if is_known_by_others else FP8_DB if stage.quantizers else HALF_DB
    expected = expected if math.isfinite(expected) else FP8_DB if stage.quantizers else HALF_DB
    least = _FP8_GAP_DB if stage.quantizers else _HALF_GAP_DB
    gap = _gap_db(usual, least=least) if is_known_by_others else _ALONE_GAP_DB
    return Stage(
        name=stage.name,
        block=stage.block,
        curve_db=stage.curve_db,
        own_db=stage.own_db,
        expected_db=expected,
        quantizers=stage.quantizers,
        stands_out=stage.own_db is None or stage.own_db < expected - gap,
    )


def _gap_db(usual: Sequence[float], *, least: float) -> float:
    """How far below their median a stage stands out from others, by their median absolute deviation."""
    finite = [figure for figure in usual if math.isfinite(figure)]
    if len(finite) < 3:  # of two figures the deviation says nothing
        return least
    middle = median(finite)
    spread = median(abs(figure - middle) for figure in finite)
    return max(least, _DEVIATIONS * _SIGMA_OF_MAD * spread)


def suspect_of(stages: Sequence[Stage]) -> Stage | None:
    """The stage that loses most of those that stand out; None when none does. Of those that give no numbers, the first."""
    return min((stage for stage in stages if stage.stands_out), key=lambda stage: _number(stage.own_db), default=None)


def ranked(suspect: Stage, trials: Sequence[Trial]) -> tuple[LeftOut, ...]:
    """What leaving out each quantizer of the suspect recovers, most first."""
    found = (_left_out(suspect, trial) for trial in trials)
    return tuple(sorted(found, key=lambda left_out: -_number(left_out.own_db)))


def _left_out(suspect: Stage, trial: Trial) -> LeftOut:
    own = trial.own_db
    gain = None if own is None or suspect.own_db is None else own - suspect.own_db
    # Without one quantizer a sound block is a little better than the others: half of what is missing tells a fault from that.
    recovers = own is not None and own >= suspect.expected_db - _gap_left(suspect)
    return LeftOut(
        node=trial.quantizer.node,
        tensor=trial.quantizer.tensor,
        feeds=f"{suspect.name}: {trial.quantizer.feeds}",
        own_db=own,
        recovered_db=gain,
        recovers=recovers,
    )


def _gap_left(suspect: Stage) -> float:
    missing = suspect.expected_db - suspect.own_db if suspect.own_db is not None else math.inf
    return min(_FP8_GAP_DB, missing / 2)


def with_sentence(found: Localisation) -> Localisation:
    """The same, with its sentence."""
    return replace(found, sentence="; ".join(chain(_on_stages(found), _on_quantizers(found), _on_engine(found))))


def in_brief(found: Localisation) -> str:
    """The suspect and its quantizer alone, where the whole sentence has been said before."""
    if found.suspect is None:
        return "no block stands out"
    best = found.left_out[0] if found.left_out else None
    return f"first suspect: {best.feeds if best is not None and best.recovers else found.suspect}"


def _on_stages(found: Localisation) -> list[str]:
    suspect = next((stage for stage in found.stages if stage.name == found.suspect), None)
    blocks = [stage for stage in found.stages if stage.block is not None]
    if suspect is None:
        return [
            f"no block stands out: each on its own keeps {_range(blocks)} of what it adds; look at what they share, such as the "
            "calibration and the recipe"
        ]
    others = [stage for stage in blocks if stage is not suspect]
    beside = f"other blocks {_range(others)}" if others else f"{suspect.expected_db:.0f} dB expected"
    also = [stage.name for stage in found.stages if stage.stands_out and stage is not suspect]
    more = f", and so do {', '.join(also)}" if also else ""
    return [f"first suspect: {suspect.name} (own SNR {_db(suspect.own_db)}, {beside}){more}"]


def _on_quantizers(found: Localisation) -> list[str]:
    if found.suspect is None:
        return []
    if not found.left_out:
        return ["it holds no quantizer, so look at its weights, biases and operators"]
    best = found.left_out[0]
    if best.recovers:
        gain = f"recovers {best.recovered_db:.1f} dB" if best.recovered_db is not None else f"brings it to {_db(best.own_db)}"
        return [f"quantizer {best.node} ({best.feeds}), which alone {gain}"]
    stage = next(stage for stage in found.stages if stage.name == found.suspect)
    together = found.all_left_out_db
    if together is not None and together >= stage.expected_db:
        return [f"no single quantizer recovers it, all {len(found.left_out)} together do ({_db(together)}): several are at fault"]
    return [
        f"none of its {len(found.left_out)} quantizers recovers it, nor do all together ({_db(together)}): the fault is another, such as a "
        "bias, a mask, an activation function or an operator"
    ]


def _on_engine(found: Localisation) -> list[str]:
    """A word where the graph is much better than the engine that was built from it: then the fault is not in the graph."""
    if found.engine_db is None or found.graph_db is None or found.graph_db - found.engine_db < _FP8_GAP_DB:
        return []
    return [
        f"but the graph run by ONNX Runtime keeps {found.graph_db:.1f} dB where the engine keeps {found.engine_db:.1f}: what was built "
        "from it lost the rest"
    ]


def _range(stages: Sequence[Stage]) -> str:
    figures = [stage.own_db for stage in stages if stage.own_db is not None]
    if not figures:
        return "no finite numbers"
    low, high = f"{min(figures):.1f}", f"{max(figures):.1f}"
    return f"{low} dB" if low == high else f"{low} to {high} dB"


def _db(figure: float | None) -> str:
    return "not finite" if figure is None else f"{figure:.1f} dB"


def _number(figure: float | None) -> float:
    return -math.inf if figure is None else figure
