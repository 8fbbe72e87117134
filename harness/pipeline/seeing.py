"""What is seen of what was made: graphs, layers, memory, embeddings and times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BuildFailed, EnginegateError
from harness.pipeline.evaluating import Evaluations
from harness.pipeline.isolating import machine_class_of
from harness.pipeline.making import Maker, Once, Progress
from harness.pipeline.names import backend_of
from harness.records.baseline import BaselineKey
from harness.records.observations import Embeddings, EncoderInputs, LayerTable, MemoryReading, RangeUse
from harness.records.policy import EvaluationRows
from harness.records.run import EngineRow
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.task import Task

if TYPE_CHECKING:
    from harness.judge.onnx_checks.all_checks import Evidence
    from harness.judge.structure import GraphView
    from harness.prepare.dataset import Dataset
    from harness.records.localisation import Localisation


class Pipeline:
    """Looks at what a `Maker` makes, each thing once a session.

    Args:
        maker: makes it.
        evaluation_rows: how many rows of the built-in data embeddings are compared on.
        eval_data: what they are compared on instead, all of it.
        progress: called as a context manager with what is being done, for people.

    Attributes:
        evaluations: runs engines on the evaluation rows.
    """

    def __init__(self, maker: Maker, *, evaluation_rows: EvaluationRows, progress: Progress, eval_data: Dataset | None = None) -> None:
        self.maker = maker
        self._evaluation_rows = evaluation_rows
        self._eval_data = eval_data
        self._progress = progress
        self._once = Once()
        self.evaluations = Evaluations(maker, self._evaluation, progress)

    def graph(self, encoder: EncoderSpec, recipe: Recipe) -> GraphView:
        """The exported graph, with its structure."""
        return self._once(("graph", encoder, recipe), lambda: self._graph(encoder, recipe))

    def graph_evidence(self, encoder: EncoderSpec, recipe: Recipe, *, beside_fp16: bool) -> Evidence:
        """What the checks of a graph look at; with the FP16 export to compare it with, or without."""
        return self._once(("evidence", encoder, recipe, beside_fp16), lambda: self._graph_evidence(encoder, recipe, beside_fp16))

    def layers(self, spec: EngineSpec) -> LayerTable:
        """The engine's layer table."""
        return self._once(("layers", spec), lambda: self._layers(spec))

    def memory(self, spec: EngineSpec) -> MemoryReading:
        """What the engine needs, in bytes."""
        return self._once(("memory", spec), lambda: self._memory(spec))

    def memory_or_none(self, spec: EngineSpec) -> MemoryReading | None:
        """None where a log does not say: the figure is then unknown in the record, and the gate that needs it fails."""
        try:
            return self.memory(spec)
        except EnginegateError:
            return None

    def inputs(self, encoder: EncoderSpec) -> EncoderInputs:
        """The evaluation inputs."""
        return self._evaluation(encoder)

    def reference(self, encoder: EncoderSpec) -> Embeddings:
        """FP32 embeddings of the evaluation inputs, by PyTorch."""
        return self.maker.reference(encoder, self._evaluation(encoder))

    def embeddings(self, spec: EngineSpec) -> Embeddings:
        """The engine's embeddings of the evaluation inputs. The engine runs in every session."""
        return self.evaluations.embeddings(spec)

    def fake_quant(self, spec: EngineSpec) -> Embeddings | None:
        """What the recipe's quantizers alone make of the evaluation inputs, by PyTorch; None for a recipe that has none."""
        if not spec.recipe.is_quantized:
            return None
        return self.maker.fake_quant(spec.encoder, spec.recipe, self._evaluation(spec.encoder))

    def range_use(self, spec: EngineSpec) -> RangeUse | None:
        """How those quantizers use their ranges; None for a recipe that has none."""
        if not spec.recipe.is_quantized:
            return None
        return self.maker.range_use(spec.encoder, spec.recipe, self._evaluation(spec.encoder))

    def task(self, encoder: EncoderSpec) -> Task | None:
        """What the encoder's embeddings are for, with the other tower in FP32; None for weights that have learnt nothing."""
        return None if encoder.seed is not None else self._once(("task", encoder), lambda: self._task(encoder))

    def localisation(self, spec: EngineSpec) -> Localisation:
        """Where the engine's accuracy is lost, by diagnostic copies of the graph that it was built from."""
        return self._once(("localisation", spec), lambda: self._localisation(spec))

    def baseline_key(self, spec: EngineSpec) -> BaselineKey:
        """Under which key observations of this engine are stored on this machine."""
        return BaselineKey(
            machine_class=machine_class_of(spec),
            arch=spec.encoder.arch,
            tower=spec.encoder.tower,
            recipe=spec.recipe,
            backend=spec.backend,
            backend_version=backend_of(spec.backend).version,
            weights=self.maker.origin(spec.encoder),
            batch=str(spec.batch),
            options=spec.options.in_words,
        )

    def engine_row(self, spec: EngineSpec, *, layer_table: str | None = None, graph: str | None = None) -> EngineRow:
        """The engine as run records list it. `layer_table` and `graph` are where its table and its nodes' roles were kept."""
        artifact = self.maker.engine(spec)
        memory = self.memory_or_none(spec)
        source = artifact.source
        return EngineRow(
            encoder=spec.encoder.name,
            recipe=spec.recipe,
            backend=spec.backend,
            backend_version=artifact.backend_version,
            target=spec.target,
            batch=str(spec.batch),
            weights=self.maker.origin(spec.encoder),
            weights_bytes=memory.weights_bytes if memory else None,
            plan_bytes=artifact.plan_bytes,
            activation_bytes=memory.activation_bytes if memory else None,
            onnx_bytes=source.nbytes if source else None,
            onnx_sha256=source.sha256 if source else None,
            build_seconds=artifact.build_seconds,
            build_host_bytes=artifact.build_host_bytes,
            cache="hit" if artifact.cache_hit else "miss",
            layer_table=layer_table,
            repairs=source.repairs if source else (),
            graph=graph,
            device=artifact.device,
            options=spec.options,
            profile_bytes=artifact.memory.profile_bytes,
            notes=(*artifact.notes, *filter(None, [self.maker.note_on(spec)])),
        )

    def _evaluation(self, encoder: EncoderSpec) -> EncoderInputs:
        return self.maker.inputs(encoder, self._evaluation_data(encoder))

    def _evaluation_data(self, encoder: EncoderSpec) -> Dataset:
        data = self._eval_data
        if data is not None:
            return self._once(("eval_data",), lambda: self._digested(data))
        from harness.prepare.inputs import EmojiSet, Split

        return EmojiSet(split=Split.EVALUATION, rows=self._evaluation_rows.of(encoder))

    def _digested(self, data: Dataset) -> Dataset:
        with self._progress(f"digesting {data.pairing.source}"):
            data.source()  # which reads every file, once: the keys of all that is made of them hold it
        return data

    def _task(self, encoder: EncoderSpec) -> Task:
        other = replace(encoder, tower=encoder.tower.other)
        inputs = self._evaluation(other)
        return Task(
            tower=encoder.tower,
            pairing=self._evaluation_data(encoder).pairing,
            other=self.maker.reference(other, inputs),
            logit_scale=self.maker.logit_scale(other, inputs),
            same_weights=self.maker.origin(encoder),
        )

    def _localisation(self, spec: EngineSpec) -> Localisation:
        from harness.pipeline.locating import locate

        inputs = self._evaluation(spec.encoder)
        return locate(self.maker, spec, inputs, observed=self.embeddings(spec), exact=self.reference(spec.encoder))

    def _graph(self, encoder: EncoderSpec, recipe: Recipe) -> GraphView:
        from harness.judge.structure import GraphView
        from harness.measure.onnx_graph import read_onnx_graph

        return GraphView(read_onnx_graph(self.maker.onnx(encoder, recipe).path))

    def _graph_evidence(self, encoder: EncoderSpec, recipe: Recipe, beside_fp16: bool) -> Evidence:
        from harness.pipeline.evidence import graph_evidence

        reference = self.graph(encoder, Recipe.FP16) if beside_fp16 else None
        return graph_evidence(self.graph(encoder, recipe), reference=reference, amax=self.maker.onnx(encoder, recipe).amax)

    def _layers(self, spec: EngineSpec) -> LayerTable:
        from harness.measure.layers import read_layer_table

        return read_layer_table(self.maker.engine(spec).layers or self._log_of(spec))

    def _memory(self, spec: EngineSpec) -> MemoryReading:
        from harness.contracts import Capability
        from harness.measure.memory import onnx_memory, read_build_memory

        plan_bytes = self.maker.engine(spec).plan_bytes or 0
        if Capability.ENGINE_IS_ONNX in backend_of(spec.backend).capabilities:
            return onnx_memory(self.graph(spec.encoder, spec.recipe).graph, plan_bytes)
        return read_build_memory(self._log_of(spec), plan_bytes, self.maker.engine(spec).memory)

    def _log_of(self, spec: EngineSpec) -> Path:
        log = self.maker.engine(spec).log
        if log is None:
            raise BuildFailed(f"{spec.id} left no build log, and its layers and memory are read from it; choose a backend that has one")
        return log
