"""A pytest plugin for runs in another process: the fake backend has FP8 kernels for a batch that cannot change, and for no other."""

from __future__ import annotations

from pathlib import Path

from harness.backends import fake
from harness.contracts import Capability
from harness.errors import NeedsFixedBatch
from harness.records.artifacts import BuiltFiles
from harness.records.spec import EngineSpec


class FixedBatchOnly(fake.FakeBackend):
    """As TensorRT 10.6 on Hopper."""

    @property
    def version(self) -> str:
        """Of its own, so that it finds no engine in a cache that the other one built."""
        return f"{super().version}-fixed-batch-only"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """With the one that has a run ask first."""
        return super().capabilities | {Capability.MAY_NEED_FIXED_BATCH}

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Refuse what has no kernels."""
        if engine.recipe.is_quantized and not engine.batch.is_fixed:
            raise NeedsFixedBatch(f"no FP8 kernels here for a batch that changes ({engine.batch})\nthe log says more")
        return super().build(source, engine, folder)


fake.FakeBackend = FixedBatchOnly
