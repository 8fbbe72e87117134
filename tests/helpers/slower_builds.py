"""A pytest plugin under which every ONNX Runtime engine is built slower: it stands for a change of exporter or runtime that costs time.

    enginegate gate -p tests.helpers.slower_builds ...

`SLOWER_PRODUCTS` says how many matrix products more each graph has. Nothing of it reaches the artifact cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.pipeline.making import Maker
from harness.records.artifacts import EngineArtifact
from harness.records.spec import EngineSpec
from tests.helpers.slower_onnx import slower_onnx

_BACKEND = "onnxruntime"


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    built = Maker.engine

    def slower(self: Maker, spec: EngineSpec) -> EngineArtifact:
        made = built(self, spec)
        if spec.backend != _BACKEND or made.path is None:
            return made
        target = Path(folder.name) / f"{spec.stem}.onnx"
        if not target.exists():
            slower_onnx(made.path, target, products=int(os.environ["SLOWER_PRODUCTS"]))
        content = target.read_bytes()
        return replace(made, path=target, sha256=hashlib.sha256(content).hexdigest(), plan_bytes=len(content))

    Maker.engine = slower
    config.add_cleanup(lambda: setattr(Maker, "engine", built))
