"""What engines of a report are held to: figures that were approved, or, where somebody asked for it, that are stored now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness.judge.waivers import waived
from harness.measure.machine import this_machine
from harness.records.baseline import Baseline, with_figures
from harness.records.gate_lines import BOUNDED
from harness.records.verdict import Judgement, Severity, Status

if TYPE_CHECKING:
    from harness.pipeline.seeing import Pipeline
    from harness.records.policy import GatePolicy
    from harness.records.prepared import PreparedGraph
    from harness.records.spec import EngineSpec
    from harness.store.baselines import BaselineStore

# Where a record says on which make of processor its ratio was seen; `gate` reads it.
_PROCESSOR = "processor"
_STORED = frozenset({"activation_bytes", "centred_snr_db", "check_E7", "latency_ratio", "plan_bytes", "reformat_bytes", "weights_bytes"})


class Approvals:
    """The stored figures of this machine's engines.

    Args:
        store: where they are.
        is_writing: whether figures that are missing there are stored; none is replaced.
    """

    def __init__(self, pipeline: Pipeline, policy: GatePolicy, store: BaselineStore, *, is_writing: bool) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._store = store
        self.is_writing = is_writing

    def approved(self, metric: str, engine: EngineSpec, *, inputs: str | None = None) -> float | None:
        """The stored figure; None where there is none, or where it was seen on other inputs than those of this digest."""
        found = self._baseline(engine)
        if found is None or (inputs is not None and found.provenance.get("inputs") != inputs):
            return None
        return found.figures.get(metric)

    def is_same_graph(self, engine: EngineSpec) -> bool:
        """Whether the engine was built from the very file that the stored figures were seen of."""
        found = self._baseline(engine)
        return found is not None and found.onnx_sha256 == self._onnx_sha256(engine)

    def is_same_processor(self, engine: EngineSpec) -> bool:
        """Whether the stored ratio was seen on this make of processor."""
        found = self._baseline(engine)
        return found is not None and found.provenance.get(_PROCESSOR) == this_machine().cpu_model

    def machine_class(self, engine: EngineSpec) -> str:
        """Which machines' figures of it are comparable with this one's."""
        return self._pipeline.baseline_key(engine).machine_class

    def settled(
        self,
        judgement: Judgement,
        engine: EngineSpec,
        graph: PreparedGraph,
        *,
        samples: Mapping[str, tuple[float, ...]] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> Judgement:
        """The judgement as it counts: stored where it may be, waived where somebody answers for it, reported where a recipe only reports.

        Args:
            graph: that the engine was built from.
            samples: what the figure was made of.
            facts: on how it was seen, for people.
        """
        promise, counted = self._policy.policy(engine.recipe), judgement
        if self._may_write(judgement, engine):
            self._write(judgement, engine, graph, samples or {}, facts or {})
            counted = replace(judgement, status=Status.PASS, reason="baseline_created")
        counted = waived(counted, self._policy.waiver(counted.metric, engine), today=datetime.now(UTC).date())
        if promise.severity is Severity.REPORT and counted.status is not Status.INVALID:
            return replace(counted, severity=Severity.REPORT)
        return counted

    def _may_write(self, judgement: Judgement, engine: EngineSpec) -> bool:
        """Whether this run approves the figure. It adds what is missing; it replaces nothing, and mixes no two graphs."""
        if not self.is_writing or judgement.metric not in _STORED or judgement.observed is None:
            return False
        if judgement.metric in BOUNDED and judgement.observed < self._policy.limit(judgement.metric, engine):
            return False  # approving a figure does not lift the absolute bound that it misses
        before = self._baseline(engine)
        return before is None or (judgement.metric not in before.figures and before.onnx_sha256 == self._onnx_sha256(engine))

    def _write(
        self,
        judgement: Judgement,
        engine: EngineSpec,
        graph: PreparedGraph,
        samples: Mapping[str, tuple[float, ...]],
        facts: Mapping[str, str],
    ) -> None:
        assert judgement.observed is not None  # for the type checker: `_may_write` looked
        key, figures, sha256 = self._pipeline.baseline_key(engine), {judgement.metric: judgement.observed}, self._onnx_sha256(engine)
        provenance = {**self._provenance(graph), **facts}
        self._store.change(
            key,
            lambda before: with_figures(before, key=key, onnx_sha256=sha256, figures=figures, samples=samples, provenance=provenance),
        )

    def _provenance(self, graph: PreparedGraph) -> dict[str, str]:
        machine = this_machine()
        facts = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_by": "gpu-report",
            "system": f"{machine.system} {machine.architecture}, Python {machine.python}, driver {machine.driver or 'none'}",
            "versions": _in_words(machine.versions),
            "exported_by": _in_words(graph.made_by),
        }
        if graph.is_refilled:
            facts["weights"] = (
                f"random numbers from seed {graph.seed} in {len(graph.taken)} large tensors of the export {graph.source_sha256}: "
                "bytes, layers and times count; onnx_sha256 is the refilled file's, so that the export itself is held to margins"
            )
        return facts

    def _baseline(self, engine: EngineSpec) -> Baseline | None:
        return self._store.find(self._pipeline.baseline_key(engine))

    def _onnx_sha256(self, engine: EngineSpec) -> str:
        return self._pipeline.maker.onnx(engine.encoder, engine.recipe).sha256


def _in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def timing_facts(launches: str) -> dict[str, str]:
    """Where and how a ratio was seen, for its record."""
    machine = this_machine()
    return {
        _PROCESSOR: machine.cpu_model,
        "cores": str(machine.cpu_count),
        "timed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "timed": f"both engines in one process; {launches}",
    }
