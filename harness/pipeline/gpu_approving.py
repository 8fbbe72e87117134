"""What engines of a report are held to: figures that were approved, or, where somebody asked for it, that are stored now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.measure.machine import this_machine
from harness.pipeline.approving import Approvals
from harness.pipeline.settling import settled
from harness.records.baseline import BaselineMode
from harness.records.verdict import Judgement

if TYPE_CHECKING:
    from harness.pipeline.seeing import Pipeline
    from harness.records.policy import GatePolicy
    from harness.records.spec import EngineSpec
    from harness.records.timing import RatioTiming
    from harness.store.baselines import BaselineStore
    from harness.store.prepared import PreparedFolder


class ReportApprovals(Approvals):
    """The stored figures of this machine's engines. Records say what graph and what timing they come from.

    Args:
        store: where they are.
        is_writing: whether figures that are missing there are stored; none is replaced.
    """

    def __init__(self, pipeline: Pipeline, policy: GatePolicy, store: BaselineStore, prepared: PreparedFolder, *, is_writing: bool) -> None:
        mode = BaselineMode.CREATE if is_writing else BaselineMode.COMPARE
        super().__init__(pipeline, policy, store, mode, lambda engine: self._timed[engine][0])
        self._prepared = prepared
        self._timed: dict[EngineSpec, tuple[RatioTiming, str]] = {}

    def counted(self, judgement: Judgement, engine: EngineSpec) -> Judgement:
        """The judgement as it counts: stored where it may be, waived where somebody answers for it; see `settled`."""
        return settled(judgement, engine, self._policy, self)

    def note_timing(self, engine: EngineSpec, timing: RatioTiming, words: str) -> None:
        """What an engine's ratio was made of, and how that was seen; it is stored with both."""
        self._timed[engine] = (timing, words)

    def machine_class(self, engine: EngineSpec) -> str:
        """Which machines' figures of it are comparable with this one's."""
        return self._pipeline.baseline_key(engine).machine_class

    def inputs_digest(self, engine: EngineSpec) -> str | None:
        """Of the prepared evaluation inputs of its encoder; None where the folder has none."""
        rows = self._prepared.manifest.rows_of(engine.encoder.name)
        return None if rows is None else rows.digest

    def _inputs_digest(self, engine: EngineSpec) -> str | None:
        return self.inputs_digest(engine)

    def _provenance(self, metric: str, engine: EngineSpec) -> dict[str, str]:
        graph, machine = self._prepared.graph_of(engine.encoder, engine.recipe), this_machine()
        facts = {
            **super()._provenance(metric, engine),
            "made_by": "gpu-report",
            "driver": machine.driver or "none",
            "exported_by": _in_words(graph.made_by),
        }
        if metric == "latency_ratio":
            facts["timed"] = f"both engines in one process; {self._timed[engine][1]}"
        if graph.is_refilled:
            facts["weights"] = (
                f"random numbers from seed {graph.seed} in {len(graph.taken)} large tensors of the export {graph.source_sha256}: "
                "bytes, layers and times count; onnx_sha256 is the refilled file's, so that the export itself is held to margins"
            )
        return facts


def _in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
