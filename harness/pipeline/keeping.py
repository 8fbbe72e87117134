"""Keeps in the run directory what later readers ask for: logs, layer tables, the nodes of each graph, embeddings and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import EnginegateError
from harness.pipeline.names import backend_of
from harness.records.spec import EngineSpec

if TYPE_CHECKING:
    from harness.pipeline.seeing import Pipeline
    from harness.records.localisation import Localisation
    from harness.records.observations import Embeddings
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

    def engine_rows(self) -> tuple[EngineRow, ...]:
        """Every engine of this session so far, as `run.json` lists them; their logs and layer tables are kept beside it."""
        return tuple(self._engine_row(engine) for engine in self._pipeline.maker.engines)

    def _engine_row(self, engine: EngineSpec) -> EngineRow:
        self._keep_logs(engine)
        layer_table = self._keep_layers(engine)
        return self._pipeline.engine_row(engine, layer_table=layer_table, graph=self._keep_roles(engine) if layer_table else None)

    def _keep_roles(self, engine: EngineSpec) -> str | None:
        """What the nodes are that the layer table names: a later comparison of two runs has neither ONNX file nor library to ask."""
        from harness.judge.roles import roles_of
        from harness.store.codec import to_json

        name = f"graphs/{_file_name(engine.prepared.id)}.json"
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
        name = f"layers/{_file_name(engine.id)}.json"
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
        logs = {f"logs/{_file_name(engine.id)}.log": artifact.log}
        if artifact.source is not None:
            logs[f"logs/{_file_name(engine.prepared.id)}-prepare.log"] = artifact.source.log
        for name, log in logs.items():
            if log is not None and name not in self._kept:
                self._folder.copy_in(name, log)
                self._kept.add(name)

    def keep_localisation(self, found: Localisation) -> None:
        """Keep where an engine's accuracy is lost, as a record and as a plot."""
        from harness.pipeline.locating import keep

        keep(found, self._folder)

    def keep_embeddings(self, name: str, seen: Embeddings) -> None:
        """Keep what an engine made of the evaluation inputs."""
        self.keep_arrays(f"{name}-embeddings", rows=seen.rows, ids=np.asarray(seen.ids), inputs_digest=np.asarray(seen.inputs_digest))

    def keep_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Keep arrays under a name, once."""
        if name not in self._kept:
            self._folder.save_arrays(_file_name(name), **arrays)
            self._kept.add(name)


def _file_name(name: str) -> str:
    return name.replace("/", "-")
