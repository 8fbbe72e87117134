"""Keeps in the run directory what later readers ask for: logs, layer tables, the nodes of each graph, embeddings and samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import EnginegateError
from harness.pipeline.names import backend_of
from harness.records.kept_accuracy import KeptAccuracy, KeptTask, accuracy_file, file_stem
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.task import Task
from harness.store.kept_accuracy import keep_range_use, keep_rows, keep_task
from harness.store.latency_samples import latency_samples_json

if TYPE_CHECKING:
    from harness.judge.accuracy.evidence import AccuracyEvidence
    from harness.pipeline.seeing import Pipeline
    from harness.records.latency import LatencySamples
    from harness.records.localisation import Localisation
    from harness.records.observations import DeviceMemory, Embeddings
    from harness.records.run import EngineRow
    from harness.store.run_directory import RunDirectory


class Keeper:
    """Writes each thing once.

    Args:
        folder: where it goes.
    """

    def __init__(self, pipeline: Pipeline, folder: RunDirectory) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._kept: set[str] = set()

    def engine_rows(self, after: int) -> tuple[EngineRow, ...]:
        """Engines of this session beyond the first `after`, as `run.json` lists them; their logs and layer tables are kept beside it."""
        return tuple(self._engine_row(engine) for engine in self._pipeline.maker.engines[after:])

    def _engine_row(self, engine: EngineSpec) -> EngineRow:
        self._keep_logs(engine)
        return self.row_with_layers(engine)

    def row_with_layers(self, engine: EngineSpec) -> EngineRow:
        """One engine, as `run.json` lists it; its layer table and what the nodes of its graph are, are kept beside it."""
        layer_table = self._keep_layers(engine)
        return self._pipeline.engine_row(engine, layer_table=layer_table, graph=self._keep_roles(engine) if layer_table else None)

    def _keep_roles(self, engine: EngineSpec) -> str | None:
        """What the nodes are that the layer table names: a later comparison of two runs has neither ONNX file nor library to ask."""
        from harness.judge.roles import roles_of
        from harness.store.codec import to_json

        name = f"graphs/{file_stem(engine.prepared.id)}.json"
        if name not in self._kept:
            try:
                roles = roles_of(self._pipeline.graph(engine.encoder, engine.recipe))
            except EnginegateError:  # the gate that reads the graph says why it cannot; the record says there is none
                return None
            self._folder.save_text(name, to_json(roles).decode())
            self._kept.add(name)
        return name

    def _keep_layers(self, engine: EngineSpec) -> str | None:
        from harness.contracts import Capability
        from harness.store.codec import to_json

        if Capability.LAYER_TABLE not in backend_of(engine.backend).capabilities:
            return None
        name = f"layers/{file_stem(engine.id)}.json"
        if name not in self._kept:
            try:
                table = self._pipeline.layers(engine)
            except EnginegateError:  # the gate that reads the table says why it cannot; the record says there is none
                return None
            self._folder.save_text(name, to_json(table).decode())
            self._kept.add(name)
        return name

    def _keep_logs(self, engine: EngineSpec) -> None:
        artifact = self._pipeline.maker.engine(engine)
        logs = {f"logs/{file_stem(engine.id)}.log": artifact.log}
        if artifact.source is not None:
            logs[f"logs/{file_stem(engine.prepared.id)}-prepare.log"] = artifact.source.log
        for name, log in logs.items():
            if log is not None and name not in self._kept:
                self._folder.copy_in(name, log)
                self._kept.add(name)

    def keep_device_memory(self, engine: EngineSpec, seen: DeviceMemory) -> None:
        """Keep what running an engine took of its device, by phase, as `memory/<engine>.json`."""
        from harness.store.codec import to_json

        self._folder.save_text(f"memory/{file_stem(engine.id)}.json", to_json(seen).decode())

    def keep_localisation(self, found: Localisation) -> None:
        """Keep where an engine's accuracy is lost, as a record and as a plot."""
        from harness.pipeline.locating import keep

        keep(found, self._folder)

    def keep_embeddings(self, name: str, seen: Embeddings) -> None:
        """Keep what an engine or a reference made of the evaluation inputs, once."""
        if (key := f"{name}-embeddings") not in self._kept:
            keep_rows(self._folder, name, seen)
            self._kept.add(key)

    def keep_accuracy(self, engine: EngineSpec, evidence: AccuracyEvidence) -> None:
        """Keep all that the engine's accuracy is judged by, once, so that other bounds can be tried without running it.

        Raises:
            StoreFailed: no room, or no right to write.
        """
        from harness.store.codec import to_json

        name = accuracy_file(engine)
        if name not in self._kept:
            self._folder.save_text(name, to_json(self._accuracy_record(engine, evidence)).decode())
            self._kept.add(name)

    def _accuracy_record(self, engine: EngineSpec, evidence: AccuracyEvidence) -> KeptAccuracy:
        half = replace(engine, recipe=Recipe.FP16)
        graph = replace(engine.prepared, recipe=engine.recipe.on(engine.encoder.tower))  # one that several recipes may share
        return KeptAccuracy(
            encoder=engine.encoder.name,
            recipe=engine.recipe,
            backend=engine.backend,
            target=engine.target,
            batch=str(engine.batch),
            weights=evidence.weights or self._pipeline.maker.origin(engine.encoder),
            observed=keep_rows(self._folder, engine.id, evidence.observed),
            exact=keep_rows(self._folder, _fp32_name(engine.encoder), evidence.exact),
            fake_quant=keep_rows(self._folder, f"{graph.id}-fake-quant", evidence.fake_quant) if evidence.fake_quant else None,
            range_use=keep_range_use(self._folder, graph.id, evidence.range_use) if evidence.range_use else None,
            half=keep_rows(self._folder, half.id, evidence.half) if evidence.half else None,
            task=self._keep_task(engine.encoder, evidence.task) if evidence.task else None,
            approved_snr_db=evidence.approved_snr_db,
            approved_to_fake_quant_db=evidence.approved_to_fake_quant_db,
        )

    def _keep_task(self, encoder: EncoderSpec, task: Task) -> KeptTask:
        other = keep_rows(self._folder, _fp32_name(replace(encoder, tower=encoder.tower.other)), task.other)
        return keep_task(self._folder, task, other=other)

    def keep_latency(self, name: str, samples: LatencySamples) -> None:
        """Keep latency samples under a name, once; a share of them can be judged again by `enginegate judge-latency`."""
        if name not in self._kept:
            self._folder.save_text(f"samples/{file_stem(name)}.json", latency_samples_json(samples).decode())
            self._kept.add(name)


def _fp32_name(encoder: EncoderSpec) -> str:
    return f"{encoder.name}-fp32"
