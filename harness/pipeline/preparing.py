"""Exports encoders for a machine that can build engines and cannot export."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UsageError
from harness.need import version_of
from harness.pipeline.making import Maker, Progress
from harness.pipeline.seeing import Pipeline
from harness.records.policy import EvaluationRows
from harness.records.prepared import PreparedGraph, PreparedManifest, PreparedRows
from harness.records.spec import EncoderSpec, Recipe
from harness.store.atomic import copy_atomically, failing_in_words
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.prepared import MANIFEST, write_manifest, write_rows, written_file

SEED = 0  # of the random weights that take the places of those that were left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """What `enginegate prepare` was asked.

    Attributes:
        rows: evaluation inputs of each encoder.
        skeleton: leave large weights out, and with them the evaluation inputs.
    """

    encoders: tuple[EncoderSpec, ...]
    recipes: tuple[Recipe, ...]
    out: Path
    rows: int
    skeleton: bool
    cache_dir: Path | None


def prepare_folder(asked: Preparing, progress: Progress) -> PreparedManifest:
    """Export every encoder by every recipe into one folder; the manifest is written last.

    Raises:
        UsageError: something asked for is unknown or impossible.
        Broken: an export or the store failed.
    """
    if asked.out.exists() and not asked.out.is_dir():
        raise UsageError(f"--out names {asked.out}, which is a file; expected a folder")
    with failing_in_words(asked.out):
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / MANIFEST).unlink(missing_ok=True)
    maker = Maker(ArtifactCache(asked.cache_dir or default_cache_dir()), progress)
    pipeline = Pipeline(maker, evaluation_rows=EvaluationRows(seeded=asked.rows, trained=asked.rows), progress=progress)
    manifest = PreparedManifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        enginegate=version_of("enginegate") or "unknown",
        graphs=tuple(_graph(asked, maker, encoder, recipe) for encoder in asked.encoders for recipe in _recipes_on(asked, encoder)),
        rows=() if asked.skeleton else tuple(_rows(asked, pipeline, encoder) for encoder in asked.encoders),
    )
    write_manifest(asked.out, manifest)
    return manifest


def _recipes_on(asked: Preparing, encoder: EncoderSpec) -> tuple[Recipe, ...]:
    """The recipes without those that make a graph of this tower which another makes as well."""
    return tuple(dict.fromkeys(recipe.on(encoder.tower) for recipe in asked.recipes))


def _graph(asked: Preparing, maker: Maker, encoder: EncoderSpec, recipe: Recipe) -> PreparedGraph:
    made = maker.onnx(encoder, recipe)
    name = f"{encoder.stem}-{recipe}.onnx"
    taken = ()
    if asked.skeleton:
        from harness.prepare.skeleton import strip

        with failing_in_words(asked.out / name):
            taken = strip(made.path, asked.out / name)
    else:
        copy_atomically(made.path, asked.out / name)
    return PreparedGraph(
        encoder=encoder.name,
        weights=made.origin,
        recipe=recipe,
        file=written_file(asked.out, name),
        source_sha256=made.sha256,
        opset=made.opset,
        calibration=made.calibration,
        repairs=made.repairs,
        amax=made.amax,
        made_by=made.versions,
        taken=taken,
        seed=SEED,
    )


def _rows(asked: Preparing, pipeline: Pipeline, encoder: EncoderSpec) -> PreparedRows:
    inputs, reference = pipeline.inputs(encoder), pipeline.reference(encoder)
    name = f"{encoder.stem}-rows.npz"
    write_rows(asked.out, name, inputs, reference)
    return PreparedRows(
        encoder=encoder.name,
        file=written_file(asked.out, name),
        input=inputs.name,
        ids=inputs.ids,
        digest=inputs.digest,
        made_by=reference.made_by,
    )
