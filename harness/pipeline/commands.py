"""Commands that messages show, so that whoever copies them in the folder of the run gets what the run had."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from harness.records.artifacts import EngineArtifact
from harness.records.spec import EngineSpec

WITHOUT_LOST_ENGINE = "--without-lost-engine"
_OUT = "engines"  # where the commands that are shown leave what they build


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Options by which a run was told where things are, as they were typed; None is where every command looks by itself.

    Attributes:
        baselines_dir: of records.
        blobs: of engines.
        gate_file: of bounds, and of engines where `blobs` is None.
    """

    baselines_dir: str | None = None
    blobs: str | None = None
    gate_file: str | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type to have the same records, engines and bounds."""
        asked = {f"--{one.name.replace('_', '-')}": getattr(self, one.name) for one in fields(self)}
        return tuple(word for name, value in asked.items() if value is not None for word in (name, value))

    @property
    def arguments_of_engines(self) -> tuple[str, ...]:
        """What to type to have the same engines."""
        return replace(self, baselines_dir=None).arguments


AS_USUAL = Places()


def build_command(engine: EngineSpec) -> str:
    """What to type to build an engine. A timing cache only spares the timing, and is a file of the machine that built it."""
    spec, options = engine.encoder, replace(engine.options, timing_cache=None)
    target = ["--target", engine.target] if engine.target else []
    build = ["enginegate", "build", spec.name, "--weights", spec.weights, "--recipe", str(engine.recipe), "--backend", engine.backend]
    return shlex.join([*build, *target, "--batch", str(engine.batch), *options.arguments, "--out", _OUT])


def bench_command(baseline: str, candidate: EngineArtifact, options: Sequence[str]) -> str:
    """What to type to time a built engine beside another one, a file or a digest."""
    return shlex.join(["enginegate", "bench", baseline, built_file(candidate), *options])


def accept_command(pending: Path, places: Places, *, is_predecessor_lost: bool = False) -> str:
    """What to type to approve the engine of a pending record; reasons are left to whoever types it."""
    lost = [WITHOUT_LOST_ENGINE, "..."] if is_predecessor_lost else []
    return shlex.join(["enginegate", "baseline", "accept", _as_typed(pending), *places.arguments, *lost, "--reason", "..."])


def built_file(engine: EngineArtifact) -> str:
    """The file that `build_command` leaves."""
    assert engine.path is not None  # for the type checker: what has run has a file
    return f"{_OUT}/{engine.spec.stem}{engine.path.suffix}"


def _as_typed(path: Path) -> str:
    """As a person would type it in this folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
