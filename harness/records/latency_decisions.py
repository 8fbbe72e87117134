"""What the `enginegate baseline` commands answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.records.latency import LatencyJudgement
from harness.records.latency_baseline import LatencyBaseline, LatencyKey, TimedEngine
from harness.records.verdict import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """One record of a chain.

    Attributes:
        digest: of the record, by which the next one names it.
        is_latest: whether new engines are timed beside this one.
        is_anchor: whether slow-downs are counted from this one in the long run.
        blob: whether its engine can be had: `present`, or in words why not. The content is looked at when it is used.
    """

    record: LatencyBaseline
    digest: str
    is_latest: bool
    is_anchor: bool
    blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineList:
    """Chains of latency baselines, each from its first record to its latest, and files that ask for approval."""

    chains: tuple[tuple[ChainLink, ...], ...]
    pending: Mapping[str, TimedEngine] = field(default_factory=dict[str, TimedEngine])
    schema: Literal["enginegate/baseline-list/1"] = "enginegate/baseline-list/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One figure of the approved record beside that of the pending one. None is what is unknown."""

    name: str
    approved: float | str | None
    pending: float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineDiff:
    """What a pending record would change. Times of two sessions are shown side by side and prove nothing.

    Attributes:
        differences: what is otherwise in the nearest keys, where this key has no record.
    """

    key: LatencyKey
    is_first: bool
    moved: tuple[Moved, ...]
    differences: tuple[tuple[str, ...], ...] = ()
    schema: Literal["enginegate/baseline-diff/1"] = "enginegate/baseline-diff/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineDecision:
    """What became of a pending record.

    Attributes:
        status: PASS when it was approved or rejected as asked; else what the judge says that it failed by.
        file: where the record, or the rejected one, is now; None where nothing was written.
        beside: the engine beside that of the previous record, and beside the anchor's, timed now; empty where there is none yet.
        lost: which of these two the store has lost, and why the engine was approved without being timed beside it.
    """

    status: Status
    verb: Literal["accept", "reject"]
    reason: str
    key: LatencyKey
    file: str | None = None
    beside: Mapping[str, LatencyJudgement] = field(default_factory=dict[str, LatencyJudgement])
    lost: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: Literal["enginegate/baseline-decision/1"] = "enginegate/baseline-decision/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineTrim:
    """Chains that nothing asks for. `is_removed`: whether they are gone, or were only named."""

    removed: tuple[LatencyKey, ...]
    is_removed: bool
    schema: Literal["enginegate/baseline-trim/1"] = "enginegate/baseline-trim/1"
