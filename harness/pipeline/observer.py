"""What a suite looks through: observations of engines, the bounds that apply, and the baselines they are compared with.

It stands on the pipeline and keeps what was seen in the run directory. What becomes of a judgement is `settling`'s, what is written
`approving`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.pipeline.approving import Approvals
from harness.pipeline.commands import AS_USUAL, Places
from harness.pipeline.keeping import Keeper
from harness.pipeline.latencies import Latencies
from harness.pipeline.pacing import Paced, Timed
from harness.pipeline.running import Runner
from harness.pipeline.settling import Settling, Subject
from harness.pipeline.stored_engines import StoredEngines
from harness.records.baseline import BaselineMode
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.baselines import BaselineStore

if TYPE_CHECKING:
    from harness.judge.accuracy.evidence import AccuracyEvidence
    from harness.judge.engine_checks.evidence import EngineEvidence
    from harness.judge.onnx_checks.all_checks import Evidence
    from harness.judge.structure import GraphView
    from harness.pipeline.bench import Bench
    from harness.pipeline.making import StandIn
    from harness.pipeline.seeing import Pipeline
    from harness.records.observations import DeviceMemory, Embeddings, LayerTable, MemoryReading
    from harness.records.policy import GatePolicy, RecipePolicy
    from harness.records.run import EngineRow
    from harness.store.blobs import BlobStore
    from harness.store.latency_baselines import LatencyBaselines
    from harness.store.run_directory import RunDirectory


class Observer:
    """Looks at engines for suites; each thing is made once.

    Args:
        folder: where samples, embeddings, layer tables and vendor logs are kept.
        mode: whether baselines are compared with, created or updated.
        latency_records, blobs: engines that were approved; `blobs` is None where nobody named a place for them.
        timed: every latency gate of this run: they are timed together, and share one chance of a false alarm.
        processes: of pytest, that each see a part of the run and time for themselves; they share that chance too.
        places: as the run was told, for the commands that are shown.

    Attributes:
        approvals: what is approved, and what this run adds.
        settling: makes of a judgement what counts.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: RunDirectory,
        policy: GatePolicy,
        baselines: BaselineStore,
        mode: BaselineMode,
        *,
        latency_records: LatencyBaselines,
        blobs: BlobStore | None = None,
        timed: Sequence[Timed] = (),
        processes: int = 1,
        places: Places = AS_USUAL,
    ) -> None:
        self._pipeline = pipeline
        self._keeper = Keeper(pipeline, folder)
        self._policy = policy
        self.approvals = Approvals(pipeline, policy, baselines, mode, lambda engine: self._latencies.ratio_timing(engine))
        self.settling = Settling(pipeline, policy, self.approvals, self._keeper)
        stored = StoredEngines(pipeline, latency_records, blobs)
        self._latencies = Latencies(pipeline, policy, self.approvals, stored, folder, planned=timed, processes=processes, places=places)
        self._runner = Runner(pipeline.maker)
        self._benches: dict[EngineSpec, Bench] = {}
        self._device_memory: dict[EngineSpec, DeviceMemory] = {}

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
            approved_to_fake_quant_db=self.approvals.plan_figure(engine),
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
        """What one launch makes of one batch of your own: [n, d], in the engine's own type.

        The engine stays loaded until latency is gated or the session ends.

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
        """Free the engines that `run` loaded, and stop those that nobody waits for."""
        self._pipeline.evaluations.close()
        self._runner.close()

    def _leave_alone(self) -> None:
        """Let nothing of this session stand beside an engine that is timed."""
        self._pipeline.evaluations.settle()
        self._runner.close()  # whatever else holds the GPU while it is timed counts as a stranger there

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

    def device_memory(self, engine: EngineSpec) -> DeviceMemory:
        """What running it takes of its device, phase by phase, as its runtime asks for it; also kept in the run directory.

        Raises:
            UnusableInputs: its backend does not count that.
        """
        from harness.pipeline.weighing import running_device_memory

        if engine not in self._device_memory:
            artifact = self._pipeline.maker.engine(engine)
            with self._pipeline.maker.working(f"counting what {engine.id} takes of the device"):
                self._device_memory[engine] = running_device_memory(artifact)
            self._keeper.keep_device_memory(engine, self._device_memory[engine])
        return self._device_memory[engine]

    def latency(self, engine: EngineSpec) -> Paced:
        """The engine beside its FP16 twin, in fresh processes, judged against the approved ratio together with all others of this run.

        Samples are kept in the run directory, for `enginegate judge-latency`.
        """
        self._leave_alone()
        return self._kept(f"{engine.id}-latency", self._latencies.beside_fp16(engine))

    def latency_beside_approved(self, engine: EngineSpec) -> Paced:
        """The engine beside the one that was approved, likewise. Where none is, it is timed beside itself and a pending record is left."""
        self._leave_alone()
        return self._kept(f"{engine.id}-latency-beside-approved", self._latencies.beside_approved(engine))

    def _kept(self, name: str, paced: Paced) -> Paced:
        for stage, samples in zip((name, f"{name}-again"), paced.samples, strict=False):
            self._keeper.keep_latency(stage, samples)
        return paced

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

    def same_graph_margin(self, metric: str, engine: EngineSpec) -> float:
        """Likewise, from the figure of the very same graph: nothing, where the builder repeats itself."""
        return self._policy.same_graph_margin(metric, engine, self._pipeline.baseline_key(engine).machine_class)

    def promise(self, subject: Subject) -> RecipePolicy:
        """What the recipe promises of every graph and engine made with it."""
        return self._policy.policy(subject.recipe)

    def approved(self, metric: str, engine: EngineSpec) -> float | None:
        """The baseline's figure for `metric`; None where there is none, or where it was seen on other inputs."""
        return self.approvals.figure(metric, engine)

    def is_approved_graph(self, engine: EngineSpec) -> bool:
        """Whether the engine was built from the very ONNX file that the baseline's was."""
        return self.approvals.is_same_graph(engine)

    def is_approved_processor(self, metric: str, engine: EngineSpec) -> bool:
        """Whether the baseline's latency or host memory was seen on this make of processor."""
        return self.approvals.is_same_processor(metric, engine)

    # -- the run directory -------------------------------------------------------------------------------------------------

    def engine_rows(self, *, after: int = 0) -> tuple[EngineRow, ...]:
        """Engines of this session so far, as `run.json` lists them; their logs and layer tables are kept beside it.

        Args:
            after: leave out so many of the first ones.
        """
        return self._keeper.engine_rows(after)
