"""Faults outside the graph: what calibrated it, what it is fed, and what becomes of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from harness.prepare.dataset import inputs_digest
from harness.records.observations import EncoderInputs, Float32Array
from harness.records.spec import Tower
from tests.helpers.accuracy_faults.fault import BATCH, CalibrationFault, Clean, InputFault, Rows, SessionFault

# open_clip's OPENAI_DATASET_MEAN and _STD, which prepare emoji-clip's and ViT-B-32's pictures; and ImageNet's.
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

_Feeds = Mapping[str, Callable[[], Rows]]


def blank_calibration() -> CalibrationFault:
    return CalibrationFault("calibrated on blank pictures, or empty captions", _blank)


def _blank(clean: Clean) -> Mapping[str, Callable[[], EncoderInputs]]:
    if _is_text(clean):
        return {"empty captions": lambda: _calibration(clean, _captions(clean, np.zeros((1, 0), np.int64)))}
    shades = {"white pictures": 1.0, "black pictures": 0.0}
    return {place: partial(_blank_pictures, clean, shade) for place, shade in shades.items()}


def _blank_pictures(clean: Clean, shade: float) -> EncoderInputs:
    pixels = np.full((1, *clean.calibration.rows.shape[1:]), shade, np.float32)
    return _calibration(clean, _normalised(pixels, *OPENAI))


def noise_calibration() -> CalibrationFault:
    return CalibrationFault("calibrated on noise", _noise)


def _noise(clean: Clean) -> Mapping[str, Callable[[], EncoderInputs]]:
    random = np.random.default_rng(0)
    shape = clean.calibration.rows.shape
    if _is_text(clean):
        words = random.integers(1, _marks(clean)[0], (shape[0], shape[1] - 2))
        return {"random tokens": lambda: _calibration(clean, _captions(clean, words))}
    return {
        "normal noise": lambda: _calibration(clean, random.normal(size=shape).astype(np.float16)),
        "uniform pixels": lambda: _calibration(clean, _normalised(random.random(shape, np.float32), *OPENAI)),
    }


def one_sample_calibration() -> CalibrationFault:
    def sets(clean: Clean) -> Mapping[str, Callable[[], EncoderInputs]]:
        rows = clean.calibration.rows
        places = (0, len(rows) // 2, len(rows) - 1)
        return {f"row {place} alone": partial(_calibration, clean, rows[place : place + 1]) for place in places}

    return CalibrationFault("calibrated on one sample", sets)


def wrong_mean() -> InputFault:
    kinds = {"ImageNet's": IMAGENET, "0.5 and 0.5": HALVES, "0 and 1": NOTHING}

    def feeds(clean: Clean) -> _Feeds:
        return {} if _is_text(clean) else {place: partial(_renormalised, clean, *numbers) for place, numbers in kinds.items()}

    return InputFault("pictures normalised by another mean and deviation", feeds)


def _renormalised(clean: Clean, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Rows:
    own_mean, own_deviation = (np.asarray(numbers, np.float32)[:, None, None] for numbers in OPENAI)
    pixels = clean.inputs.rows.astype(np.float32) * own_deviation + own_mean
    return _normalised(pixels, mean, deviation)


def _normalised(pixels: Rows, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Rows:
    centre, width = (np.asarray(numbers, np.float32)[:, None, None] for numbers in (mean, deviation))
    return ((pixels - centre) / width).astype(np.float16)


def swapped_channels() -> InputFault:
    def feeds(clean: Clean) -> _Feeds:
        return {} if _is_text(clean) else {"blue first": lambda: np.ascontiguousarray(clean.inputs.rows[:, ::-1])}

    return InputFault("red and blue swapped", feeds)


def truncated_text() -> InputFault:
    def feeds(clean: Clean) -> _Feeds:
        context = clean.inputs.rows.shape[-1]
        lengths = (context - 1, context // 4)
        return {f"at {length} tokens": partial(_truncated, clean, length) for length in lengths} if _is_text(clean) else {}

    return InputFault("text truncated", feeds)


def _truncated(clean: Clean, length: int) -> Rows:
    """As open_clip's tokenizer truncates: what is too long ends in the mark that ends every text."""
    rows = clean.inputs.rows.copy()
    rows[rows[:, length:].any(axis=1), length - 1] = _marks(clean)[1]
    rows[:, length:] = 0
    return rows


def corrupted_row() -> SessionFault:
    def harms(clean: Clean) -> Mapping[str, Callable[[Float32Array, int], Float32Array]]:
        batch = min(BATCH, len(clean.inputs))
        return {
            f"row {row} {how}": partial(_harmed, row=row, harm=harm) for row in (0, batch // 2, batch - 1) for how, harm in _HARMS.items()
        }

    return SessionFault("one row of a batch corrupted", harms)


def _harmed(rows: Float32Array, start: int, *, row: int, harm: Callable[[Float32Array, int], Float32Array]) -> Float32Array:
    """Only the first batch is harmed: one row of all."""
    if start:
        return rows
    harmed = rows.copy()
    harmed[row] = harm(rows, row)
    return harmed


_HARMS: Mapping[str, Callable[[Float32Array, int], Float32Array]] = {
    "is its neighbour's": lambda rows, row: rows[row - 1],
    "is half its neighbour's": lambda rows, row: rows[row] / 2 + rows[row - 1] / 2,
    "is zero": lambda rows, row: np.zeros_like(rows[row]),
    "is not a number": lambda rows, row: np.full_like(rows[row], np.nan),
}


def _is_text(clean: Clean) -> bool:
    return clean.engine.encoder.tower is Tower.TEXT


def _marks(clean: Clean) -> tuple[int, int]:
    """The tokens that begin and end every text. The vocabulary ends with them."""
    first = int(clean.calibration.rows[0, 0])
    return first, int(clean.calibration.rows.max())


def _captions(clean: Clean, words: Rows) -> Rows:
    """Texts of these tokens, int64 [n, any length], between the two marks."""
    first, last = _marks(clean)
    rows = np.zeros((len(words), clean.calibration.rows.shape[1]), np.int64)
    rows[:, 0], rows[:, 1 : words.shape[1] + 1], rows[:, words.shape[1] + 1] = first, words, last
    return rows


def _calibration(clean: Clean, rows: Rows) -> EncoderInputs:
    name = clean.calibration.name
    return EncoderInputs(name=name, rows=rows, ids=tuple(f"row {row}" for row in range(len(rows))), digest=inputs_digest(name, rows))
