"""What a report on prepared encoders holds: a line an engine, and what all lines have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from harness.errors import EnginegateError
from harness.records.explanation import Explanation
from harness.records.latency import LatencyJudgement
from harness.records.machine import Machine
from harness.records.run import EngineRow
from harness.records.spec import Recipe
from harness.records.verdict import Judgement

GPU_REPORT_SCHEMA = "enginegate/gpu-report/1"
LINE_SCHEMA = "enginegate/gpu-report-line/1"


class Stage(StrEnum):
    """What is done for a line, in this order."""

    BUILD = "build"
    GRAPH = "graph"  # bytes, layers, and what became of the graph's nodes
    ACCURACY = "accuracy"
    HOT = "hot"  # latency with the caches as the launch before left them
    COLD = "cold"  # latency with emptied caches
    PROFILE = "profile"  # where the time goes, layer by layer, beside the FP16 engine


_OF_QUANTIZED = frozenset({Stage.COLD, Stage.PROFILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Why a stage gave nothing: the code of the error, and its words."""

    stage: Stage
    code: str
    message: str

    @classmethod
    def of(cls, stage: Stage, error: EnginegateError) -> Event:
        """What an error says."""
        return cls(stage=stage, code=error.code, message=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Launches beside the FP16 engine of the same encoder and batch; those of an FP16 engine are beside itself.

    Attributes:
        samples: file in the report's folder, for `judge-latency`.
        guard: what watched the clocks, and what it saw.
        launches: how engines were launched, by whose clock they were timed, and whether the GPU's clocks were locked.
    """

    judgement: LatencyJudgement
    samples: str
    guard: str
    launches: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLine:
    """One engine: an encoder, a recipe and a batch that cannot change.

    Attributes:
        is_refilled: whether its weights are random ones, so that accuracy is not judged.
        engine: None where it was not built or nobody looked at it.
        layers: rows of its layer table; None where its backend keeps none.
        graph, accuracy, benchmark: what was judged, by suite.
        layer_source: file in the report's folder that its layer table was read from.
        timed: by the state of the caches, `hot` or `cold`.
        gain: where the time of the FP16 engine (A) and of this one (B) goes; the parts that differ most, and without places by work.
        done: stages that are over, with a result, an event, or nothing to do.
    """

    encoder: str
    weights: str
    recipe: Recipe
    batch: int
    is_refilled: bool
    engine: EngineRow | None = None
    layers: int | None = None
    graph: tuple[Judgement, ...] = ()
    accuracy: tuple[Judgement, ...] = ()
    benchmark: tuple[Judgement, ...] = ()
    layer_source: str | None = None
    timed: Mapping[str, Timed] = field(default_factory=dict[str, Timed])
    gain: Explanation | None = None
    events: tuple[Event, ...] = ()
    done: tuple[Stage, ...] = ()
    schema: Literal["enginegate/gpu-report-line/1"] = "enginegate/gpu-report-line/1"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do: an engine that could not be built is as complete as it gets."""
        return set(self.stages) <= set(self.done) or self.was_refused

    @property
    def was_refused(self) -> bool:
        """Whether its build gave no engine."""
        return any(event.stage is Stage.BUILD for event in self.events)

    @property
    def is_built(self) -> bool:
        """Whether its build gave an engine."""
        return Stage.BUILD in self.done and not self.was_refused

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is to be done for it; the FP16 engine is timed beside itself, hot, and profiled beside each quantized one."""
        return tuple(Stage) if self.recipe.is_quantized else tuple(stage for stage in Stage if stage not in _OF_QUANTIZED)

    def after(self, stage: Stage, *events: Event) -> ReportLine:
        """The line once `stage` is over."""
        return replace(self, done=(*self.done, stage), events=(*self.events, *events))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAbout:
    """What all lines of a report share; lines of another release, GPU or folder belong in another report.

    Attributes:
        prepared: sha256 of the prepared folder's manifest.
        device: the GPU that engines are bound to; None for a backend that is bound to none.
        started: ISO 8601, in UTC.
    """

    prepared: str
    backend: str
    backend_version: str
    device: str | None
    machine: Machine
    started: str
    schema: Literal["enginegate/gpu-report/1"] = "enginegate/gpu-report/1"
