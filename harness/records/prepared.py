"""Exported encoders on their way to a machine that can build engines and cannot export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.records.artifacts import Repair
from harness.records.spec import EncoderSpec, Recipe

PREPARED_SCHEMA = "enginegate/prepared/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFile:
    """A file of the folder: its name, its content's sha256 and its size in bytes."""

    file: str
    sha256: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenTensor:
    """A weight whose numbers were left out.

    Attributes:
        dtype: ONNX's word, such as `FLOAT8E4M3FN`.
        mean, deviation: of its numbers as stored; for FP8 those are codes, before their scale.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedGraph:
    """One exported encoder.

    Attributes:
        encoder: `ARCH/TOWER`.
        weights: origin of the weights that it was exported with, free of paths.
        calibration: digest of the inputs that set the activation scales; None without quantization.
        amax: largest magnitude that each quantizer saw while it was calibrated, by its module path.
        made_by: versions of the libraries that exported it.
        source_sha256: of the whole ONNX file; another one than `file` has where weights were taken out.
        taken: weights that were left out; random ones of the same mean and deviation, drawn from `seed`, take their places.
    """

    encoder: str
    weights: str
    recipe: Recipe
    file: PreparedFile
    source_sha256: str
    opset: int
    calibration: str | None = None
    repairs: tuple[Repair, ...] = ()
    amax: Mapping[str, float] = field(default_factory=dict[str, float])
    made_by: Mapping[str, str] = field(default_factory=dict[str, str])
    taken: tuple[TakenTensor, ...] = ()
    seed: int = 0

    @property
    def is_refilled(self) -> bool:
        """Whether engines of it have random weights: times, bytes and layers count, and embeddings mean nothing."""
        return bool(self.taken)

    @property
    def spec(self) -> EncoderSpec:
        """The encoder under the origin of its weights, which is all that is known of them elsewhere."""
        return EncoderSpec.parse(self.encoder, weights=self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows:
    """Evaluation inputs of one encoder and what it makes of them in FP32: arrays `rows` and `reference` of one npz file.

    Attributes:
        input: the engine's input, `image` or `tokens`.
        ids: what each row shows.
        digest: of the inputs, as in `EncoderInputs`.
        made_by: who computed the reference, for people.
    """

    encoder: str
    file: PreparedFile
    input: str
    ids: tuple[str, ...]
    digest: str
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedManifest:
    """What a prepared folder holds. `rows` has no line for encoders whose weights were taken out."""

    made_at: str
    enginegate: str
    graphs: tuple[PreparedGraph, ...]
    rows: tuple[PreparedRows, ...] = ()
    schema: Literal["enginegate/prepared/1"] = "enginegate/prepared/1"

    def rows_of(self, encoder: str) -> PreparedRows | None:
        """The evaluation inputs of `ARCH/TOWER`; None where there are none."""
        return next((rows for rows in self.rows if rows.encoder == encoder), None)
