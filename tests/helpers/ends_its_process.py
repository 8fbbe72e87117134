"""Imported by every process of a run: the fake backend is one that ends its process, as TensorRT does, and so is kept in others.

Building FP8 aborts after a line in the log; running a text tower is a segmentation fault.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.backends import fake
from harness.contracts import Capability
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.spec import EngineSpec, Tower

WORDS = "corrupted double-linked list"


class EndsItsProcess(fake.FakeBackend):
    """Harmless to whoever keeps it in another process."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """With the one that keeps it there."""
        return super().capabilities | {Capability.NEEDS_ISOLATION}

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Abort where FP8 is built."""
        if engine.recipe.is_quantized:
            (folder / fake.LOG_FILE).write_text(f"[ERROR] {WORDS}\n", encoding="utf-8")
            os.abort()
        return super().build(source, engine, folder)

    @contextmanager
    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> Iterator[fake.FakeSession]:
        """End where a text tower is launched."""
        with super().open(engine, threads=threads) as session:
            if engine.spec.encoder.tower is Tower.TEXT:
                session.launch = lambda feed: os.kill(os.getpid(), signal.SIGSEGV)
            yield session


fake.FakeBackend = EndsItsProcess
