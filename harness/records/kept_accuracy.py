"""What a run keeps of an engine so that its accuracy can be judged again: which files hold the rows, and what they must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower

ACCURACY_SCHEMA = "enginegate/accuracy/1"
ACCURACY_FOLDER = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file of the run directory.

    Attributes:
        file: its name, with `/` between parts.
        sha256: of its bytes, in hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRows:
    """Embeddings, as an archive of numpy with `rows` (float32 [n, width]), `ids` (one text a row) and `inputs_digest`.

    Attributes:
        archive: where they are.
        n, width: their shape.
        inputs_digest: digest of the inputs they were made from.
        made_by: engine or reference, for people.
    """

    archive: KeptFile
    n: int
    width: int
    inputs_digest: str
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRangeUse:
    """How quantizers use their ranges, as an archive of numpy with `shares` (float32 [n, width]), `quantizers` and `inputs_digest`.

    Attributes:
        archive, n, width, inputs_digest: as in `KeptRows`.
    """

    archive: KeptFile
    n: int
    width: int
    inputs_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """What the rows are for; see `harness.records.task.Task`.

    Attributes:
        source: name of the evaluation data, free of paths.
        pictures, captions: how many different ones there are.
        pairs: an archive with `pairs` (int64 [m, 2]: a picture's row, a caption's row).
        other: FP32 rows of the tower that is not judged.
        logit_scale: what the model multiplies cosines with.
        same_weights: origin of the weights of both towers.
    """

    tower: Tower
    source: str
    pictures: int
    captions: int
    pairs: KeptFile
    other: KeptRows
    logit_scale: float
    same_weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAccuracy:
    """All that the accuracy verdicts of one engine rest on: the content of `accuracy/<engine>.json`.

    Attributes:
        weights: origin of the weights, free of paths.
        observed, exact, fake_quant, half, approved_snr_db, approved_to_fake_quant_db, range_use: as in
            `harness.judge.accuracy.evidence.AccuracyEvidence`, which this reads back as. Engines of one encoder name the same file where
            they were compared with the same rows.
    Raises:
        UnknownName: `encoder` or the batch profile is none.
    """

    encoder: str
    recipe: Recipe
    backend: str
    target: str | None
    batch: str
    weights: str
    observed: KeptRows
    exact: KeptRows
    fake_quant: KeptRows | None
    half: KeptRows | None
    task: KeptTask | None
    approved_snr_db: float | None
    range_use: KeptRangeUse | None = None  # runs that were made before it was looked at have none
    approved_to_fake_quant_db: float | None = None  # nor this, before it was stored
    schema: Literal["enginegate/accuracy/1"] = "enginegate/accuracy/1"

    def __post_init__(self) -> None:
        EncoderSpec.parse(self.encoder)

    @property
    def engine(self) -> EngineSpec:
        """The engine, as lines of gate.toml are matched with it; its weights are not part of that."""
        return EngineSpec(encoder=EncoderSpec.parse(self.encoder), recipe=self.recipe, backend=self.backend, target=self.target)


def file_stem(name: str) -> str:
    """An id of an encoder or engine as a file name."""
    return name.replace("/", "-")


def accuracy_file(engine: EngineSpec) -> str:
    """The name of its record in the run directory."""
    return f"{ACCURACY_FOLDER}/{file_stem(engine.id)}.json"
