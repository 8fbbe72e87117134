"""What was approved, and the only place where a run may write a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from harness.judge.latency.stored_ratio import RatioGate
from harness.records.baseline import Baseline, BaselineKey, BaselineMode, with_figures
from harness.records.gate_lines import BOUNDED, LATENCY_RATIO
from harness.records.spec import EngineSpec
from harness.records.verdict import Judgement, Status
from harness.store.baselines import BaselineStore, Exercised

if TYPE_CHECKING:
    from harness.pipeline.seeing import Pipeline
    from harness.records.gate_lines import Margin
    from harness.records.policy import GatePolicy
    from harness.records.timing import RatioTiming, TimingSetting

# What a baseline stores. Everything else is judged against gate.toml or against the graph itself.
STORED_METRICS = frozenset(
    {
        "activation_bytes",
        "centred_snr_db",
        "check_E7",
        "device_peak_bytes",
        "host_bytes",
        "latency_ratio",
        "plan_bytes",
        "reformat_bytes",
        "snr_to_fake_quant_db",
        "weights_bytes",
    }
)
_OF_INPUTS = frozenset({"centred_snr_db", "snr_to_fake_quant_db"})  # figures of one set of evaluation inputs

# Where a baseline's provenance has the make of processor that a figure was seen on.
_SEEN_ON = {"host_bytes": "weighed_on", LATENCY_RATIO: "processor"}


class Approvals:
    """The baselines of one run: what they say of an engine, and what the run adds to them.

    Args:
        mode: whether baselines are compared with, created or updated.
        ratio_timing: what the ratio of an engine's launch times was made of.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: GatePolicy,
        baselines: BaselineStore,
        mode: BaselineMode,
        ratio_timing: Callable[[EngineSpec], RatioTiming],
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._baselines = baselines
        self.mode = mode
        self._ratio_timing = ratio_timing
        self._used: set[BaselineKey] = set()

    @property
    def is_approving(self) -> bool:
        """Whether figures are measured to be stored."""
        return self.mode in (BaselineMode.CREATE, BaselineMode.UPDATE)

    def figure(self, metric: str, engine: EngineSpec) -> float | None:
        """The baseline's figure for `metric`; None where there is none, or where it was seen on other inputs."""
        baseline = self._baseline(engine)
        if baseline is None:
            return None
        if metric in _OF_INPUTS and baseline.provenance.get("inputs") != self._inputs_digest(engine):
            return None
        return baseline.figures.get(metric)

    def plan_figure(self, engine: EngineSpec) -> float | None:
        """As `figure`, of `snr_to_fake_quant_db`; None in a run that replaces it, so that the engine is held to its own plan alone."""
        return None if self.mode is BaselineMode.UPDATE else self.figure("snr_to_fake_quant_db", engine)

    def ratio_gate(self, engine: EngineSpec, line: Margin, setting: TimingSetting) -> RatioGate:
        """What the engine's ratio beside its FP16 twin is held to, where it is timed in this setting."""
        gate = RatioGate(
            approved=self.figure(LATENCY_RATIO, engine),
            delta=line.size,
            session_spread=line.session_spread,
            is_same_processor=self.is_same_processor(LATENCY_RATIO, engine),
        )
        baseline = self._baseline(engine)
        different = () if gate.approved is None or baseline is None else setting.differences(baseline.provenance)
        if not different:
            return gate
        words = f"the approved ratio {gate.approved:.4g} was timed under {' and '.join(different)}"
        return replace(gate, approved=None, why_none=f"{words}; expected one timed as here: approve one with --baselines=update")

    def is_same_graph(self, engine: EngineSpec) -> bool:
        """Whether the engine was built from the very ONNX file that the baseline's was."""
        baseline = self._baseline(engine)
        return baseline is not None and baseline.onnx_sha256 == self._onnx_sha256(engine)

    def is_same_processor(self, metric: str, engine: EngineSpec) -> bool:
        """Whether the baseline's latency or host memory was seen on this make of processor."""
        from harness.measure.machine import this_machine

        baseline = self._baseline(engine)
        return baseline is not None and baseline.provenance.get(_SEEN_ON[metric]) == this_machine().cpu_model

    def _baseline(self, engine: EngineSpec) -> Baseline | None:
        self._used.add(self._pipeline.baseline_key(engine))
        return self._baselines.find(self._pipeline.baseline_key(engine))

    def _onnx_sha256(self, engine: EngineSpec) -> str:
        return self._pipeline.maker.onnx(engine.encoder, engine.recipe).sha256

    def settle(self, judgement: Judgement, engine: EngineSpec) -> Judgement:
        """The judgement beside the baseline: the run that approves a figure does not fail over the one it replaces."""
        if judgement.metric not in STORED_METRICS:
            return judgement
        if self._may_write(judgement, engine):
            before = self._baseline(engine)
            self._write(judgement, engine)
            reason = "baseline_created" if before is None or judgement.metric not in before.figures else "baseline_updated"
            return replace(judgement, status=Status.PASS, reason=reason)
        if judgement.status is Status.NO_BASELINE:
            return replace(judgement, reason=judgement.reason + self._words_on_nearest(engine))
        return judgement

    def trim(self, *, every_encoder: bool, every_recipe: bool) -> list[BaselineKey]:
        """Remove baselines of this run's backends that nothing in it asked for, and say which.

        Args:
            every_encoder, every_recipe: whether the run was narrowed to none of them by option.
        """
        used = self._used
        return self._baselines.trim(
            used,
            [
                Exercised(
                    machine_class=key.machine_class,
                    backend=key.backend,
                    backend_version=key.backend_version,
                    encoders=None if every_encoder else frozenset(f"{one.arch}/{one.tower}" for one in used),
                    recipes=None if every_recipe else frozenset(one.recipe for one in used),
                    weights=frozenset(one.weights for one in used),
                    batches=frozenset(one.batch for one in used),
                    options=frozenset(one.options for one in used),
                )
                for key in used
            ],
        )

    def _may_write(self, judgement: Judgement, engine: EngineSpec) -> bool:
        """Whether this run approves the figure. Creating adds what is missing; it replaces nothing, and mixes no two graphs."""
        if judgement.observed is None or not self.is_approving:
            return False
        if judgement.metric in BOUNDED and judgement.observed < self._policy.limit(judgement.metric, engine):
            return False  # approving a figure does not lift the absolute bound that it misses
        if judgement.metric == "snr_to_fake_quant_db" and judgement.status is not Status.PASS:
            return False  # nor the plan's floor
        before = self._baseline(engine)
        if before is None or self.mode is BaselineMode.UPDATE:
            return True
        return judgement.metric not in before.figures and before.onnx_sha256 == self._onnx_sha256(engine)

    def _words_on_nearest(self, engine: EngineSpec) -> str:
        near = self._baselines.nearest(self._pipeline.baseline_key(engine))[:2]
        shown = ", ".join(f"{key.backend} {key.backend_version} with weights {key.weights} and batch {key.batch}" for key in near)
        return f" (there is one for {shown})" if near else ""

    def _write(self, judgement: Judgement, engine: EngineSpec) -> None:
        assert judgement.observed is not None  # for the type checker: `settle` looked
        key = self._pipeline.baseline_key(engine)
        changed = partial(
            with_figures,
            key=key,
            onnx_sha256=self._onnx_sha256(engine),
            figures={judgement.metric: judgement.observed},
            samples={"process_ratios": self._process_ratios(engine)} if judgement.metric == LATENCY_RATIO else {},
            provenance=self._provenance(judgement.metric, engine),
        )
        self._baselines.change(key, changed)

    def _process_ratios(self, engine: EngineSpec) -> tuple[float, ...]:
        return tuple(round(math.exp(log), 4) for log in self._ratio_timing(engine).logs)

    def _provenance(self, metric: str, engine: EngineSpec) -> dict[str, str]:
        from harness.measure.machine import this_machine

        machine = this_machine()
        facts = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "system": f"{machine.system} {machine.architecture}, Python {machine.python}",
            "versions": ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())),
        }
        if metric == LATENCY_RATIO:  # of this figure alone: another metric's update says nothing about where it was timed
            facts |= {_SEEN_ON[metric]: machine.cpu_model, "cores": str(machine.cpu_count), "timed_at": facts["made_at"]}
            facts |= self._ratio_timing(engine).setting.facts
        if metric == "host_bytes":
            facts[_SEEN_ON[metric]] = machine.cpu_model
        if metric in _OF_INPUTS:
            facts["inputs"] = self._inputs_digest(engine) or "none"
        return facts

    def _inputs_digest(self, engine: EngineSpec) -> str | None:
        """Of the inputs that the engine's accuracy is seen on; None where there are none."""
        return self._pipeline.reference(engine.encoder).inputs_digest
