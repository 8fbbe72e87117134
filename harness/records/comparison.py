"""What two runs have in common and where they differ: the content of `enginegate compare --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.records.verdict import Severity, Status, Suite

COMPARISON_SCHEMA = "enginegate/comparison/1"


class Effect(StrEnum):
    """What a change from A to B means."""

    BETTER = "better"
    WORSE = "worse"  # beyond what the gate file allows, or FP8 or a fusion that is lost
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"  # B does not say what A says


class Aspect(StrEnum):
    """What of an ONNX node changed."""

    TYPE = "type"  # what its layers compute in
    WEIGHTS = "weights"  # what its weights are stored as
    ATTENTION = "attention"  # whether one layer carries the whole attention; told of its Softmax
    QDQ = "qdq"  # whether a Q/DQ node is fused with what is around it
    FUSION = "fusion"  # which other nodes its layer carries


class Presence(StrEnum):
    """Which of the two runs has an engine."""

    BOTH = "both"
    ONLY_A = "only_a"
    ONLY_B = "only_b"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """One ONNX node that the two builds treat unlike.

    Attributes:
        op_type, block: None where neither run says.
        a, b: in words.
        lost, gained: fusion partners; empty for other aspects.
    """

    node: str
    op_type: str | None
    block: int | None
    aspect: Aspect
    effect: Effect
    a: str
    b: str
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureChange:
    """One figure that differs, or that one run does not give.

    Attributes:
        a, b: in `unit`; None where the run does not say.
        reason: the margin or bound that `effect` rests on, or why there is none.
    """

    metric: str
    unit: str
    a: float | None
    b: float | None
    effect: Effect
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """One gate with another status; None: the run did not judge it."""

    suite: Suite
    metric: str
    a: Status | None
    b: Status | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSide:
    """One engine in one of the runs. Figures are None where it does not say.

    Attributes:
        layers: rows of its layer table.
    """

    backend_version: str
    batch: str
    weights: str
    onnx_sha256: str | None
    weights_bytes: int | None
    plan_bytes: int | None
    activation_bytes: int | None
    layers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineComparison:
    """One engine of both runs, or of one.

    Attributes:
        backend: None for gates of the exported graph, before any backend.
        batch: None where the two differ, or neither run left a record of an engine.
        a, b: None where that run left no record of an engine.
        not_compared: what is in both runs and could not be compared, with the reason.
        remarks: what else there is to know.
        compared_nodes: ONNX nodes that both engines' layers were searched for.
    """

    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    batch: str | None
    presence: Presence
    a: EngineSide | None
    b: EngineSide | None
    not_compared: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    compared_nodes: int = 0
    figures: tuple[FigureChange, ...] = ()
    statuses: tuple[StatusChange, ...] = ()
    nodes: tuple[NodeChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonFinding:
    """One reason why B is worse than A, or cannot be told from it.

    Attributes:
        check: `E11` for ONNX nodes, else the metric.
        status: FAIL for worse, INVALID for what B measured wrongly, INCONCLUSIVE for what could not be compared.
        severity: a recipe that is only reported on fails no comparison.
    """

    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    check: str
    status: Status
    severity: Severity
    node: str | None
    block: int | None
    found: str
    expected: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One of the two runs.

    Attributes:
        path: as it was named.
        started: ISO 8601, in UTC.
        backends: name to version, of every engine in the run; several versions of one are joined with a comma.
    """

    path: str
    started: str
    exit_code: int
    outcome: Status | None
    cpu_model: str
    backends: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSummary:
    """The comparison in figures.

    Attributes:
        engines: in both runs; `only_a` and `only_b` in one.
        changed_nodes: ONNX nodes with another type, storage or fusion; a node of two engines counts twice.
        better, worse: figures, gates and nodes that changed so.
        gate, report: findings of each severity.
        outcome: PASS where B is not worse than A.
    """

    engines: int
    only_a: int
    only_b: int
    changed_nodes: int
    better: int
    worse: int
    gate: int
    report: int
    outcome: Status
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs side by side."""

    schema: str
    a: ComparedRun
    b: ComparedRun
    engines: tuple[EngineComparison, ...]
    findings: tuple[ComparisonFinding, ...]
    summary: ComparisonSummary
