"""What one run did and found: the content of `run.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.records.artifacts import Repair
from harness.records.machine import Machine
from harness.records.spec import BuildOptions
from harness.records.verdict import NotRun, Status, Suite, Verdict

RUN_SCHEMA = "enginegate/run/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """One engine of a run. None is a figure that this backend does not say.

    Attributes:
        weights: origin of the weights, free of paths.
        weights_bytes: what the compiler says it keeps on the device, in bytes.
        plan_bytes: size of the engine file, in bytes.
        build_host_bytes: host memory that the build took at most, in bytes, when it was made.
        cache: whether this run found it built; None for a backend that builds nothing.
        layer_table: file in the run directory, with `/` between parts.
        graph: likewise, with what the nodes of its ONNX file are; None where it has no layer table, or in runs of older versions.
        repairs: what had to be mended after the vendor's export.
        device: GPU that a backend on a GPU built it on and for.
        options: what its builder was asked beside the graph.
        profile_bytes: activations of each of its optimization profiles, where its library says so.
        notes: what whoever reads a figure of it should know of its build.
    """

    encoder: str
    recipe: str
    backend: str
    backend_version: str
    target: str | None
    batch: str
    weights: str
    weights_bytes: int | None
    plan_bytes: int | None
    activation_bytes: int | None
    onnx_bytes: int | None
    onnx_sha256: str | None
    build_seconds: float | None
    cache: Literal["hit", "miss"] | None
    layer_table: str | None
    repairs: tuple[Repair, ...] = ()
    graph: str | None = None
    build_host_bytes: int | None = None
    device: str | None = None
    options: BuildOptions = field(default_factory=BuildOptions)
    profile_bytes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFinding:
    """Something worth knowing that is no gate. `check` is the metric or check that saw it."""

    suite: Suite
    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    check: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        started, finished: ISO 8601, in UTC.
        command: the arguments, the program first.
        exit_code: of the command, also where pytest itself exits with another.
        outcome: the verdict of the whole run; None when there was none to give.
    """

    started: str
    finished: str
    command: tuple[str, ...]
    exit_code: int
    outcome: Status | None
    machine: Machine
    engines: tuple[EngineRow, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    reports: tuple[ReportFinding, ...] = ()
    schema: Literal["enginegate/run/1"] = "enginegate/run/1"
