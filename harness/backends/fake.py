"""A backend without a compiler, for tests of this project and for users' tests of their own suites.

Its embeddings depend on nothing but the inputs, the recipe and a seed, and it can be told to break in the ways engines break.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from harness.backends._ideal_log import ideal_build_log
from harness.backends._inputs import require_inputs, tower_port
from harness.contracts import Action, Capability, InputPort
from harness.errors import InvalidMeasurement
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.observations import Float32Array, Tensors
from harness.records.spec import EngineSpec

ENGINE_FILE = "engine.onnx"
LOG_FILE = "build.log"
OUTPUT = "embedding"
QUANTIZED_NOISE = 0.02  # of a quantized recipe, relative: near the 18 dB or more that good FP8 encoders keep
SLOW_SECONDS = 0.02


class Fault(StrEnum):
    """Ways in which an engine breaks."""

    NAN = "nan"  # the first row of every batch is not a number
    CONSTANT = "constant"  # every row is the same, whatever went in
    SHIFT = "shift"  # every row is moved by one common offset, which plain cosines of like rows hardly see
    SWAP = "swap"  # every row is the one of its neighbour
    SLOW = "slow"  # a launch takes 20 ms longer


@dataclass(frozen=True, slots=True)
class FakeBackend:
    """Its engine is a copy of the ONNX file, and its build log that of an ideal compiler.

    Attributes:
        fault: how its sessions break; None for not at all.
        seed: of the map from inputs to embeddings.
        dim: length of an embedding.
    """

    fault: Fault | None = None
    seed: int = 0
    dim: int = 64

    @property
    def name(self) -> str:
        return "fake"

    @property
    def version(self) -> str:
        return "1"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All that need no GPU."""
        return frozenset({Capability.FP8, Capability.LAYER_TABLE, Capability.ENGINE_IS_ONNX})

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None: it always can."""
        return None

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Copy the file, and write an ideal build log.

        Raises:
            UnusableGraph: the file is no ONNX file.
        """
        (folder / LOG_FILE).write_text(ideal_build_log(source), encoding="utf-8", newline="\n")
        (folder / ENGINE_FILE).write_bytes(source.read_bytes())
        return BuiltFiles(engine=ENGINE_FILE, log=LOG_FILE)

    @contextmanager
    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> Iterator[FakeSession]:
        """A session that needs no engine file."""
        yield FakeSession(self, engine.spec)


@dataclass(slots=True, eq=False)
class FakeFeed:
    """Inputs, one flat row each, and the output of the last launch."""

    rows: Float32Array
    output: Float32Array | None = None


class FakeSession:
    """Maps each row linearly, on its own, so that batches cannot matter."""

    def __init__(self, backend: FakeBackend, engine: EngineSpec) -> None:
        self._backend = backend
        self._engine = engine
        self._port = tower_port(engine.encoder)

    @property
    def ports(self) -> tuple[InputPort, ...]:
        """Small inputs of the tower's kind; any other size is taken too."""
        return (replace(self._port, shape=tuple(length or size for length, size in zip(self._port.shape, (None, 3, 8, 8), strict=False))),)

    def upload(self, inputs: Tensors) -> FakeFeed:
        """Copy the inputs."""
        rows = require_inputs(inputs, (self._port,), self._engine.batch)
        return FakeFeed(inputs[self._port.name].reshape(rows, -1).astype(np.float32))

    def launch(self, feed: FakeFeed) -> None:
        """Compute, and break as told."""
        exact = _sketch(feed.rows, self._backend.dim, self._backend.seed)
        if self._engine.recipe.is_quantized:
            noise_seed = zlib.crc32(self._engine.recipe.encode()) ^ self._backend.seed
            exact += QUANTIZED_NOISE * _sketch(feed.rows, self._backend.dim, noise_seed)
        feed.output = _broken(exact, self._backend.fault)

    def download(self, feed: FakeFeed) -> Tensors:
        """The output of the last launch."""
        if feed.output is None:
            raise InvalidMeasurement("nothing was launched with this feed; launch it before its output is read")
        return {OUTPUT: feed.output.copy()}


def _sketch(rows: Float32Array, dim: int, seed: int) -> Float32Array:
    """float32 [n, dim]: each value of a row lands in one of `dim` sums under a random sign. Linear, and cheap for large rows."""
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), rows.shape[1])
    padded = np.pad(rows * signs, ((0, 0), (0, -rows.shape[1] % dim)))
    return padded.reshape(len(rows), -1, dim).sum(axis=1, dtype=np.float32)


def _broken(rows: Float32Array, fault: Fault | None) -> Float32Array:
    match fault:
        case Fault.NAN:
            return np.concatenate([np.full_like(rows[:1], np.nan), rows[1:]])
        case Fault.CONSTANT:
            return np.ones_like(rows)
        case Fault.SHIFT:
            return rows + np.float32(np.abs(rows).max())
        case Fault.SWAP:
            return np.roll(rows, 1, axis=0)
        case Fault.SLOW:
            time.sleep(SLOW_SECONDS)
    return rows
