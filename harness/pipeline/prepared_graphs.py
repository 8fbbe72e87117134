"""Hands the graphs of a prepared folder to a `Maker`, refilled where their weights were left out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.pipeline.making import Maker, code_digest
from harness.records.artifacts import OnnxArtifact
from harness.records.prepared import PreparedGraph
from harness.records.spec import EncoderSpec, Recipe
from harness.store.cache import ArtifactCache
from harness.store.prepared import PreparedFolder

_ONNX_FILE = "model.onnx"


class PreparedGraphs:
    """The graphs of one folder, each read and digested once, also where several threads ask for it."""

    def __init__(self, folder: PreparedFolder, maker: Maker, cache: ArtifactCache) -> None:
        self._folder = folder
        self._maker = maker
        self._cache = cache
        self._adopted: set[tuple[EncoderSpec, Recipe]] = set()
        self._locks: dict[str, threading.Lock] = {graph.file.file: threading.Lock() for graph in folder.manifest.graphs}

    def adopt(self, graph: PreparedGraph) -> None:
        """Let the maker build engines of `graph`.

        Raises:
            UnusablePrepared: its file is gone or altered.
        """
        with self._locks[graph.file.file]:
            if (graph.spec, graph.recipe) not in self._adopted:
                self._adopt(graph)

    def _adopt(self, graph: PreparedGraph) -> None:
        path = self._folder.file(graph.file)
        sha256, nbytes = graph.file.sha256, graph.file.nbytes
        if graph.is_refilled:
            path = self._refilled(graph, path)
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            nbytes = path.stat().st_size
        self._maker.adopt(
            OnnxArtifact(
                encoder=graph.spec,
                recipe=graph.recipe,
                origin=graph.weights,
                path=path.absolute(),
                sha256=sha256,
                nbytes=nbytes,
                opset=graph.opset,
                calibration=graph.calibration,
                repairs=graph.repairs,
                versions=graph.made_by,
                amax=graph.amax,
            )
        )
        self._adopted.add((graph.spec, graph.recipe))

    def _refilled(self, graph: PreparedGraph, skeleton: Path) -> Path:
        def build(folder: Path) -> Mapping[str, Any]:
            from harness.prepare.skeleton import refill

            refill(skeleton, folder / _ONNX_FILE, graph.taken, seed=graph.seed)
            return {}

        made_from = {"skeleton": graph.file.sha256, "seed": graph.seed, "code": code_digest("harness.prepare")}
        return self._cache.fetch("refilled", made_from, build).path(_ONNX_FILE)
