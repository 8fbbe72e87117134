"""What is seen of one engine of a report: its bytes and layers, and what it makes of the evaluation inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.contracts import Capability
from harness.errors import EnginegateError
from harness.pipeline.gpu_waves import line_name
from harness.pipeline.isolating import worker_for
from harness.pipeline.keeping import Keeper
from harness.pipeline.names import backend_of
from harness.pipeline.pairing import ANSWER_S
from harness.records.gpu_report import Event, ReportLine, Stage
from harness.records.observations import Embeddings
from harness.records.spec import EngineSpec
from harness.records.verdict import Judgement
from harness.store.gpu_report import ReportFolder
from harness.store.prepared import PreparedFolder
from harness.workers.engines import EngineWorker

if TYPE_CHECKING:
    from harness.pipeline.gpu_approving import ReportApprovals
    from harness.pipeline.seeing import Pipeline
    from harness.records.policy import GatePolicy
    from harness.records.prepared import PreparedRows

_MEMORY = ("weights_bytes", "plan_bytes", "activation_bytes")
# E10 only reports. As in the graph suite, those of FP8 are asked of quantized recipes only.
_CHECKS = ("E1", "E4", "E7", "E8", "E9")
_CHECKS_OF_FP8 = ("E2", "E3", "E5", "E6")
_ACCURACY = ("finite", "cosine_min", "cosine_p01", "centred_snr_db")  # what FP32 rows alone can judge


class Looking:
    """Looks at built engines.

    Args:
        pipeline: reads graphs, layers and memory of what its maker built.
        policy: what recipes promise, and the bounds of accuracy.
        approvals: what figures are held to.
    """

    def __init__(
        self, pipeline: Pipeline, policy: GatePolicy, approvals: ReportApprovals, prepared: PreparedFolder, folder: ReportFolder
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._approvals = approvals
        self._prepared = prepared
        self._folder = folder
        self._keepers: dict[int, Keeper] = {}

    def with_graph(self, line: ReportLine, engine: EngineSpec, *, twin: EngineSpec | None) -> ReportLine:
        """The line with bytes and, where the backend keeps a layer table, what became of the graph's nodes.

        Args:
            twin: the FP16 engine of the same encoder and batch, where it was built.
        """
        try:
            return self._looked(line, engine, twin).after(Stage.GRAPH)
        except EnginegateError as error:
            return line.after(Stage.GRAPH, Event.of(Stage.GRAPH, error))

    def with_device_memory(self, line: ReportLine, engine: EngineSpec) -> ReportLine:
        """The line with what running the engine takes of the GPU at most; unchanged where its backend does not count that.

        A failure of it is an event and costs nothing else.
        """
        if Capability.DEVICE_MEMORY not in backend_of(engine.backend).capabilities:
            return line
        try:
            judged = self._approvals.counted(self._device_peak(engine), engine)
        except EnginegateError as error:
            return replace(line, events=(*line.events, Event.of(Stage.ACCURACY, error)))
        return replace(line, benchmark=(*(one for one in line.benchmark if one.metric != judged.metric), judged))

    def with_accuracy(self, line: ReportLine, engine: EngineSpec, *, twin: EngineSpec | None) -> ReportLine:
        """The line with the judgements that FP32 rows allow; unchanged where weights are random ones."""
        rows = self._prepared.manifest.rows_of(engine.encoder.name)
        if line.is_refilled or rows is None:
            return line.after(Stage.ACCURACY)
        try:
            judgements = tuple(self._judged(engine, rows, twin))
        except EnginegateError as error:
            return line.after(Stage.ACCURACY, Event.of(Stage.ACCURACY, error))
        return replace(line, accuracy=judgements).after(Stage.ACCURACY)

    def _looked(self, line: ReportLine, engine: EngineSpec, twin: EngineSpec | None) -> ReportLine:
        artifact = self._pipeline.maker.engine(engine)
        row = self._keeper(engine).row_with_layers(engine)
        settle = partial(self._approvals.counted, engine=engine)
        seen = replace(line, engine=row, benchmark=tuple(map(settle, self._byte_judgements(engine, twin))))
        if Capability.LAYER_TABLE not in backend_of(engine.backend).capabilities:
            return seen
        table = self._pipeline.layers(engine)
        document = artifact.layers or artifact.log
        kept = self._folder.keep_layers(line_name(engine), document) if document else None
        judged = tuple(map(settle, self._graph_judgements(engine, twin)))
        return replace(seen, layer_source=kept, layers=len(table.rows), graph=judged)

    def _byte_judgements(self, engine: EngineSpec, twin: EngineSpec | None) -> Iterator[Judgement]:
        from harness.judge.memory import predicted_weights_ratio, weights_ratio

        seen = self._pipeline.memory(engine)
        for metric in _MEMORY:
            if metric != "activation_bytes" or Capability.MEMORY_FIGURES in backend_of(engine.backend).capabilities:
                yield self._against_stored(metric, getattr(seen, metric), engine)
        if twin is not None:
            predicted = predicted_weights_ratio(self._pipeline.graph(twin.encoder, twin.recipe), self._policy.policy(engine.recipe))
            whole = self._pipeline.memory(twin).weights_bytes
            yield weights_ratio(seen.weights_bytes, whole, predicted, relative_margin=self._margin("weights_ratio", engine))

    def _device_peak(self, engine: EngineSpec) -> Judgement:
        from harness.judge.memory import device_peak_against_baseline
        from harness.pipeline.weighing import running_device_memory

        seen = running_device_memory(self._pipeline.maker.engine(engine))
        self._keeper(engine).keep_device_memory(engine, seen)
        return device_peak_against_baseline(
            seen,
            self._approvals.figure("device_peak_bytes", engine),
            is_same_graph=self._approvals.is_same_graph(engine),
            relative_margin=self._margin("device_peak_bytes", engine),
        )

    def _against_stored(self, metric: str, observed: int | None, engine: EngineSpec) -> Judgement:
        from harness.judge.memory import bytes_against_baseline

        return bytes_against_baseline(
            metric,
            observed,
            self._approvals.figure(metric, engine),
            is_same_graph=self._approvals.is_same_graph(engine),
            relative_margin=self._margin(metric, engine),
            same_graph_margin=self._policy.same_graph_margin(metric, engine, self._approvals.machine_class(engine)),
        )

    def _margin(self, metric: str, engine: EngineSpec) -> float:
        return self._policy.margin(metric, engine, self._approvals.machine_class(engine))

    def _keeper(self, engine: EngineSpec) -> Keeper:
        """Keeps what a run directory holds; one a batch, since a run's engines are told apart by encoder and recipe."""
        batch = engine.batch.optimum
        if batch not in self._keepers:
            self._keepers[batch] = Keeper(self._pipeline, self._folder.run_of(batch))
        return self._keepers[batch]

    def _graph_judgements(self, engine: EngineSpec, twin: EngineSpec | None) -> Iterator[Judgement]:
        from harness.judge.engine_checks.all_checks import judgement
        from harness.judge.engine_checks.evidence import EngineEvidence
        from harness.judge.engine_checks.moves import bytes_moved, moving_rows
        from harness.judge.engine_flops import fp8_flop_share
        from harness.judge.engine_graph import block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq, without_attention

        view, table = self._pipeline.graph(engine.encoder, engine.recipe), self._pipeline.layers(engine)
        promise, floor = self._policy.policy(engine.recipe), self._policy.limit("fp8_flop_share", engine)
        has_attention = without_attention(view) is None
        yield block_gemms_fp8(view, table, promise)
        yield unfused_qdq(view, table, promise)
        if has_attention:
            yield fused_attention(view, table, promise)
            yield fused_attention_fp8(view, table, promise)
        if engine.recipe.is_quantized:
            yield fp8_flop_share(view, table, promise, floor=floor)
        seen = EngineEvidence(
            view=view,
            table=table,
            flop_floor=floor,
            reference=self._pipeline.layers(twin) if twin is not None else None,
            memory=self._pipeline.memory_or_none(engine),
            approved_moves=self._approvals.figure("check_E7", engine),
        )
        yield self._against_stored("reformat_bytes", bytes_moved(moving_rows(seen)), engine)
        for check in sorted(_CHECKS + _CHECKS_OF_FP8 if engine.recipe.is_quantized else _CHECKS):
            if has_attention or check != "E4":
                yield judgement(check, seen, promise)

    def _judged(self, engine: EngineSpec, rows: PreparedRows, twin: EngineSpec | None) -> Iterator[Judgement]:
        from harness.judge.accuracy.all_metrics import judgement
        from harness.judge.accuracy.evidence import AccuracyEvidence

        evidence = AccuracyEvidence(
            observed=self._embeddings_made_now(engine, rows),
            exact=self._prepared.reference(rows),
            half=self._embeddings(twin, rows) if twin is not None else None,
            weights=engine.encoder.weights,
            approved_snr_db=self._approvals.figure("centred_snr_db", engine),
        )
        self._keeper(engine).keep_accuracy(engine, evidence)
        for metric in (*_ACCURACY, "fp8_error_db") if twin is not None else _ACCURACY:
            judged = judgement(
                metric,
                evidence,
                limit=lambda name: self._policy.limit(name, engine),
                margin=lambda name: self._margin(name, engine),
            )
            yield self._approvals.counted(judged, engine)

    def _embeddings(self, engine: EngineSpec, rows: PreparedRows) -> Embeddings:
        """What an engine that others are held against made of the evaluation inputs; made now where this very engine has not made it."""
        made = self._folder.embeddings(line_name(engine), made_of=self._made_of(engine, rows))
        return self._embeddings_made_now(engine, rows) if made is None else _as_embeddings(made, engine, rows)

    def _embeddings_made_now(self, engine: EngineSpec, rows: PreparedRows) -> Embeddings:
        """What the engine makes of the evaluation inputs, in a process of its own, and kept: a line that is done again is seen again."""
        made = self._run(engine, rows)
        self._folder.keep_embeddings(line_name(engine), made, made_of=self._made_of(engine, rows))
        return _as_embeddings(made, engine, rows)

    def _made_of(self, engine: EngineSpec, rows: PreparedRows) -> str:
        return f"{self._pipeline.maker.engine(engine).sha256} {rows.digest}"

    def _run(self, engine: EngineSpec, rows: PreparedRows) -> np.ndarray:
        artifact = self._pipeline.maker.engine(engine)
        source = self._prepared.file(rows.file)
        with tempfile.TemporaryDirectory(prefix="enginegate-") as folder, worker_for(engine.id, [engine.backend]) as process:
            out = Path(folder) / "rows.npz"
            EngineWorker(process, ANSWER_S).embed(artifact, name=rows.input, rows=source, out=out)
            with np.load(out, allow_pickle=False) as arrays:
                return arrays["rows"]


def _as_embeddings(made: np.ndarray, engine: EngineSpec, rows: PreparedRows) -> Embeddings:
    return Embeddings(rows=made, ids=rows.ids, inputs_digest=rows.digest, made_by=f"{engine.id}, batch {engine.batch.optimum}")
