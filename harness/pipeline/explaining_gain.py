"""Says where the time of two engines goes, and where it differs: engines profiled now, or profiles that were stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.backends.refusals import require_possible
from harness.contracts import Action, Capability
from harness.errors import UsageError
from harness.pipeline.explaining import graph_view
from harness.pipeline.making import Progress
from harness.pipeline.names import backend_of
from harness.pipeline.profiling import Profilable, Profiling, measure_ceilings, profile_engines
from harness.records.artifacts import EngineArtifact
from harness.records.explanation import Explanation
from harness.records.profile import Ceilings, EngineProfile
from harness.store.atomic import write_atomically
from harness.store.cache import ArtifactCache, CacheMode, default_cache_dir
from harness.store.codec import to_json
from harness.store.left_engine import left_graph_sha256, read_left_engine
from harness.store.profiles import SUFFIX, is_profile, read_profile, write_profile

if TYPE_CHECKING:
    from harness.judge.structure import GraphView

EXPLANATION_FILE, PLOT_FILE = "explanation.json", "explanation.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """What `enginegate explain` was asked.

    Attributes:
        subjects: A and B: engine files of `build --out`, or profiles that an earlier call left.
        graphs: the ONNX files that A and B were built from; None is looked for beside the engine and in the cache.
        with_ceilings: whether to measure what the device reaches, where an engine is profiled.
        out: folder for profiles, explanation and plot; None keeps nothing.
    """

    subjects: tuple[Path, Path]
    graphs: tuple[Path | None, Path | None] = (None, None)
    how: Profiling = field(default_factory=Profiling)
    with_ceilings: bool = True
    out: Path | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """An explanation, and what has to be said beside it."""

    record: Explanation
    notes: tuple[str, ...]

    @property
    def document(self) -> str:
        """JSON, schema `enginegate/explanation/1`, without a last newline."""
        return to_json(self.record).decode().rstrip()

    @property
    def text(self) -> str:
        """For people."""
        from harness.report.explanation import explanation_text

        return explanation_text(self.record)


def explain_gain(asked: Explaining, progress: Progress) -> Explained:
    """Profile what is an engine, read what is a profile, and lay the two side by side.

    Raises:
        UsageError: a file cannot be used, its backend tells no layer times, or an option has no use.
        Broken: a worker or a measurement broke, or a file cannot be written.
    """
    from harness.judge.gain import explain

    if asked.out is not None and asked.out.exists() and not asked.out.is_dir():
        raise UsageError(f"--out names {asked.out}, which is a file; expected a folder for profiles, explanation and plot")
    profiles = _profiles(asked, progress)
    _require_alike(*profiles)
    record = explain(*profiles)
    notes = tuple(_keep(asked, profiles, record)) if asked.out is not None else ()
    return Explained(record=record, notes=notes)


def _profiles(asked: Explaining, progress: Progress) -> tuple[EngineProfile, EngineProfile]:
    """Both; everything that can be refused is, before anything is run."""
    for subject, graph in zip(asked.subjects, asked.graphs, strict=True):
        if is_profile(subject) and graph is not None:
            raise UsageError(f"{subject} is a profile, which holds what its graph said; leave {graph} out")
    stored = [read_profile(subject) if is_profile(subject) else None for subject in asked.subjects]
    engines = [None if is_profile(subject) else _engine(subject) for subject in asked.subjects]
    views = [_graph(asked, place) if engine is not None else None for place, engine in enumerate(engines)]
    to_profile = [
        Profilable(engine=engine, view=view, ceilings=ceilings)
        for engine, view, ceilings in zip(engines, views, _ceilings(asked, engines, progress), strict=True)
        if engine is not None
    ]
    made = iter(())
    if to_profile:
        with progress(f"profiling {' and '.join(one.engine.spec.id for one in to_profile)}"):
            made = iter(profile_engines(to_profile, asked.how))
    first, second = (profile if profile is not None else next(made) for profile in stored)
    return first, second


def _ceilings(asked: Explaining, engines: Sequence[EngineArtifact | None], progress: Progress) -> list[Ceilings | None]:
    """Of each engine's device; those of one backend are measured once."""
    if not asked.with_ceilings:
        return [None] * len(engines)
    measured: dict[str, Ceilings] = {}
    for backend in dict.fromkeys(engine.spec.backend for engine in engines if engine is not None):
        with progress(f"measuring what {backend} reaches here"):
            measured[backend] = measure_ceilings(backend)
    return [None if engine is None else measured[engine.spec.backend] for engine in engines]


def _engine(path: Path) -> EngineArtifact:
    engine = read_left_engine(path)
    backend = backend_of(engine.spec.backend)
    if Capability.LAYER_TIMES not in backend.capabilities:
        raise UsageError(f"{path} is of backend {backend.name}, which tells no layer times; expected tensorrt or onnxruntime")
    require_possible(backend, Action.RUN, engine.spec)
    return engine


def _graph(asked: Explaining, place: int) -> GraphView | None:
    """The graph of an engine: as named, the engine itself where that is ONNX, or by its digest: beside it, or in the cache."""
    subject, named = asked.subjects[place], asked.graphs[place]
    if named is not None:
        return graph_view(named)
    if subject.suffix == ".onnx":
        return graph_view(subject)
    digest = left_graph_sha256(subject)
    if digest is None:
        return None
    cache = ArtifactCache(asked.cache_dir or default_cache_dir(), CacheMode.READONLY)
    beside = subject.with_suffix(".onnx")
    found = beside if beside.is_file() and _sha256(beside) == digest else cache.file_of("onnx", digest)
    return graph_view(found) if found is not None else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_alike(a: EngineProfile, b: EngineProfile) -> None:
    for what, one, other in (("encoders", a.encoder, b.encoder), ("batches", a.times.rows, b.times.rows)):
        if one != other:
            raise UsageError(f"A and B are of two {what}, {one} and {other}; expected one; explain engines of one encoder at one batch")


def _keep(asked: Explaining, profiles: Sequence[EngineProfile], record: Explanation) -> list[str]:
    """Leave profiles, explanation and plot; why there is no plot, in words."""
    from harness.report.explanation_plot import explanation_svg

    assert asked.out is not None  # for the type checker: the caller looked
    for side, subject, profile in zip("ab", asked.subjects, profiles, strict=True):
        stem = subject.name.split(".profile.json")[0] if is_profile(subject) else subject.stem
        path = asked.out / f"{side}-{stem.removeprefix(f'{side}-')}{SUFFIX}"
        if path.absolute() != subject.absolute():
            write_profile(path, profile)
    write_atomically(asked.out / EXPLANATION_FILE, to_json(record))
    plot, why_not = explanation_svg(record)
    if plot is not None:
        write_atomically(asked.out / PLOT_FILE, plot)
    return [f"no plot: {why_not}"] if why_not else []
