"""An engine whose pace was approved: which it is, what was measured, and who approved what when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Literal

from harness.errors import InvalidMeasurement
from harness.records.latency import Arm

LATENCY_BASELINE_SCHEMA = "enginegate/latency-baseline/1"
NO_DEVICE = "none"  # driver and runtime where the processor itself computes


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProtocol:
    """How launches are timed. Two ways to time give two figures, so they are never compared.

    Attributes:
        graph: whether a launch is the replay of a captured graph.
        cache: `hot`: launch upon launch; `cold`: caches are emptied in between.
        block_ms: how long a block is meant to last, in milliseconds.
        duty: share of the time in which the engine works, above 0 to 1.
        estimator: name and version of how times become one log ratio a process.
    """

    graph: bool
    cache: Literal["hot", "cold"]
    block_ms: float
    duty: float
    estimator: str

    def __str__(self) -> str:
        how = "graph" if self.graph else "plain"
        return f"{how} {self.cache} {self.block_ms:g} ms duty {self.duty:g} {self.estimator}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyKey:
    """Only an engine measured under exactly this key is compared.

    What a change may alter on purpose (the ONNX file, the plan) is not in it: a gate that asked for the same graph could never see that
    a new one is slower. Neither is what differs from day to day on one runner (host name, GPU UUID, kernel): that is provenance.

    Attributes:
        machine_class: the GPU's product name and SM, as one word; `cpu-x86_64` for a CPU.
        processor: the GPU's product name with memory, MIG profile, ECC and power limit, or the CPU's model and the threads used.
        driver, runtime: versions; `none` where the processor itself computes.
        weights: origin of the weights, free of paths: `seeded:N`, `sha256:HEX` or a pretrained tag.
        batch: profile the engine was built for, `MIN/OPT/MAX`.
        rows: of one timed launch.
    """

    machine_class: str
    processor: str
    driver: str
    runtime: str
    arch: str
    tower: str
    recipe: str
    backend: str
    backend_version: str
    weights: str
    batch: str
    rows: int
    protocol: LatencyProtocol

    @property
    def path(self) -> PurePosixPath:
        """Where its record lies below the baselines folder; records that differ in the rest of the key share the file."""
        name = f"{self.backend}-{self.backend_version}.latency.json"
        return PurePosixPath(self.machine_class, self.arch.replace("/", "-"), self.tower, self.recipe, name)

    @property
    def engine(self) -> str:
        """Which engine it is, for people: `ViT-B-32/image linear onnxruntime 1.32.0`."""
        return f"{self.arch}/{self.tower} {self.recipe} {self.backend} {self.backend_version}"

    @property
    def encoder(self) -> str:
        """`ARCH/TOWER`."""
        return f"{self.arch}/{self.tower}"

    def differences(self, other: LatencyKey) -> tuple[str, ...]:
        """What keeps `other` from being compared, each as `driver 580.1 in place of 590.2`: what `other` has comes first."""
        pairs = [(one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self)]
        return tuple(f"{name.replace('_', ' ')} {theirs} in place of {mine}" for name, mine, theirs in pairs if mine != theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEngine:
    """The engine itself, by its content, and what it was made of.

    Attributes:
        sha256, nbytes: of the engine file; under this digest it lies in the blob store.
        onnx_sha256: of the graph it was built from.
        target: `SM90`; None for a backend that does not compile for a GPU.
        versions: distributions that prepared the graph, by name.
    """

    sha256: str
    nbytes: int
    onnx_sha256: str
    target: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMedians:
    """Block medians of one fresh pair of processes, in time order.

    Attributes:
        order: one letter a block: `b` timed the engine compared with, `c` the candidate.
        ms: the median of each block's launches, in milliseconds.
        launches: how many each block had.
        sm_clock_mhz: of each block; empty where nobody read it.
        reasons: what lowered the clocks during each block, `+` between several; empty where nobody read it.
    Raises:
        InvalidMeasurement: lengths that differ.
    """

    order: str
    ms: tuple[float, ...]
    launches: tuple[int, ...]
    sm_clock_mhz: tuple[float, ...] = ()
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        blocks = len(self.order)
        lengths = (len(self.ms), len(self.launches), len(self.sm_clock_mhz) or blocks, len(self.reasons) or blocks)
        if set(self.order) - set("bc") or any(length != blocks for length in lengths):
            raise InvalidMeasurement(
                f"a process has the order {self.order!r} and {lengths} figures; expected one of each a block, of b and c"
            )

    def of(self, arm: Arm) -> tuple[float, ...]:
        """Block medians of one arm, in milliseconds."""
        letter = arm.value[0]
        return tuple(ms for ms, found in zip(self.ms, self.order, strict=True) if found == letter)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """A candidate measured side by side with one other engine.

    Attributes:
        against_sha256: of the engine compared with; the candidate's own for an A/A comparison.
        log_ratios: natural logarithm of candidate / other, one a process pair: the statistical unit.
        baseline_p50_ms, candidate_p50_ms: medians over all blocks, in milliseconds; for people.
        seed: of the order of blocks.
    Raises:
        InvalidMeasurement: another number of log ratios than of processes.
    """

    against_sha256: str
    processes: tuple[ProcessMedians, ...]
    log_ratios: tuple[float, ...]
    baseline_p50_ms: float
    candidate_p50_ms: float
    seed: int | None = None

    def __post_init__(self) -> None:
        if len(self.log_ratios) != len(self.processes):
            raise InvalidMeasurement(f"{len(self.log_ratios)} log ratios of {len(self.processes)} processes; expected one of each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How much slower an approved engine was than the one it replaced, as its samples say.

    Attributes:
        log_ratio: mean over processes of the natural logarithm of new / replaced.
        standard_error: of that mean, of the spread between processes.
        processes: how many carry it.
    """

    log_ratio: float
    standard_error: float
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One link of the chain. Links are only ever appended.

    Attributes:
        when: ISO 8601, in UTC.
        link: where it was discussed; empty where nowhere.
        anchor: the release that this engine was shipped with; later engines are held to it until another is. None for all others.
        engine_sha256: of the approved engine.
        content_sha256: of all that the record held when it was approved, but its approvals.
        previous_sha256: of the chain before this link; None for the first.
        step: from the engine approved before; None for the first, and for a link that only names an anchor.
        waiver: what lifted the bound, in words; empty where nothing had to.
    """

    who: str
    when: str
    reason: str
    engine_sha256: str
    content_sha256: str
    previous_sha256: str | None
    step: Step | None = None
    link: str = ""
    anchor: str | None = None
    waiver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBaseline:
    """One engine under one key, with what it was measured against and who approved it.

    Attributes:
        created: ISO 8601, in UTC.
        writer: version of enginegate that measured it.
        comparisons: of this engine, each with one other. The first record of a key has only the one with itself.
        provenance: what is no part of the key: host, GPU UUID, kernel, commit, command, library versions.
        replaces: digest of the record it was measured against; None where there was none.
        approvals: oldest first; empty while it is pending.
        content_sha256: of all the above but the approvals.
    """

    key: LatencyKey
    engine: StoredEngine
    comparisons: tuple[PairedLatency, ...]
    created: str
    writer: str
    content_sha256: str
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    replaces: str | None = None
    approvals: tuple[Approval, ...] = ()

    @property
    def anchor(self) -> Approval | None:
        """The approval that engines are held to until the next release: the last that names one, else the first of the chain."""
        named = [one for one in self.approvals if one.anchor is not None]
        return named[-1] if named else next(iter(self.approvals), None)

    def against(self, engine_sha256: str) -> PairedLatency | None:
        """The comparison with that engine; None when it was not measured."""
        return next((one for one in self.comparisons if one.against_sha256 == engine_sha256), None)

    @property
    def self_comparison(self) -> PairedLatency | None:
        """The engine against itself, which shows what the measurement makes of no difference."""
        return self.against(self.engine.sha256)


def rebuild_command(record: LatencyBaseline) -> str:
    """The command that builds the engine again, for who has lost the blob."""
    key, target = record.key, f" --target {record.engine.target}" if record.engine.target else ""
    recipe = f"--recipe {key.recipe} --backend {key.backend}{target} --batch {key.batch} --weights {key.weights}"
    return f"enginegate build {key.encoder} {recipe}"
