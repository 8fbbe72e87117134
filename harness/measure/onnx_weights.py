"""Looks at stored weights, a piece at a time, where the bytes lie."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.need import need
from harness.records.graph import OnnxConstant, RoundTrip, WeightStatistics

_PIECE = 1 << 18  # elements: a piece and what is computed of it stay in a core's cache
_SMALLEST_NORMAL = 2.0**-6  # of E4M3
_LARGEST = 448.0  # of E4M3
_CODES = frozenset({"FLOAT8E4M3FN"})
_FLOATS = {"FLOAT16": np.float16, "FLOAT": np.float32, "DOUBLE": np.float64}


def weight_statistics(constant: OnnxConstant) -> WeightStatistics | None:
    """What the codes of an FP8 weight say; None when it is of another type, or not stored as plain bytes."""
    if constant.dtype not in _CODES or constant.span is None or not constant.elements:
        return None
    codes = _stored(constant, np.uint8)
    counts = sum((np.bincount(codes[start : start + _PIECE], minlength=256) for start in range(0, len(codes), _PIECE)), np.zeros(256, int))
    magnitudes = np.abs(_table())
    seen = magnitudes[(counts > 0) & np.isfinite(magnitudes)]
    return WeightStatistics(
        largest_code=float(seen.max(initial=0.0)),
        nan_codes=int(counts[np.isnan(magnitudes)].sum()),
        clipped=float(counts[magnitudes == _LARGEST].sum() / len(codes)),
        zeroed=float(counts[magnitudes == 0].sum() / len(codes)),
    )


def round_trip(constant: OnnxConstant, scale: NDArray[np.generic], axis: int, original: OnnxConstant) -> RoundTrip | None:
    """A stored FP8 weight times its scale, beside the float weight it was made of.

    Args:
        constant: FP8, of any shape.
        scale: one number, or one for each index along `axis`.
        axis: of `constant`.
        original: of the same shape, or of the transposed one.

    Returns:
        None when one of the two is of another type or shape, or not stored as plain bytes.
    """
    is_transposed = original.shape != constant.shape
    if constant.dtype not in _CODES or original.dtype not in _FLOATS or constant.span is None or original.span is None:
        return None
    if is_transposed and original.shape != constant.shape[::-1]:
        return None
    codes = _stored(constant, np.uint8).reshape(constant.shape)
    floats = _stored(original, _FLOATS[original.dtype]).reshape(original.shape)
    return _compared(codes, _along(scale, axis, constant.shape), floats.T if is_transposed else floats)


def float_weight(constant: OnnxConstant, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """A stored float weight as an array of `shape`, or None when it is of another type or shape, or not stored as plain bytes.

    Args:
        constant: of that shape, or of the transposed one.
    """
    if constant.dtype not in _FLOATS or constant.span is None or shape not in (constant.shape, constant.shape[::-1]):
        return None
    stored = _stored(constant, _FLOATS[constant.dtype]).reshape(constant.shape)
    return stored if constant.shape == shape else stored.T


def float_digest(constant: OnnxConstant) -> str | None:
    """sha256 of a float constant's shape and numbers, rounded to FP16; None when it is of another type, or large and not in plain bytes.

    What an exporter keeps in FP32 beside a graph in FP16 is the same number for all that quantization has to do with it.
    """
    if constant.dtype not in _FLOATS or (constant.span is None and constant.value is None):
        return None
    digest = hashlib.sha256(repr(constant.shape).encode())
    stored = _stored(constant, _FLOATS[constant.dtype]) if constant.span else np.asarray(constant.value).reshape(-1)
    for start in range(0, len(stored), _PIECE):
        with np.errstate(over="ignore"):
            digest.update(stored[start : start + _PIECE].astype(np.float16).tobytes())
    return digest.hexdigest()


def _compared(codes: NDArray[np.uint8], scales: NDArray[np.float32], floats: NDArray[Any]) -> RoundTrip:
    table = _table()
    dot = square = original_square = worst = 0.0
    for rows in _pieces(codes.shape):
        exact = floats[rows].astype(np.float32)
        scale = scales[rows] if scales.shape and scales.shape[0] > 1 else scales
        rounded = table[codes[rows]] * scale
        dot += float(np.vdot(exact, rounded))
        square += float(np.vdot(rounded, rounded))
        original_square += float(np.vdot(exact, exact))
        error = np.abs(rounded - exact) / np.maximum(np.abs(exact), scale * np.float32(_SMALLEST_NORMAL))
        worst = max(worst, float(error.max())) if np.isfinite(error).all() else math.inf
    length = math.sqrt(square) * math.sqrt(original_square) if math.isfinite(square * original_square) else 0.0
    return RoundTrip(cosine=dot / length if length else 0.0, max_relative_error=worst)


def _pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices along the first axis, each of about `_PIECE` elements."""
    rows = max(1, _PIECE * shape[0] // max(1, math.prod(shape))) if shape else 1
    for start in range(0, shape[0] if shape else 1, rows):
        yield slice(start, start + rows)


def _along(scale: NDArray[np.generic], axis: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The scale, shaped so that it multiplies a weight of `shape`."""
    flat = np.asarray(scale, np.float32).reshape(-1)
    if len(flat) == 1:
        return flat[0].reshape(())
    return flat.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])


def _stored(constant: OnnxConstant, dtype: Any) -> NDArray[Any]:
    """The constant's elements in one row, mapped from its file."""
    assert constant.span is not None  # callers ask first
    return np.memmap(constant.span.path, dtype, "r", constant.span.offset, (constant.elements,))


def _table() -> NDArray[np.float32]:
    """float32 [256]: the number each E4M3 code stands for."""
    ml_dtypes = need("ml_dtypes", extra=None, to="read FP8 weights")
    return np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
