"""Says of a latency gate that failed which layers got slower."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.contracts import Capability
from harness.judge.slower_layers import slower_layers
from harness.pipeline.explaining import graph_view
from harness.pipeline.names import backend_of
from harness.pipeline.profiling import Profilable, Profiling, profile_engines
from harness.records.artifacts import EngineArtifact
from harness.records.verdict import Judgement, Status

if TYPE_CHECKING:
    from harness.pipeline.pairing import Pair

# What differs by so much that a gate fails shows in few launches.
_HOW = Profiling(launches=12, turns=4)


def with_slower_layers(judgement: Judgement, pair: Pair, *, rows: int, threads: int | None) -> Judgement:
    """A failed judgement of latency, whose reason also names the three parts that take most longer; any other as it is.

    Both engines are profiled now, in turns and in processes of their own, after all timing. What breaks on the way is said in place of an
    answer, and changes no status.

    Args:
        pair: the engine that it was held against, and the one that failed.
        rows, threads: as they were timed.
    """
    if judgement.status is not Status.FAIL or not all(_tells_layer_times(engine) for engine in pair):
        return judgement
    try:
        found = profile_engines([_profilable(engine) for engine in pair], replace(_HOW, rows=rows, threads=threads))
        words = slower_layers(*found)
    except Exception as error:  # noqa: BLE001 (a gate that failed has failed, and its reason must reach the reader)
        words = f"which layers got slower could not be found: {str(error) or type(error).__name__}"
    return replace(judgement, reason="; ".join(filter(None, (judgement.reason, words))))


def _tells_layer_times(engine: EngineArtifact) -> bool:
    return Capability.LAYER_TIMES in backend_of(engine.spec.backend).capabilities


def _profilable(engine: EngineArtifact) -> Profilable:
    graph = engine.source.path if engine.source is not None else None
    return Profilable(engine=engine, view=graph_view(graph) if graph else None)
