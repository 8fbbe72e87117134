"""What accuracy verdicts rest on, in the run directory and back: a JSON record an engine, and archives of rows that engines share.

Every archive is held to the digest that the record has of it before a number in it is believed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableInputs, UsageError
from harness.records.kept_accuracy import (
    ACCURACY_FOLDER,
    ACCURACY_SCHEMA,
    KeptAccuracy,
    KeptFile,
    KeptRangeUse,
    KeptRows,
    KeptTask,
    accuracy_file,
    file_stem,
)
from harness.records.observations import Embeddings, RangeUse
from harness.records.task import Pairing, Task
from harness.store.codec import from_plain, read_json, require_schema
from harness.store.run_directory import RunDirectory, kept_bytes, run_file

_AGAIN = "copy the whole folder, or run again"
_ROWS = {"rows", "ids", "inputs_digest"}
_RANGE_USE = {"shares", "quantizers", "inputs_digest"}


def keep_rows(folder: RunDirectory, name: str, seen: Embeddings) -> KeptRows:
    """Keep embeddings as `samples/<name>-embeddings.npz`, once.

    Raises:
        StoreFailed: no room, or no right to write.
    """
    rows = np.asarray(seen.rows, dtype=np.float32)
    archive = folder.save_arrays_once(
        f"{file_stem(name)}-embeddings", rows=rows, ids=np.asarray(seen.ids), inputs_digest=np.asarray(seen.inputs_digest)
    )
    return KeptRows(archive=archive, n=rows.shape[0], width=rows.shape[1], inputs_digest=seen.inputs_digest, made_by=seen.made_by)


def keep_range_use(folder: RunDirectory, name: str, seen: RangeUse) -> KeptRangeUse:
    """Keep how quantizers use their ranges as `samples/<name>-range-use.npz`, once.

    Raises:
        StoreFailed: no room, or no right to write.
    """
    n, width = seen.shares.shape
    archive = folder.save_arrays_once(
        f"{file_stem(name)}-range-use",
        shares=np.asarray(seen.shares, dtype=np.float32),
        quantizers=np.asarray(seen.quantizers),
        inputs_digest=np.asarray(seen.inputs_digest),
    )
    return KeptRangeUse(archive=archive, n=n, width=width, inputs_digest=seen.inputs_digest)


def keep_task(folder: RunDirectory, task: Task, *, other: KeptRows) -> KeptTask:
    """Keep what rows are for, beside the kept rows of the other tower.

    Raises:
        StoreFailed: no room, or no right to write.
    """
    pairing = task.pairing
    return KeptTask(
        tower=task.tower,
        source=pairing.source,
        pictures=pairing.pictures,
        captions=pairing.captions,
        pairs=folder.save_arrays_once("pairs", pairs=np.asarray(pairing.pairs, dtype=np.int64)),
        other=other,
        logit_scale=float(task.logit_scale),
        same_weights=task.same_weights,
    )


class KeptAccuracyReader:
    """Reads what a run keeps of its engines' accuracy; an archive that several of them name is read once.

    Args:
        path: the run's folder, or its `run.json`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[KeptRows, Embeddings] = {}

    def records(self) -> tuple[KeptAccuracy, ...]:
        """The record of every engine that has one, in the order of their names.

        Raises:
            UsageError: one of them is cut, no such record, of a newer version, or under another engine's name.
        """
        folder = run_file(self._path).parent / ACCURACY_FOLDER
        return tuple(self._record(f"{ACCURACY_FOLDER}/{file.name}") for file in sorted(folder.glob("*.json")))

    def _record(self, relative: str) -> KeptAccuracy:
        file, content = kept_bytes(self._path, relative, named_by=ACCURACY_FOLDER)
        plain = read_json(content, origin=str(file), refuse=UsageError)
        require_schema(plain, ACCURACY_SCHEMA, origin=str(file), refuse=UsageError)
        record = from_plain(KeptAccuracy, plain, origin=str(file), refuse=UsageError)
        if accuracy_file(record.engine) != relative:
            raise UsageError(f"{file}: is about {record.engine.id}, whose record is {accuracy_file(record.engine)}; {_AGAIN}")
        return record

    def rows(self, kept: KeptRows, *, of: KeptAccuracy) -> Embeddings:
        """The embeddings that `kept` describes.

        Args:
            kept: from the record `of`, which errors name.

        Raises:
            UsageError: the archive is missing, cut, changed, needs pickle, or holds other than the record says.
        """
        if kept not in self._rows:
            self._rows[kept] = self._read_rows(kept, accuracy_file(of.engine))
        return self._rows[kept]

    def range_use(self, kept: KeptRangeUse, *, of: KeptAccuracy) -> RangeUse:
        """How the quantizers of `of` use their ranges.

        Raises:
            UsageError: as `rows`.
        """
        named_by = accuracy_file(of.engine)
        file, arrays = self._archive(kept.archive, named_by, _RANGE_USE)
        shares, quantizers = arrays["shares"], arrays["quantizers"]
        _require_rows(file, shares, kept, named_by)
        _require_texts(file, "quantizers", quantizers, kept.width, "column")
        _require_inputs(file, arrays["inputs_digest"], kept, named_by)
        return RangeUse(shares=shares, quantizers=tuple(map(str, quantizers)), inputs_digest=kept.inputs_digest)

    def task(self, kept: KeptTask, *, of: KeptAccuracy) -> Task:
        """What the rows of `of` are for.

        Raises:
            UsageError: as `rows`; or pairs that name rows which there are not.
        """
        file, arrays = self._archive(kept.pairs, accuracy_file(of.engine), {"pairs"})
        pairs = arrays["pairs"]
        if pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 2:
            _refuse(file, f"has pairs of {_kind(pairs)}", "int64 [m, 2]")
        other, judged = (kept.captions, kept.pictures) if kept.tower == "image" else (kept.pictures, kept.captions)
        if (kept.other.n, of.exact.n) != (other, judged):
            found = f"pairs {kept.pictures} pictures with {kept.captions} captions"
            _refuse(file, found, f"as many as {accuracy_file(of.engine)} has rows: {of.exact.n} {kept.tower} rows, {kept.other.n} others")
        try:
            pairing = Pairing(source=kept.source, pictures=kept.pictures, captions=kept.captions, pairs=pairs)
        except UnusableInputs as error:
            raise UsageError(f"{file}: {error}; {_AGAIN}") from error
        return Task(
            tower=kept.tower,
            pairing=pairing,
            other=self.rows(kept.other, of=of),
            logit_scale=kept.logit_scale,
            same_weights=kept.same_weights,
        )

    def _read_rows(self, kept: KeptRows, named_by: str) -> Embeddings:
        file, arrays = self._archive(kept.archive, named_by, _ROWS)
        rows, ids = arrays["rows"], arrays["ids"]
        _require_rows(file, rows, kept, named_by)
        _require_texts(file, "ids", ids, kept.n, "row")
        _require_inputs(file, arrays["inputs_digest"], kept, named_by)
        return Embeddings(rows=rows, ids=tuple(map(str, ids)), inputs_digest=kept.inputs_digest, made_by=kept.made_by)

    def _archive(self, kept: KeptFile, named_by: str, wanted: set[str]) -> tuple[Path, dict[str, NDArray[Any]]]:
        file, content = kept_bytes(self._path, kept.file, named_by=named_by)
        if (found := hashlib.sha256(content).hexdigest()) != kept.sha256:
            _refuse(file, f"has sha256 {found[:12]}", f"{kept.sha256[:12]}, as {named_by} says: it was changed or cut since the run")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:  # Type, Attribute: one lone array
            raise UsageError(f"{file}: is no archive of plain arrays ({error}); {_AGAIN}") from error
        if set(arrays) != wanted:
            _refuse(file, f"holds {', '.join(sorted(arrays)) or 'nothing'}", ", ".join(sorted(wanted)))
        return file, arrays


def _require_rows(file: Path, rows: NDArray[Any], kept: KeptRows | KeptRangeUse, named_by: str) -> None:
    if rows.dtype != np.float32 or rows.shape != (kept.n, kept.width):
        _refuse(file, f"has rows of {_kind(rows)}", f"float32 [{kept.n}, {kept.width}], as {named_by} says")


def _require_texts(file: Path, what: str, texts: NDArray[Any], n: int, of: str) -> None:
    if texts.dtype.kind != "U" or texts.shape != (n,):
        _refuse(file, f"has {what} of {_kind(texts)}", f"{n} texts, one a {of}")


def _require_inputs(file: Path, digest: NDArray[Any], kept: KeptRows | KeptRangeUse, named_by: str) -> None:
    if str(digest) != kept.inputs_digest:
        _refuse(file, f"was seen on inputs {str(digest)[:12]}", f"{kept.inputs_digest[:12]}, as {named_by} says")


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _refuse(file: Path, found: str, expected: str) -> NoReturn:
    raise UsageError(f"{file}: {found}; expected {expected}; {_AGAIN}")
