"""The folder that a run leaves behind. `run.json` is written last: a folder without it is a run that did not finish."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import StoreFailed, UsageError
from harness.records.kept_accuracy import KeptFile
from harness.records.run import RUN_SCHEMA, RunRecord
from harness.store.atomic import copy_atomically, failing_in_words, write_atomically, write_once
from harness.store.codec import from_json, from_plain, read_json, require_schema, to_json

RUN_FILE = "run.json"
Kept = TypeVar("Kept")


class RunDirectory:
    """One run's folder. Make it with `shared`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def shared(cls, path: Path) -> RunDirectory:
        """The folder of this very run, made by whichever of its processes comes first.

        Raises:
            StoreFailed: it cannot be made.
        """
        with failing_in_words(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def save_arrays(self, name: str, /, **arrays: NDArray[Any]) -> Path:
        """Keep arrays as `samples/<name>.npz`, readable without pickle, and say where.

        Raises:
            StoreFailed: an array of Python objects, a name that leaves the folder, no room, or no right to write.
        """
        path = self._inside(f"samples/{name}.npz")
        write_atomically(path, _archive(name, arrays))
        return path

    def save_arrays_once(self, name: str, /, **arrays: NDArray[Any]) -> KeptFile:
        """Keep arrays as `samples/<name>.npz`, and replace nothing: other arrays of that name go to a file named by their digest.

        Records name the file with its digest, and an engine that another process of this run ran as well need not give the same bits.

        Raises:
            StoreFailed: as `save_arrays`.
        """
        document = _archive(name, arrays)
        sha256 = hashlib.sha256(document).hexdigest()
        file = f"samples/{name}.npz"
        if not write_once(self._inside(file), document):
            file = f"samples/{name}-{sha256[:12]}.npz"
            write_atomically(self._inside(file), document)
        return KeptFile(file=file, sha256=sha256)

    def save_text(self, relative: str, text: str) -> Path:
        """Keep `text` as the file `relative`, in UTF-8, and say where.

        Raises:
            StoreFailed: a name that leaves the folder, no room, or no right to write.
        """
        path = self._inside(relative)
        write_atomically(path, text.encode("utf-8", errors="backslashreplace"))
        return path

    def copy_in(self, relative: str, source: Path) -> Path:
        """Keep a copy of `source` as the file `relative`, and say where.

        Raises:
            StoreFailed: no such source, a name that leaves the folder, no room, or no right to write.
        """
        path = self._inside(relative)
        copy_atomically(source, path)
        return path

    def finish(self, run: RunRecord) -> Path:
        """Write `run.json`, which says that everything else is there.

        Raises:
            StoreFailed: a figure is NaN, no room, or no right to write.
        """
        path = self._path / RUN_FILE
        write_atomically(path, to_json(run))
        return path

    def _inside(self, relative: str) -> Path:
        parts = PurePosixPath(relative)
        if parts.is_absolute() or not parts.parts or ".." in parts.parts:
            raise StoreFailed(f"{relative!r} is no file inside {self._path}; expected a relative name without ..")
        return self._path / parts


def _archive(name: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    for label, array in arrays.items():
        if array.dtype.hasobject:
            raise StoreFailed(f"array {label!r} of {name} holds Python objects; expected numbers or texts, which need no pickle to read")
    document = io.BytesIO()
    np.savez(document, allow_pickle=False, **arrays)
    return document.getvalue()


def fresh_run_path(base: Path) -> Path:
    """A name below `base` that no run has had: `<UTC time>-<id>`. Nothing is made."""
    return base / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def require_empty(path: Path) -> None:
    """Refuse a folder for a new run that holds anything: two runs in one folder would mix.

    Raises:
        UsageError: it is a file, or holds something.
        StoreFailed: it cannot be listed.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; expected a folder for this run; name another with --run-dir")
    with failing_in_words(path):
        found = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    if found:
        raise UsageError(f"{path} already holds {found[0]!r}; expected an empty or absent folder for this run; name another with --run-dir")


def append_step_summary(text: str) -> None:
    """Show `text` on the summary page of a GitHub Actions step; elsewhere do nothing.

    Raises:
        StoreFailed: the runner names a file that cannot be written.
    """
    if named := os.environ.get("GITHUB_STEP_SUMMARY"):
        # Appended, not replaced: the file is the runner's, and other commands of the step write to it.
        with failing_in_words(Path(named)), Path(named).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{text}\n")


def run_file(path: Path) -> Path:
    """The record of a run that was named by its folder, or by the record itself."""
    return path / RUN_FILE if path.is_dir() else path


def read_run(path: Path) -> RunRecord:
    """Read a run: its folder, or its `run.json`.

    Raises:
        UsageError: there is none, it is no run record, or a newer enginegate made it.
    """
    file = run_file(path)
    plain = read_json(_bytes(file, f"a finished run, whose folder holds {RUN_FILE}"), origin=str(file), refuse=UsageError)
    require_schema(plain, RUN_SCHEMA, origin=str(file), refuse=UsageError)
    return from_plain(RunRecord, plain, origin=str(file), refuse=UsageError)


def read_kept(path: Path, relative: str, kind: type[Kept]) -> Kept:
    """Read a record that a run keeps beside its `run.json`, such as a layer table.

    Args:
        path: the run's folder, or its `run.json`.
        relative: the file's name, as `run.json` gives it.
        kind: the record's class.

    Raises:
        UsageError: it is missing, cut, no such record, or named outside the folder.
    """
    file, content = kept_bytes(path, relative, named_by=RUN_FILE)
    return from_json(kind, content, origin=str(file), refuse=UsageError)


def kept_bytes(path: Path, relative: str, *, named_by: str) -> tuple[Path, bytes]:
    """A file that a run keeps, and its content.

    Args:
        path: the run's folder, or its `run.json`.
        relative: the file's name.
        named_by: the file of the run that says so.

    Raises:
        UsageError: it is missing, or lies outside the folder, also by way of a link.
    """
    folder = run_file(path).parent
    parts = PurePosixPath(relative)
    try:
        leaves = parts.is_absolute() or ".." in parts.parts or not (folder / parts).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a zero byte in the name: reading it says so
        leaves = False
    if leaves:
        raise UsageError(f"{folder / named_by}: names {relative!r}; expected a file inside the run's own folder")
    return folder / parts, _bytes(folder / parts, f"a file that {named_by} names; copy the whole folder, or run again")


def read_inputs_digest(path: Path, name: str) -> str | None:
    """Digest of the inputs that the embeddings `samples/<name>.npz` were seen on; None where the run kept none.

    Raises:
        UsageError: the file is no such archive.
    """
    file = run_file(path).parent / f"samples/{name}.npz"
    if not file.exists():
        return None
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            return str(arrays["inputs_digest"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:  # TypeError: a single array, of `np.save`
        raise UsageError(f"{file}: is no archive of embeddings ({error}); copy the whole folder, or run again") from error


def _bytes(file: Path, expected: str) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{file}: cannot be read ({why}); expected {expected}") from error
