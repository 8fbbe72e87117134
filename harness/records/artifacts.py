"""What is made: ONNX files and engines, each with what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.records.spec import EncoderSpec, EngineSpec, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One mended exporter fault.

    Attributes:
        name: the repair, as listed in `harness.prepare.repair`.
        count: how many places it mended.
        detail: what was found and what was done, for people.
    """

    name: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxArtifact:
    """An exported encoder on disk.

    Attributes:
        origin: where the weights come from, free of this machine's paths: `seeded:N`, `sha256:HEX` or a pretrained tag.
        sha256: of the file at `path`.
        nbytes: of the file at `path`, in bytes.
        calibration: digest of the inputs that set the activation scales; None without quantization.
        repairs: what had to be mended after the vendor's export, in order.
        log: the vendor's output during preparation.
        amax: largest magnitude that each quantizer saw while it was calibrated, by its module path; empty without quantization.
    """

    encoder: EncoderSpec
    recipe: Recipe
    origin: str
    path: Path
    sha256: str
    nbytes: int
    opset: int
    calibration: str | None = None
    repairs: tuple[Repair, ...] = ()
    log: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    amax: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """What an engine itself says it needs on the device, in bytes. None is what its library does not say.

    Attributes:
        profile_bytes: activations of each of its optimization profiles; empty where its library does not say.
    """

    weights_bytes: int | None = None
    activation_bytes: int | None = None
    profile_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact:
    """A built engine on disk.

    Attributes:
        source: the ONNX it was built from; None for a backend that runs the checkpoint itself.
        path: the engine file; None for such a backend.
        log: the builder's own log, which holds the layer table where the builder prints one.
        plan_bytes: size of the engine file, in bytes.
        build_seconds: time the build took when it was made, in seconds.
        build_host_bytes: host memory that the build took at most, in bytes; None where nobody looked.
        cache_hit: whether this session found it built.
        layers: what the engine inspector says of it, as JSON; None where the log holds the layer table.
        device: GPU that it was built on and for, in words; None for engines that are not bound to one.
        memory: what the engine itself says it needs.
        notes: what whoever reads a figure of it should know of its build, in words.
    """

    spec: EngineSpec
    source: OnnxArtifact | None
    backend_version: str
    path: Path | None
    sha256: str | None
    plan_bytes: int | None
    build_seconds: float
    log: Path | None = None
    build_host_bytes: int | None = None
    cache_hit: bool = False
    layers: Path | None = None
    device: str | None = None
    memory: EngineMemory = EngineMemory()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltFiles:
    """What a backend's build left in the folder it was given: file names, not paths; and what else is known of the engine.

    Attributes:
        host_bytes: added by who ran the build; see `EngineArtifact.build_host_bytes`.
        layers, device, memory, notes: see `EngineArtifact`.
    """

    engine: str
    log: str | None = None
    host_bytes: int | None = None
    layers: str | None = None
    device: str | None = None
    memory: EngineMemory = EngineMemory()
    notes: tuple[str, ...] = ()
