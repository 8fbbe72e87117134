"""What an engine needs, in bytes, as its builder or its graph says."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import InvalidMeasurement
from harness.records.artifacts import EngineMemory
from harness.records.graph import OnnxGraph
from harness.records.observations import MemoryReading

_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


_SAYS_NOTHING = EngineMemory()


def read_build_memory(log: Path, plan_bytes: int, said: EngineMemory = _SAYS_NOTHING) -> MemoryReading:
    """What TensorRT says at the end of a build, or what the engine says of itself where it does.

    Args:
        log: the build log; INFO messages suffice.
        plan_bytes: size of the engine file, in bytes.
        said: what the engine says.

    Raises:
        InvalidMeasurement: the log is missing, nobody says either figure, or the log says one twice and differently.
    """
    if said.weights_bytes is not None and said.activation_bytes is not None:
        return MemoryReading(
            weights_bytes=said.weights_bytes, plan_bytes=plan_bytes, activation_bytes=said.activation_bytes, source="engine"
        )
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidMeasurement(f"{log} cannot be read ({error.strerror}); expected a build log; build the engine again") from error
    weights = _figure(_WEIGHTS, text, log) if said.weights_bytes is None else said.weights_bytes
    activations = _figure(_ACTIVATIONS, text, log) if said.activation_bytes is None else said.activation_bytes
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
