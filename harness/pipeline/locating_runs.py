"""Finds where the engines of a finished run lose their accuracy. No engine is run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import EnginegateError, InvalidMeasurement, UnusableCheckpoint, UsageError
from harness.pipeline.locating import keep, locate
from harness.pipeline.making import Maker, Progress
from harness.pipeline.names import backend_of, recipe_of
from harness.records.localisation import Localisation
from harness.records.observations import Embeddings
from harness.records.run import EngineRow, RunRecord
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec
from harness.records.verdict import Status, Suite
from harness.report.localisation import localisation_text
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.codec import to_json, to_plain
from harness.store.kept_accuracy import KeptAccuracyReader
from harness.store.run_directory import RunDirectory, read_run, run_file


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedRun:
    """What was found for each engine that was looked at.

    Attributes:
        found: the engines that could be looked at.
        refused: for each that could not, by its id, why not.
    """

    found: tuple[Localisation, ...]
    refused: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0 where every engine could be looked at, whatever was found; 4 where one could not: nothing is known of it."""
        return InvalidMeasurement.exit_code if self.refused else 0

    @property
    def text(self) -> str:
        """For people."""
        refusals = (f"{Status.INVALID} {engine}: {words}" for engine, words in self.refused.items())
        return "\n\n\n".join((*map(localisation_text, self.found), *refusals))

    @property
    def document(self) -> str:
        """As a JSON document, without a last newline."""
        plain = {"found": [to_plain(one) for one in self.found], "refused": dict(self.refused)}
        return to_json(plain).decode().rstrip()


def locate_run(run_dir: Path, *, cache_dir: Path | None, weights: Mapping[str, str], progress: Progress) -> LocatedRun:
    """Look at every engine whose accuracy failed, or at all quantized ones if none did; leave `locate/<engine>.json` and `.svg` in the run.

    The graph comes from the artifact cache, or is made again. One that is not, byte for byte, what the run's engine was built from is
    not looked at.

    Args:
        run_dir: folder of a finished run, or its `run.json`.
        weights: for a configuration, the checkpoint file that the run was made with, since a run keeps its digest and no path.

    Raises:
        UsageError: no finished run, or one without an engine to look at.
        StoreFailed: the run directory cannot be written.
    """
    run = read_run(run_dir)
    folder = RunDirectory(run_file(run_dir).parent)
    maker = Maker(ArtifactCache(cache_dir or default_cache_dir()), progress)
    found: list[Localisation] = []
    refused: dict[str, str] = {}
    for row in _rows_to_look_at(run, run_dir):
        try:
            one = _located(maker, _spec_of(maker, row, weights), row, run_dir)
        except EnginegateError as error:
            refused[_name_of(row)] = str(error)
            continue
        keep(one, folder)
        found.append(one)
    return LocatedRun(found=tuple(found), refused=refused)


def _rows_to_look_at(run: RunRecord, run_dir: Path) -> tuple[EngineRow, ...]:
    failed = {
        (verdict.encoder, verdict.recipe, verdict.backend, verdict.target)
        for verdict in run.verdicts
        if verdict.suite is Suite.ACCURACY and verdict.status is Status.FAIL
    }
    rows = tuple(row for row in run.engines if (row.encoder, row.recipe, row.backend, row.target) in failed)
    rows = rows or tuple(row for row in run.engines if recipe_of(row.recipe).is_quantized)
    if not rows:
        raise UsageError(f"{run_dir}: holds no engine that failed in accuracy, and none with a quantized recipe; name another run")
    return rows


def _located(maker: Maker, spec: EngineSpec, row: EngineRow, run_dir: Path) -> Localisation:
    from harness.prepare.inputs import EVALUATION_ROWS, EmojiSet, Split

    made = maker.onnx(spec.encoder, spec.recipe)
    if made.sha256 != row.onnx_sha256:
        raise InvalidMeasurement(
            f"the graph that can be had here has sha256 {made.sha256[:12]}, the run's engine was built from "
            f"{(row.onnx_sha256 or 'none')[:12]}; another graph says nothing about it; "
            "use the cache, the libraries and the enginegate of that run"
        )
    kept = _kept_rows(spec, run_dir)
    inputs = maker.inputs(spec.encoder, EmojiSet(split=Split.EVALUATION, rows=min(len(kept[0].ids) if kept else _ROWS, EVALUATION_ROWS)))
    if kept is None or inputs.digest != kept[0].inputs_digest:  # data of the user's own: the graph is looked at on emoji all the same
        return locate(maker, spec, inputs, observed=None, exact=None)
    return locate(maker, spec, inputs, observed=kept[0], exact=kept[1])


_ROWS = 64  # where the run kept none


def _kept_rows(spec: EngineSpec, run_dir: Path) -> tuple[Embeddings, Embeddings] | None:
    """The engine's own rows and FP32 torch's, where the run kept them."""
    reader = KeptAccuracyReader(run_dir)
    record = next((record for record in reader.records() if record.engine.id == spec.id), None)
    if record is None:
        return None
    return reader.rows(record.observed, of=record), reader.rows(record.exact, of=record)


def _spec_of(maker: Maker, row: EngineRow, weights: Mapping[str, str]) -> EngineSpec:
    from harness.prepare.configurations import require_arch

    named = EncoderSpec.parse(row.encoder)
    require_arch(named.arch)
    return EngineSpec(
        encoder=next(_with_weights(maker, named, row, weights)),
        recipe=recipe_of(row.recipe),
        backend=backend_of(row.backend).name,
        target=row.target,
        batch=BatchProfile.parse(row.batch),
    )


def _with_weights(maker: Maker, encoder: EncoderSpec, row: EngineRow, weights: Mapping[str, str]) -> Iterator[EncoderSpec]:
    """The encoder with weights of the run's origin: those named, those that ship, or those that the origin itself names."""
    from harness.prepare.shipped import shipped_names

    given = weights.get(encoder.arch) or weights.get("")
    if given is not None:
        candidate = replace(encoder, weights=given)
        if (origin := maker.origin(candidate)) == row.weights:
            yield candidate
        raise UnusableCheckpoint(f"weights {given} are {origin}; the run's were {row.weights}; name the checkpoint of the run")
    if not row.weights.startswith("sha256:"):
        yield replace(encoder, weights=row.weights)
    shipped = (replace(encoder, weights=name) for name in shipped_names(encoder.arch))
    yield from (candidate for candidate in shipped if maker.origin(candidate) == row.weights)
    raise UnusableCheckpoint(
        f"the run's weights are a file with {row.weights}, whose path it does not keep; add --weights {encoder.arch}=PATH"
    )


def _name_of(row: EngineRow) -> str:
    return "-".join(filter(None, (row.encoder, row.recipe, row.backend, row.target)))
