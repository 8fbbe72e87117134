"""What is seen: inputs, embeddings, layer tables, times and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement, UnusableInputs

Float32Array = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderInputs:
    """Rows for one tower, as its engine takes them.

    Attributes:
        name: the engine's input, `image` or `tokens`.
        rows: float16 [n, 3, H, W], normalised pictures; or int64 [n, context], token ids.
        ids: what each row shows, in order; one a row.
        digest: sha256 of name, dtype, shape and bytes.
        notes: what a reader of verdicts about these rows should know, such as captions that were cut.
    Raises:
        UnusableInputs: no rows, values that are not finite, or another number of ids than rows.
    """

    name: str
    rows: NDArray[np.generic]
    ids: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise UnusableInputs(f"inputs {self.name!r} hold no rows; expected at least one; look at the data they were read from")
        if len(self.ids) != len(self.rows):
            raise UnusableInputs(f"inputs {self.name!r} hold {len(self.rows)} rows and {len(self.ids)} ids; expected one id a row")
        # Row by row: a copy of all of them in another type would need more memory than the rows themselves.
        broken = [index for index, row in enumerate(self.rows) if not np.isfinite(row).all()]
        if broken:
            raise UnusableInputs(
                f"inputs {self.name!r} are not finite in {len(broken)} of {len(self.rows)} rows, first {self.ids[broken[0]]!r}; "
                "expected finite values; look at the picture and its preprocessing"
            )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """What an engine made of its inputs, as it came out: not normalised, possibly not finite.

    Attributes:
        rows: float32 [n, d].
        ids: the inputs' ids, in order.
        inputs_digest: digest of the inputs, so that only like is compared with like.
        made_by: engine or reference, for people.
    Raises:
        InvalidMeasurement: `rows` is not two-dimensional, or has another length than `ids`.
    """

    rows: Float32Array
    ids: tuple[str, ...]
    inputs_digest: str
    made_by: str

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.ids):
            raise InvalidMeasurement(
                f"{self.made_by} gave embeddings of shape {self.rows.shape} for {len(self.ids)} inputs; expected [{len(self.ids)}, d]"
            )

    @property
    def unit_rows(self) -> Float32Array:
        """float32 [n, d], each row of norm 1; a row of zeros stays zero, one that is not finite becomes NaN."""
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.linalg.norm(self.rows, axis=1, keepdims=True)
            return (self.rows / np.where(norms == 0, 1, norms)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RangeUse:
    """How much of the range that calibration gave it the input of each quantizer takes, one row of the inputs at a time.

    Attributes:
        shares: float32 [n, quantizers]: largest magnitude of the row there over the largest that calibration saw; above 1 it is clipped.
        quantizers: their module paths.
        inputs_digest: as in `Embeddings`.
    Raises:
        InvalidMeasurement: `shares` is not two-dimensional, or has another width than there are quantizers.
    """

    shares: Float32Array
    quantizers: tuple[str, ...]
    inputs_digest: str

    def __post_init__(self) -> None:
        if self.shares.ndim != 2 or self.shares.shape[1] != len(self.quantizers):
            raise InvalidMeasurement(
                f"shares of ranges are {list(self.shares.shape)}, for {len(self.quantizers)} quantizers; expected one column for each"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensor:
    """One operand of an engine layer. `datatype` is the compiler's own word, such as `FP8` or `Half`; -1 is a dynamic axis."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer of an engine, and the ONNX nodes that the compiler says it carries."""

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    tactic: str
    onnx_nodes: tuple[str, ...]
    stream: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """All layers of an engine.

    Attributes:
        source: which kind of document they were read from.
        ports: inputs and outputs of the engine; empty where the source does not give their types.
        lists_constants: whether rows list the weights they read. Where a source does not, an empty `constants` proves nothing.
    """

    rows: tuple[LayerRow, ...]
    source: str
    ports: tuple[LayerTensor, ...] = ()
    lists_constants: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """What an engine needs, in bytes. None: this source does not say."""

    weights_bytes: int | None
    plan_bytes: int | None
    activation_bytes: int | None
    source: str


class DevicePhase(StrEnum):
    """What an engine was doing when it asked for memory of the device."""

    LOAD = "load"  # deserialization: weights
    CONTEXT = "context"  # an execution context: activations
    BUFFERS = "buffers"  # inputs and outputs of a batch
    FIRST_LAUNCH = "first launch"  # also does what a library puts off until then
    LAUNCHES = "launches"  # all later ones
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBytes:
    """What one phase took of the device, as it was asked for, in bytes.

    Attributes:
        runtime_bytes, session_bytes: taken in it, by the library through its allocator and by us for inputs and outputs; what was given
            back again is not taken off.
        held_bytes: of both, what was held when it ended.
        peak_bytes: the most that was held at once during it.
        requests: how often memory was taken.
    """

    phase: DevicePhase
    runtime_bytes: int
    session_bytes: int
    held_bytes: int
    peak_bytes: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What running an engine took of the device, counted request by request where memory is taken.

    The driver's own (its context, kernels, granules to which it rounds) is in none of it, and neither is any other process's.

    Attributes:
        phases: those that were entered, in order.
        rows: batch of the launches.
        troubles: what went wrong with counting, in words; the figures are not to be trusted then.
    """

    phases: tuple[PhaseBytes, ...]
    rows: int = 0
    troubles: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The most that was held at once."""
        return max((phase.peak_bytes for phase in self.phases), default=0)

    @property
    def runtime_bytes(self) -> int:
        """Taken by the library, in all phases."""
        return sum(phase.runtime_bytes for phase in self.phases)

    @property
    def launch_bytes(self) -> int:
        """Taken by launches after the first, which need none."""
        return sum(phase.runtime_bytes + phase.session_bytes for phase in self.phases if phase.phase is DevicePhase.LAUNCHES)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSamples:
    """Launch times of one engine, in milliseconds, in the order they were taken.

    Attributes:
        engine: `EngineSpec.id`.
        batch: rows a launch.
        clock: who measured, such as `host`.
        ms: one figure a launch.
    """

    engine: str
    batch: int
    clock: str
    ms: tuple[float, ...]
