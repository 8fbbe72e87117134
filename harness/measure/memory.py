"""What an engine needs, in bytes, as its builder or its graph says."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import InvalidMeasurement
from harness.records.graph import OnnxGraph
from harness.records.observations import MemoryReading

_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


def read_build_memory(log: Path, plan_bytes: int) -> MemoryReading:
    """What TensorRT says at the end of a build.

    Args:
        log: the build log; INFO messages suffice.
        plan_bytes: size of the engine file, in bytes.

    Raises:
        InvalidMeasurement: the log is missing, says neither figure, or says one twice and differently.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidMeasurement(f"{log} cannot be read ({error.strerror}); expected a build log; build the engine again") from error
    weights, activations = _figure(_WEIGHTS, text, log), _figure(_ACTIVATIONS, text, log)
    if weights is None and activations is None:
        raise InvalidMeasurement(
            f"{log} says nothing of memory; expected 'Total Weights Memory: N bytes'; keep the builder's INFO messages"
        )
    return MemoryReading(weights_bytes=weights, plan_bytes=plan_bytes, activation_bytes=activations, source="build log")


def onnx_memory(graph: OnnxGraph, plan_bytes: int) -> MemoryReading:
    """What an engine needs that is the ONNX file itself: all its constants, as stored. Activations are unknown."""
    return MemoryReading(
        weights_bytes=sum(constant.nbytes for constant in graph.constants.values()),
        plan_bytes=plan_bytes,
        activation_bytes=None,
        source="ONNX constants",
    )


def _figure(pattern: re.Pattern[str], text: str, log: Path) -> int | None:
    found = {int(figure) for figure in pattern.findall(text)}
    if len(found) > 1:
        raise InvalidMeasurement(f"{log} says {sorted(found)} for {pattern.pattern!r}; expected one figure; keep one log a build")
    return next(iter(found), None)
