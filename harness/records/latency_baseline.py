"""An approved engine and how long it took: what a later engine of the same key is timed beside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from statistics import median
from typing import Literal

from harness.errors import UnreadableBaseline
from harness.records.latency import LatencyJudgement, LatencySamples, ProcessBlocks
from harness.records.spec import BatchProfile, BuildOptions, EncoderSpec, EngineSpec, Recipe

LATENCY_BASELINES_SCHEMA = "enginegate/latency-baselines/1"
PENDING_LATENCY_SCHEMA = "enginegate/pending-latency/1"


def folder_of(machine_class: str, arch: str, tower: str, recipe: str) -> PurePosixPath:
    """Where records of such engines lie below the baselines folder, whatever their backend, weights and batch."""
    return PurePosixPath(machine_class, arch.replace("/", "-"), tower, recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyKey:
    """Only engines of one key are timed beside each other; whatever differs is another key, never a nearly equal one.

    Attributes:
        machine_class: part of the path; see `harness.records.machine.class_of`.
        machine: product and compute capability of the GPU, or the make of processor.
        threads: of the host, where a backend computes there.
        driver: of the GPU; None without one.
        weights: origin of the weights, free of paths, as of `BaselineKey`.
        batch: profile, `MIN/OPT/MAX`.
        options: what its builder was asked beside the graph; a timing cache is a file of one machine, and never among it.
        rows: of each launch.
        protocol: id of how launches are timed; see `TimingProtocol.id`.
    """

    machine_class: str
    machine: str
    threads: int
    driver: str | None
    backend: str
    backend_version: str
    arch: str
    tower: str
    recipe: str
    weights: str
    batch: str
    rows: int
    protocol: str
    options: BuildOptions = field(default_factory=BuildOptions)

    def __post_init__(self) -> None:
        if self.recipe not in set(Recipe):
            raise UnreadableBaseline(f"recipe {self.recipe!r} is unknown; expected one of {', '.join(Recipe)}")
        named = (self.machine_class, self.tower, self.backend, self.backend_version)
        if not all(re.fullmatch(r"[\w+-][\w.+-]*", name) for name in named):
            raise UnreadableBaseline(f"{named} name a path; expected plain names, since records lie in folders of them")

    @property
    def path(self) -> PurePosixPath:
        """Where its records lie below the baselines folder; other keys of the same engine share the file."""
        folder = folder_of(self.machine_class, self.arch, self.tower, self.recipe)
        return folder / f"{self.backend}-{self.backend_version}.latency.json"

    @property
    def engine(self) -> EngineSpec:
        """The engine that it is about."""
        return EngineSpec(
            encoder=EncoderSpec.parse(f"{self.arch}/{self.tower}", weights=self.weights),
            recipe=Recipe(self.recipe),
            backend=self.backend,
            batch=BatchProfile.parse(self.batch),
            options=self.options,
        )

    def differences(self, other: LatencyKey) -> tuple[str, ...]:
        """What `other` has otherwise, each as `driver 570.1 (here 580.2)`, where this key is the one that is meant by here."""
        pairs = [(one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self)]
        return tuple(f"{name} {_in_words(theirs)} (here {_in_words(ours)})" for name, ours, theirs in pairs if ours != theirs)


def _in_words(value: object) -> str:
    return value.in_words or "none" if isinstance(value, BuildOptions) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEngine:
    """An engine in the blob store.

    Attributes:
        sha256: of the file, and its name in the store.
        onnx_sha256: of the graph that it was built from; None where that is unknown.
        device: GPU that it is bound to; None for one that is bound to none.
        build: the command that builds such an engine again.
    Raises:
        UnreadableBaseline: the digest is none, and the store would take it for a path.
    """

    sha256: str
    plan_bytes: int | None
    onnx_sha256: str | None
    device: str | None
    build: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise UnreadableBaseline(f"an engine has sha256 {self.sha256!r}; expected 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedEngine:
    """An engine timed beside itself, in fresh processes: how long it took, and what that session could tell apart.

    Attributes:
        blocks: of each process, in time order and in both arms; the one figure of a block is its median, in ms.
        itself: what the judge says of these blocks; anything but an engine as fast as itself, and the session proves nothing.
        about: who measured what and how, for people.
        made_at: ISO 8601, UTC.
    """

    key: LatencyKey
    engine: StoredEngine
    blocks: tuple[ProcessBlocks, ...]
    itself: LatencyJudgement
    made_at: str
    about: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not all(block.ms for process in self.blocks for block in process.blocks) or not any(process.blocks for process in self.blocks):
            raise UnreadableBaseline("it holds no timed block, or an empty one; expected some of each process")

    @property
    def p50_ms(self) -> float:
        """Median over its blocks, in ms."""
        return median(one for process in self.blocks for block in process.blocks for one in block.ms)

    @property
    def samples(self) -> LatencySamples:
        """The blocks, for whoever judges them again."""
        return LatencySamples(processes=self.blocks, about=self.about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Who decided what, when and why. `when` is ISO 8601, UTC."""

    who: str
    when: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Signature):
    """A decision to compare later engines with this one.

    Attributes:
        previous: digest of the record that it follows; None for the first of its key.
        release: name of the release that it stands for; None for what came between two of them.
        beside: what was shown before: the engine beside the one of the `previous` record, and beside that of the `anchor`.
        lost: which of these two it could not be shown beside, since the store had lost that engine; and why it was approved nevertheless.
    """

    previous: str | None = None
    release: str | None = None
    beside: Mapping[str, LatencyJudgement] = field(default_factory=dict[str, LatencyJudgement])
    lost: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBaseline:
    """One approved engine."""

    timed: TimedEngine
    approval: Approval


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBaselineFile:
    """What one file holds. Records of one key follow each other as they were approved; none is ever changed."""

    records: tuple[LatencyBaseline, ...]
    schema: Literal["enginegate/latency-baselines/1"] = LATENCY_BASELINES_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingLatency:
    """An engine that a run asks to have approved. `rejected` is set once somebody said no."""

    timed: TimedEngine
    rejected: Signature | None = None
    schema: Literal["enginegate/pending-latency/1"] = PENDING_LATENCY_SCHEMA


def anchor_of(chain: Sequence[LatencyBaseline]) -> LatencyBaseline | None:
    """What slow-downs are counted from in the long run: the last release; before there is one, the first record. None without any.

    Each engine may be a little slower than the one before it, and ten little slow-downs are one that nobody approved.
    """
    released = [record for record in chain if record.approval.release is not None]
    return released[-1] if released else next(iter(chain), None)
