"""Where the time of a report's engine goes, beside its FP16 twin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.contracts import Capability
from harness.errors import EnginegateError
from harness.pipeline.names import backend_of
from harness.pipeline.profiling import Profilable, Profiling, profile_engines
from harness.records.explanation import Explanation
from harness.records.gpu_report import Event, ReportLine, Stage
from harness.records.spec import EngineSpec
from harness.store.gpu_report import ReportFolder

if TYPE_CHECKING:
    from harness.pipeline.seeing import Pipeline

_PARTS = 8  # kept in the line; the profiles hold the rest
_HOW = Profiling(launches=18, warm_up=2)


def with_gain(line: ReportLine, engine: EngineSpec, twin: EngineSpec | None, pipeline: Pipeline, folder: ReportFolder) -> ReportLine:
    """The line with where the time of both engines goes; their profiles are kept in the report's folder, for `enginegate explain`.

    Args:
        twin: the FP16 engine of the same encoder and batch; without one, and where the backend tells no layer times, nothing is done.
    """
    if twin is None or Capability.LAYER_TIMES not in backend_of(engine.backend).capabilities:
        return line.after(Stage.PROFILE)
    try:
        return replace(line, gain=_gain(engine, twin, pipeline, folder)).after(Stage.PROFILE)
    except EnginegateError as error:
        return line.after(Stage.PROFILE, Event.of(Stage.PROFILE, error))


def _gain(engine: EngineSpec, twin: EngineSpec, pipeline: Pipeline, folder: ReportFolder) -> Explanation:
    from harness.judge.gain import explain

    both = [Profilable(engine=pipeline.maker.engine(one), view=pipeline.graph(one.encoder, one.recipe)) for one in (twin, engine)]
    profiles = profile_engines(both, _HOW)
    name = f"{engine.stem}-b{engine.batch.optimum}"
    for side, profile in zip("ab", profiles, strict=True):
        folder.keep_profile(f"{name}-{side}", profile)
    explained = explain(*profiles)
    return replace(explained, parts=explained.parts[:_PARTS], by_place_and_work=())
