"""What a noise study says of a latency judge on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.records.latency import LatencyJudgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Disjoint groups of processes, in order, each judged alone.

    Attributes:
        size: processes of one.
        runs: how many there are.
        slower, passed: how many of them are called slower, and how many pass.
        bounds: exact 95 % bounds of the share that is called slower.
    """

    size: int
    runs: int
    slower: int
    passed: int
    bounds: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """One comparison of a study. Shares are of a launch's time: 0.01 is one percent; None where samples are too broken to say.

    Attributes:
        judgement: of all its processes.
        mean, low, high: slow-down over all processes, and its bounds: above `low` but for a chance of alpha, below `high` but for beta.
        process_spread, group_spread: of processes, and of groups of blocks within one process (median), as standard deviations.
        needed: processes that would see delta, if they spread as these do.
        counted: what smaller judgements would have said.
        readings_apart: how far the clock's readings of one group of blocks lie apart: their median, and at most.
        arms_apart: how far the arms' mean clocks lie apart in one process, at most.
        clocks_with_times: correlation of a group's clocks with its times: near -1 were a reading the clock of its block.
    """

    judgement: LatencyJudgement
    mean: float
    low: float
    high: float
    process_spread: float
    group_spread: float | None
    needed: int | None
    counted: tuple[Counted, ...]
    readings_apart: tuple[float, float] | None
    arms_apart: float | None
    clocks_with_times: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Launches in a row: their median in milliseconds, the spread of their logs, and how alike neighbours are."""

    launches: int
    p50_ms: float
    spread: float
    neighbours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseStudy:
    """A whole study.

    Attributes:
        about: what was timed, where and how, in words.
        noises: by the name of the change, `none` first; None for samples that prove nothing.
        injected: by the same names, the share of a launch that the candidate was made longer by, where that was measured.
        trace: of launches in a row, where somebody took one.
    """

    about: str
    noises: Mapping[str, Noise | None]
    injected: Mapping[str, float] = field(default_factory=dict[str, float])
    trace: Trace | None = None
    schema: Literal["enginegate/noise/1"] = "enginegate/noise/1"
