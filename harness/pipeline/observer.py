"""What a suite looks through: observations of engines, the bounds that apply, and the baselines they are compared with.

It stands on the pipeline, keeps what was seen in the run directory, and is the only place where a run may write a baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.judge.latency.samples import ALPHA
from harness.judge.latency.stored_ratio import RatioGate
from harness.judge.waivers import waived
from harness.pipeline.keeping import Keeper
from harness.pipeline.pacing import Pace, Paced, Pacing
from harness.pipeline.running import Runner
from harness.records.baseline import Baseline, BaselineKey, BaselineMode
from harness.records.gate_lines import BOUNDED
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec, PreparedSpec, Recipe
from harness.records.verdict import Judgement, Severity, Status
from harness.store.baselines import BaselineStore, Exercised

if TYPE_CHECKING:
    from harness.judge.accuracy.evidence import AccuracyEvidence
    from harness.judge.engine_checks.evidence import EngineEvidence
    from harness.judge.onnx_checks.all_checks import Evidence
    from harness.judge.structure import GraphView
    from harness.pipeline.bench import Bench
    from harness.pipeline.making import StandIn
    from harness.pipeline.seeing import Pipeline
    from harness.records.observations import Embeddings, LayerTable, MemoryReading
    from harness.records.policy import GatePolicy, RecipePolicy
    from harness.records.run import EngineRow
    from harness.store.run_directory import RunDirectory

# What a baseline stores. Everything else is judged against gate.toml or against the graph itself.
STORED_METRICS = frozenset(
    {"activation_bytes", "centred_snr_db", "check_E7", "host_bytes", "latency_ratio", "plan_bytes", "reformat_bytes", "weights_bytes"}
)

# Where a baseline's provenance has the make of processor that a figure was seen on.
_SEEN_ON = {"host_bytes": "weighed_on", "latency_ratio": "processor"}

Subject = EngineSpec | PreparedSpec


class Observer:
    """Looks at engines for suites; each thing is made once.

    Args:
        folder: where samples, embeddings, layer tables and vendor logs are kept.
        mode: whether baselines are compared with, created or updated.
        timed: every quantized engine whose latency this run gates: they are timed together, and share one chance of a false alarm.
        processes: of pytest, that each see a part of the run and time for themselves; they share that chance too.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: RunDirectory,
        policy: GatePolicy,
        baselines: BaselineStore,
        mode: BaselineMode,
        *,
        timed: Sequence[EngineSpec] = (),
        processes: int = 1,
    ) -> None:
        self._pipeline = pipeline
        self._keeper = Keeper(pipeline, folder)
        self._policy = policy
        self._baselines = baselines
        self._mode = mode
        self._pacing = Pacing(
            pipeline.maker,
            timed,
            self._pace,
            alpha=ALPHA / processes,
            is_approving=mode in (BaselineMode.CREATE, BaselineMode.UPDATE),
        )
        self._used: set[BaselineKey] = set()
        self._runner = Runner(pipeline.maker)
        self._benches: dict[EngineSpec, Bench] = {}
        self._where_lost: dict[EngineSpec, str] = {}

    # -- observations ------------------------------------------------------------------------------------------------------

    def embeddings(self, engine: EngineSpec) -> Embeddings:
        """The engine's embeddings of the evaluation inputs; also kept in the run directory."""
        seen = self._pipeline.embeddings(engine)
        self._keeper.keep_embeddings(engine.id, seen)
        return seen

    def reference(self, subject: Subject) -> Embeddings:
        """FP32 torch's embeddings of the same inputs."""
        seen = self._pipeline.reference(subject.encoder)
        self._keeper.keep_embeddings(f"{subject.encoder.name}-fp32", seen)
        return seen

    def accuracy(self, engine: EngineSpec) -> AccuracyEvidence:
        """What judges of accuracy look at: the engine's rows, and all that they are compared with; also kept in the run directory."""
        from harness.judge.accuracy.evidence import AccuracyEvidence

        evidence = AccuracyEvidence(
            observed=self.embeddings(engine),
            exact=self.reference(engine),
            fake_quant=self._pipeline.fake_quant(engine),
            range_use=self._pipeline.range_use(engine),
            half=self._pipeline.embeddings(self.fp16_of(engine)) if engine.recipe.is_quantized else None,
            task=self._pipeline.task(engine.encoder),
            weights=self._pipeline.maker.origin(engine.encoder),
            approved_snr_db=self.approved("centred_snr_db", engine),
        )
        self._keeper.keep_accuracy(engine, evidence)
        return evidence

    def stand_in(self, engine: EngineSpec) -> StandIn:
        """What is built where `engine` was asked for, and why where it is another."""
        return self._pipeline.maker.stand_in(engine)

    def inputs(self, subject: Subject) -> EncoderInputs:
        """The evaluation inputs, as the engine takes them."""
        return self._pipeline.inputs(subject.encoder)

    def run(self, engine: EngineSpec, rows: NDArray[np.generic]) -> NDArray[np.floating]:
        """What one launch makes of one batch of your own: [n, d], in the engine's own type. The engine stays loaded until the session ends.

        Raises:
            OutsideProfile, UnusableInputs: the engine does not take this batch.
        """
        return self._runner.run(engine, self.inputs(engine).name, rows)

    def bench(self, engine: EngineSpec) -> Bench:
        """The engine on a bench, where properties are tried."""
        from harness.pipeline.bench import Bench

        if engine not in self._benches:
            self._benches[engine] = Bench(
                engine,
                self._runner,
                inputs=self.inputs(engine),
                embeddings=self.embeddings(engine),
                reference=self.reference(engine),
                fake_quant=self._pipeline.fake_quant(engine),
                exact=partial(self._exact_rows, engine.encoder),
            )
        return self._benches[engine]

    def _exact_rows(self, encoder: EncoderSpec, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """What FP32 torch makes of rows of one's own; kept in the cache under their digest."""
        from harness.prepare.dataset import inputs_digest

        name = self._pipeline.inputs(encoder).name
        ids = tuple(f"made up {row}" for row in range(len(rows)))
        return self._pipeline.maker.reference(encoder, EncoderInputs(name=name, rows=rows, ids=ids, digest=inputs_digest(name, rows))).rows

    def close(self) -> None:
        """Free the engines that `run` loaded."""
        self._runner.close()

    def graph(self, subject: Subject) -> GraphView:
        """The exported ONNX graph, with its structure."""
        return self._pipeline.graph(subject.encoder, subject.recipe)

    def graph_evidence(self, subject: Subject, *, beside_fp16: bool = False) -> Evidence:
        """What the checks O1 to O16 look at.

        Args:
            beside_fp16: with the FP16 export of the same encoder, which then has to be made.
        """
        return self._pipeline.graph_evidence(subject.encoder, subject.recipe, beside_fp16=beside_fp16)

    def engine_evidence(self, engine: EngineSpec, *, beside_fp16: bool = False) -> EngineEvidence:
        """What the checks E1 to E10 look at.

        Args:
            beside_fp16: with the layers of the same encoder's FP16 engine, which then has to be built.
        """
        from harness.judge.engine_checks.evidence import EngineEvidence

        return EngineEvidence(
            view=self.graph(engine),
            table=self.layers(engine),
            flop_floor=self.limit("fp8_flop_share", engine),
            reference=self.layers(self.fp16_of(engine)) if beside_fp16 else None,
            memory=self._pipeline.memory_or_none(engine),
            approved_moves=self.approved("check_E7", engine),
        )

    def layers(self, engine: EngineSpec) -> LayerTable:
        """The engine's layer table."""
        return self._pipeline.layers(engine)

    def memory(self, engine: EngineSpec) -> MemoryReading:
        """What the engine needs, in bytes."""
        return self._pipeline.memory(engine)

    def host_bytes(self, engine: EngineSpec) -> int | None:
        """Host memory that running it adds to a fresh process at most, in bytes; None where the system does not say."""
        from harness.pipeline.weighing import running_host_bytes

        artifact = self._pipeline.maker.engine(engine)
        with self._pipeline.maker.working(f"weighing {engine.id}"):
            return running_host_bytes(artifact)

    def latency(self, engine: EngineSpec) -> Paced:
        """The engine beside its FP16 twin, in fresh processes, judged against the approved ratio together with all others of this run.

        Samples are kept in the run directory, for `enginegate judge-latency`.
        """
        paced = self._pacing.of(engine)
        for stage, samples in zip(("latency", "latency-again"), paced.samples, strict=False):
            self._keeper.keep_latency(f"{engine.id}-{stage}", samples)
        return paced

    def _pace(self, engine: EngineSpec) -> Pace:
        line = self._policy.margin_line("latency_ratio", engine, self._pipeline.baseline_key(engine).machine_class)
        gate = RatioGate(
            approved=self.approved("latency_ratio", engine),
            delta=line.size,
            session_spread=line.session_spread,
            is_same_processor=self.is_approved_processor("latency_ratio", engine),
        )
        return Pace(line=line, gate=gate)

    def fp16_of(self, engine: EngineSpec) -> EngineSpec:
        """The same encoder on the same backend without quantization."""
        return replace(engine, recipe=Recipe.FP16)

    # -- what applies ------------------------------------------------------------------------------------------------------

    def limit(self, metric: str, engine: EngineSpec) -> float:
        """The absolute limit that gate.toml has for `metric`."""
        return self._policy.limit(metric, engine)

    def margin(self, metric: str, engine: EngineSpec) -> float:
        """How far gate.toml lets `metric` be from what it is compared with."""
        return self._policy.margin(metric, engine, self._pipeline.baseline_key(engine).machine_class)

    def promise(self, subject: Subject) -> RecipePolicy:
        """What the recipe promises of every graph and engine made with it."""
        return self._policy.policy(subject.recipe)

    def approved(self, metric: str, engine: EngineSpec) -> float | None:
        """The baseline's figure for `metric`; None where there is none, or where it was seen on other inputs."""
        baseline = self._baseline(engine)
        if baseline is None:
            return None
        if metric == "centred_snr_db" and baseline.provenance.get("inputs") != self._pipeline.reference(engine.encoder).inputs_digest:
            return None
        return baseline.figures.get(metric)

    def is_approved_graph(self, engine: EngineSpec) -> bool:
        """Whether the engine was built from the very ONNX file that the baseline's was."""
        baseline = self._baseline(engine)
        return baseline is not None and baseline.onnx_sha256 == self._onnx_sha256(engine)

    def is_approved_processor(self, metric: str, engine: EngineSpec) -> bool:
        """Whether the baseline's latency or host memory was seen on this make of processor."""
        from harness.measure.machine import this_machine

        baseline = self._baseline(engine)
        return baseline is not None and baseline.provenance.get(_SEEN_ON[metric]) == this_machine().cpu_model

    def _baseline(self, engine: EngineSpec) -> Baseline | None:
        self._used.add(self._pipeline.baseline_key(engine))
        return self._baselines.find(self._pipeline.baseline_key(engine))

    def _onnx_sha256(self, engine: EngineSpec) -> str:
        return self._pipeline.maker.onnx(engine.encoder, engine.recipe).sha256

    # -- baselines ---------------------------------------------------------------------------------------------------------

    def settle(self, judgement: Judgement, subject: Subject) -> Judgement:
        """The judgement as it counts.

        The run that approves a figure does not fail over the one it replaces, what somebody answers for until a day is waived until then,
        and a recipe that is only reported on fails nothing.
        """
        settled = self._waived(self._against_baseline(judgement, subject), subject)
        if self.promise(subject).severity is Severity.REPORT and settled.status is not Status.INVALID:
            return replace(settled, severity=Severity.REPORT)
        return settled

    def _waived(self, judgement: Judgement, subject: Subject) -> Judgement:
        if not isinstance(subject, EngineSpec):
            return judgement
        return waived(judgement, self._policy.waiver(judgement.metric, subject), today=datetime.now(UTC).date())

    def located(self, judgement: Judgement, subject: Subject) -> Judgement:
        """A failed judgement of accuracy, whose reason also says where the accuracy is lost; any other as it is.

        An engine is looked at once, however many of its gates fail, and the whole sentence is said of the first. What breaks on the
        way is said in place of an answer, and changes no status.
        """
        from harness.judge.accuracy.all_metrics import METRICS

        if judgement.status is not Status.FAIL or judgement.severity is Severity.REPORT or not isinstance(subject, EngineSpec):
            return judgement
        if judgement.metric not in METRICS:  # a property of calls and batches, or a suite's own metric, is lost in no block
            return judgement
        words = self._where_lost.get(subject)
        if words is None:
            words, self._where_lost[subject] = self._words_on_where(subject)
        return replace(judgement, reason="; ".join(filter(None, (judgement.reason, words))))

    def _words_on_where(self, engine: EngineSpec) -> tuple[str, str]:
        """A sentence for the engine's first gate that failed, and a few words for the others."""
        from harness.judge.localisation import in_brief

        try:
            found = self._pipeline.localisation(engine)
            self._keeper.keep_localisation(found)
        except Exception as error:  # noqa: BLE001 (a gate that failed has failed, and its reason must reach the reader)
            return f"where it is lost could not be found: {str(error) or type(error).__name__}", "where it is lost could not be found"
        return found.sentence, in_brief(found)

    def _against_baseline(self, judgement: Judgement, subject: Subject) -> Judgement:
        if not isinstance(subject, EngineSpec) or judgement.metric not in STORED_METRICS:
            return judgement
        if self._may_write(judgement, subject):
            before = self._baseline(subject)
            self._write(judgement, subject)
            reason = "baseline_created" if before is None or judgement.metric not in before.figures else "baseline_updated"
            return replace(judgement, status=Status.PASS, reason=reason)
        if judgement.status is Status.NO_BASELINE:
            return replace(judgement, reason=judgement.reason + self._words_on_nearest(subject))
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
        if judgement.observed is None or self._mode not in (BaselineMode.CREATE, BaselineMode.UPDATE):
            return False
        if judgement.metric in BOUNDED and judgement.observed < self.limit(judgement.metric, engine):
            return False  # approving a figure does not lift the absolute bound that it misses
        before = self._baseline(engine)
        if before is None or self._mode is BaselineMode.UPDATE:
            return True
        return judgement.metric not in before.figures and before.onnx_sha256 == self._onnx_sha256(engine)

    def _words_on_nearest(self, engine: EngineSpec) -> str:
        near = self._baselines.nearest(self._pipeline.baseline_key(engine))[:2]
        shown = ", ".join(f"{key.backend} {key.backend_version} with weights {key.weights} and batch {key.batch}" for key in near)
        return f" (there is one for {shown})" if near else ""

    def _write(self, judgement: Judgement, engine: EngineSpec) -> None:
        key, onnx_sha256 = self._pipeline.baseline_key(engine), self._onnx_sha256(engine)
        samples = {"process_ratios": self._process_ratios(engine)} if judgement.metric == "latency_ratio" else {}

        def changed(before: Baseline | None) -> Baseline:
            kept = before if before is not None and before.onnx_sha256 == onnx_sha256 else None
            return Baseline(
                key=key,
                figures=_plain_numbers({**(kept.figures if kept else {}), judgement.metric: self._stored_figure(judgement)}),
                onnx_sha256=onnx_sha256,
                samples={**(kept.samples if kept else {}), **samples},
                provenance={**(kept.provenance if kept else {}), **self._provenance(judgement.metric, engine)},
            )

        self._baselines.change(key, changed)

    def _stored_figure(self, judgement: Judgement) -> float:
        assert judgement.observed is not None  # for the type checker: `settle` looked
        return round(judgement.observed, 4)

    def _process_ratios(self, engine: EngineSpec) -> tuple[float, ...]:
        return tuple(round(math.exp(log), 4) for log in self._pacing.of(engine).logs)

    def _provenance(self, metric: str, engine: EngineSpec) -> dict[str, str]:
        from harness.measure.machine import this_machine

        machine = this_machine()
        facts = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "system": f"{machine.system} {machine.architecture}, Python {machine.python}",
            "versions": ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())),
        }
        if metric == "latency_ratio":  # of this figure alone: another metric's update says nothing about where it was timed
            facts |= {_SEEN_ON[metric]: machine.cpu_model, "cores": str(machine.cpu_count), "timed_at": facts["made_at"]}
        if metric == "host_bytes":
            facts[_SEEN_ON[metric]] = machine.cpu_model
        if metric == "centred_snr_db":
            facts["inputs"] = self._pipeline.reference(engine.encoder).inputs_digest
        return facts

    # -- the run directory -------------------------------------------------------------------------------------------------

    def engine_rows(self) -> tuple[EngineRow, ...]:
        """Every engine of this session so far, as `run.json` lists them; their logs and layer tables are kept beside it."""
        return self._keeper.engine_rows()


def _plain_numbers(figures: Mapping[str, float]) -> dict[str, float]:
    """Whole numbers without a decimal point, as a person would write bytes."""
    return {name: int(figure) if float(figure).is_integer() else figure for name, figure in figures.items()}
