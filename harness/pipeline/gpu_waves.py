"""In which order the engines of a report are built and timed, and how long that will take by what was seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from harness.records.spec import BatchProfile, EngineSpec, Recipe

if TYPE_CHECKING:
    from harness.records.prepared import PreparedManifest

# The most wanted first: the reference and the safe default, then the recipe that promises most.
_STEPS = ((Recipe.FP16, Recipe.LINEAR), (Recipe.ATTENTION,))
# An engine is timed beside its FP16 twin, so one alone is no wave.
_SMALLEST_WAVE = 2


def wanted_engines(manifest: PreparedManifest, batches: Sequence[int], backend: str) -> tuple[EngineSpec, ...]:
    """Every engine of a report, the most wanted first: by batch, the largest first, by architecture as the folder lists them, by recipe.

    So an architecture's engines of one batch are together, its FP16 engines before those that are timed beside them.
    """
    archs = list(dict.fromkeys(graph.spec.arch for graph in manifest.graphs))
    engines = [
        EngineSpec(
            encoder=graph.spec,
            recipe=graph.recipe,
            backend=backend,
            batch=BatchProfile(minimum=batch, optimum=batch, maximum=batch),
        )
        for batch in sorted(set(batches), reverse=True)
        for graph in sorted(manifest.graphs, key=lambda graph: list(Recipe).index(graph.recipe))
    ]
    encoders = list(dict.fromkeys(graph.spec.name for graph in manifest.graphs))
    return tuple(
        sorted(
            engines,
            key=lambda one: (-one.batch.optimum, archs.index(one.encoder.arch), _step(one.recipe), encoders.index(one.encoder.name)),
        )
    )


def waves(engines: Sequence[EngineSpec], builders: int) -> tuple[tuple[EngineSpec, ...], ...]:
    """As many engines at a time as there are builders: one wave is built whole, then timed whole, in the same processes."""
    size = max(_SMALLEST_WAVE, builders)
    return tuple(tuple(engines[start : start + size]) for start in range(0, len(engines), size))


def line_name(engine: EngineSpec) -> str:
    """File name of a line: `ViT-B-32-image-linear-b128`."""
    return f"{engine.stem}-b{engine.batch.optimum}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is left will take about so long, by what was seen so far.

    Attributes:
        builders: engines that are built at one time.
        build_s: of every engine that was built, in seconds, beside as many others.
        timing_s: of every engine that was timed, its share of its wave's timing, in seconds.
    """

    builders: int
    build_s: Mapping[EngineSpec, float]
    timing_s: Mapping[EngineSpec, float]

    def wave_s(self, to_build: Sequence[EngineSpec], to_time: Sequence[EngineSpec]) -> float | None:
        """Seconds that a wave takes; None where nothing is known yet."""
        builds = [_like(engine, self.build_s) for engine in to_build]
        timings = [_like(engine, self.timing_s) for engine in to_time]
        known_builds = [seconds for seconds in builds if seconds is not None]
        known_timings = [seconds for seconds in timings if seconds is not None]
        if (builds and not known_builds) or (not builds and timings and not known_timings):
            return None
        rounds = -(-len(builds) // self.builders)
        return max(known_builds, default=0.0) * rounds + sum(known_timings)


def _like(engine: EngineSpec, seen: Mapping[EngineSpec, float]) -> float | None:
    """What it took for engines like this one: of its encoder, else of its architecture, else of any."""
    for alike in (
        lambda other: other.encoder == engine.encoder,
        lambda other: other.encoder.arch == engine.encoder.arch,
        lambda other: True,
    ):
        found = [seconds for other, seconds in seen.items() if alike(other)]
        if found:
            return mean(found)
    return None


def _step(recipe: Recipe) -> int:
    return next((number for number, step in enumerate(_STEPS) if recipe in step), len(_STEPS))
