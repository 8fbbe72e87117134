"""What a fault of accuracy is: one kind of harm, done to a clean engine at each of several places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.judge.structure import GraphView
from harness.records.observations import EncoderInputs, Float32Array, RangeUse
from harness.records.spec import BatchProfile, EngineSpec

BATCH = BatchProfile().optimum  # rows; what a gate hands an engine at a time, and so what "one row of a batch" is one of

Rows = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, eq=False)
class Remade:
    """An engine made again with other calibration rows: its graph, what calibration recorded, its fake-quant rows, its use of ranges."""

    model: Any
    amax: Mapping[str, float]
    fake_quant: Float32Array
    range_use: RangeUse


@dataclass(frozen=True, kw_only=True, eq=False)
class Clean:
    """A clean engine, to plant faults in.

    Attributes:
        path: its exported graph; `view` is of it.
        amax: what calibration recorded, by quantizer; empty for FP16.
        calibration: the rows that it was calibrated with.
        remake: makes the engine again with other calibration rows.
    """

    engine: EngineSpec
    path: Path
    view: GraphView
    amax: Mapping[str, float]
    inputs: EncoderInputs
    calibration: EncoderInputs
    remake: Callable[[EncoderInputs], Remade]


def unharmed(rows: Float32Array, start: int) -> Float32Array:
    """Rows of a batch as they come."""
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """An engine as a gate meets it.

    Attributes:
        model: the graph that it is built from, and that graph checks look at.
        amax: what calibration recorded.
        fed: what the engine is given; the references are given the evaluation inputs.
        fake_quant, range_use: of the quantizers alone, where they are not the clean engine's.
        after: what becomes of a batch of embeddings that begins at row `start`.
    """

    model: Any
    amax: Mapping[str, float]
    fed: Rows
    fake_quant: Float32Array | None = None
    range_use: RangeUse | None = None
    after: Callable[[Float32Array, int], Float32Array] = unharmed


class Fault(Protocol):
    """One kind of harm."""

    @property
    def kind(self) -> str: ...

    def places(self, clean: Clean) -> tuple[str, ...]:
        """Where it can be planted in this engine; none where the engine has nothing of the kind to break."""
        ...

    def plant(self, clean: Clean, place: str) -> Subject:
        """The engine, broken there and nowhere else."""
        ...


def unbroken(clean: Clean) -> Subject:
    """The engine as it is, with a graph of its own that may be changed."""
    import onnx

    return Subject(model=onnx.load(clean.path), amax=clean.amax, fed=clean.inputs.rows)


def recalibrated(clean: Clean, made: Remade) -> Subject:
    """The engine, made again."""
    return Subject(model=made.model, amax=made.amax, fed=clean.inputs.rows, fake_quant=made.fake_quant, range_use=made.range_use)


@dataclass(frozen=True)
class InputFault:
    """The engine is fed something else than the references are: by place, what becomes of the inputs."""

    kind: str
    feeds: Callable[[Clean], Mapping[str, Callable[[], Rows]]]

    def places(self, clean: Clean) -> tuple[str, ...]:
        return tuple(self.feeds(clean))

    def plant(self, clean: Clean, place: str) -> Subject:
        return replace(unbroken(clean), fed=self.feeds(clean)[place]())


@dataclass(frozen=True)
class SessionFault:
    """The engine's rows are harmed after it computed them: by place, what becomes of a batch."""

    kind: str
    harms: Callable[[Clean], Mapping[str, Callable[[Float32Array, int], Float32Array]]]

    def places(self, clean: Clean) -> tuple[str, ...]:
        return tuple(self.harms(clean))

    def plant(self, clean: Clean, place: str) -> Subject:
        return replace(unbroken(clean), after=self.harms(clean)[place])


@dataclass(frozen=True)
class CalibrationFault:
    """The scales were set by other rows: by place, which."""

    kind: str
    sets: Callable[[Clean], Mapping[str, Callable[[], EncoderInputs]]]

    def places(self, clean: Clean) -> tuple[str, ...]:
        return tuple(self.sets(clean)) if clean.engine.recipe.is_quantized else ()

    def plant(self, clean: Clean, place: str) -> Subject:
        return recalibrated(clean, clean.remake(self.sets(clean)[place]()))
