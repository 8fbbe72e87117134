"""What a backend is to the rest of the house.

These protocols are small so that a new compiler is one file. Conveniences (run, warm-up, repetition) are functions in
`measure` over the three verbs of a session, not methods here. Changing a protocol changes every backend: do it rarely.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.observations import Tensors
from harness.records.spec import EngineSpec

Feed = Any  # a session's own handle on uploaded inputs; opaque to everyone else


class Action(StrEnum):
    """What may be asked of a backend; it can be able to do one and not the other."""

    BUILD = "build"
    RUN = "run"


class Capability(StrEnum):
    """What a backend offers beyond building and running."""

    FP8 = "fp8"  # runs or compiles graphs with FP8 Q/DQ nodes
    LAYER_TABLE = "layer_table"  # its build log holds the engine's layers
    MEMORY_FIGURES = "memory_figures"  # its build log says what the engine's activations need
    COMPILES_FOR_GPU = "compiles_for_gpu"  # needs a target such as SM89
    ENGINE_IS_ONNX = "engine_is_onnx"  # the engine file is the ONNX file itself


class Session(Protocol):
    """One loaded engine on one device.

    A feed belongs to the session that made it; feeds do not share buffers.
    """

    def upload(self, inputs: Tensors) -> Feed:
        """Put inputs where the engine reads them. May allocate, may copy.

        Raises:
            OutsideProfile: the batch is not one the engine was built for.
            UnusableInputs: a name, shape or dtype the engine does not take.
        """
        ...

    def launch(self, feed: Feed) -> None:
        """What is timed: no allocation and no copy of ours; on a device, no wait."""
        ...

    def download(self, feed: Feed) -> Tensors:
        """Wait, and return the outputs of the last launch as arrays of the caller's own."""
        ...


class Backend(Protocol):
    """A way to make an engine of an ONNX file and to run it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Version of the vendor's library, without importing it; `absent` when it is not installed."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when this machine can; else the reason, in words for people. Loads no vendor library."""
        ...

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Make the engine of the ONNX file `source`, and leave its files in `folder`.

        Raises:
            BuildFailed: with the last lines of the vendor's log.
            UnsupportedTarget: the target cannot run this graph.
            UnusableGraph: the parser refuses the file.
        """
        ...

    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[Session]:
        """Load the engine; leaving the context frees it.

        Args:
            threads: how many of the host's threads may compute; None is all this process may use. A backend that computes on a
                device has no use for it.
        """
        ...
