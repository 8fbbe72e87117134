"""Artifacts that are expensive to make, kept by the digest of what they were made from.

An entry is a folder whose manifest is written last and which appears under its name by one rename. Whatever else lies in
the cache after a crash is a leftover, is never read, and is removed by the next process that asks for the same key.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from harness.errors import StoreFailed
from harness.store.atomic import failing_in_words, flush_folder, flush_names, in_words, is_full, write_atomically
from harness.store.codec import JsonValue, canonical_json, from_json, to_json

MANIFEST = "manifest.json"

_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_OWN_FOLDERS = ("locks", "partial", "quarantine")
_PATIENCE_SECONDS = 3.0  # short waits are normal when workers start together, and not worth a line
_REMINDER_SECONDS = 30.0
_READ_BYTES = 1 << 20

# Reading 600 MB to digest them takes a second: once a process is enough for an entry that nobody has replaced since.
_verified: set[tuple[Path, str]] = set()
# By device, inode, time of its last change in nanoseconds, and bytes.
_digested: dict[tuple[int, ...], str] = {}
# Workers forked from one process are one session as well.
_PROCESS_SESSION = secrets.token_hex(8)


class CacheMode(StrEnum):
    """What a run may do with the cache."""

    USE = "use"
    REBUILD = "rebuild"  # once a session, whatever is there
    READONLY = "readonly"  # write nothing, not even a lock


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """One file of an entry, when it was built."""

    sha256: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One artifact in the cache.

    Attributes:
        key: sha256 of `kind` and what it was made from.
        facts: what the builder said about it.
        files: by name relative to `folder`, with `/` between parts.
        build_seconds: time the build took when it was made, in seconds.
        hit: whether the first fetch of this session found it built.
    """

    kind: str
    key: str
    folder: Path
    facts: Mapping[str, JsonValue]
    files: Mapping[str, FileFacts]
    build_seconds: float
    hit: bool

    def path(self, name: str) -> Path:
        """Where the file `name` lies.

        Raises:
            StoreFailed: the entry has no such file.
        """
        if name not in self.files:
            raise StoreFailed(
                f"{self.kind} {self.key[:12]} has no file {name!r}; it has {', '.join(self.files) or 'none'}; look at {self.folder}"
            )
        return self.folder / name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    kind: str
    made_from: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, FileFacts]
    build_seconds: float
    made_at: str
    session_id: str
    schema: Literal["enginegate/cache/1"]


class _Damaged(Exception):
    """What is wrong with an entry, in words. It never leaves this module."""


def silent(_text: str) -> None:
    """A note that nobody reads."""


def default_cache_dir() -> Path:
    """`ENGINEGATE_CACHE_DIR`, else the user's cache folder."""
    if named := os.environ.get("ENGINEGATE_CACHE_DIR"):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("enginegate", appauthor=False)


def cache_key(kind: str, made_from: Mapping[str, JsonValue]) -> str:
    """Sha256, in hex, of what an artifact is and what it is made from."""
    return hashlib.sha256(canonical_json({"kind": kind, "made_from": made_from})).hexdigest()


class ArtifactCache:
    """Artifacts by content, shared by processes: one of them builds, the others wait and find it built.

    Args:
        root: the cache folder; made when it is first written to.
        mode: what this run may do with it.
        note: told, in words, what a user should know: a long wait, a damaged entry.
        session_id: the same in all processes of one run, so that under `REBUILD` they do not build again what another of them built;
            left out, each process is a session.
    """

    def __init__(self, root: Path, mode: CacheMode = CacheMode.USE, note: Callable[[str], None] = silent, *, session_id: str = "") -> None:
        self._root = root.absolute()
        self._mode = mode
        self._note = note
        self._session_id = session_id or _PROCESS_SESSION
        self._fetched: dict[str, CacheEntry] = {}

    def fetch(self, kind: str, made_from: Mapping[str, JsonValue], build: Callable[[Path], Mapping[str, JsonValue]]) -> CacheEntry:
        """The artifact made from `made_from`, built now unless it is there.

        Args:
            kind: what it is, such as `onnx`; a folder of the cache.
            made_from: everything its content depends on.
            build: leaves the files in the folder it is given, and returns facts about them. What it raises goes on to the caller,
                and nothing of it is kept.

        Raises:
            StoreFailed: the cache cannot be read or written, the disk is full, or it is read-only and lacks the artifact.
        """
        key = cache_key(kind, made_from)
        if key not in self._fetched:
            self._fetched[key] = self._fetch(_named(kind), key, made_from, build)
        return self._fetched[key]

    def holds(self, kind: str, made_from: Mapping[str, JsonValue]) -> bool:
        """Whether `fetch` would find the artifact, unless it is damaged."""
        key = cache_key(kind, made_from)
        return key in self._fetched or (self._mode is not CacheMode.REBUILD and (self._folder(kind, key) / MANIFEST).is_file())

    def file_of(self, kind: str, sha256: str) -> Path | None:
        """A file of that content among the artifacts of a kind; None where there is none, or its entry is damaged."""
        for manifest in sorted((self._root / kind).glob(f"*/{MANIFEST}")):
            with suppress(OSError, StoreFailed):
                read = from_json(_Manifest, manifest.read_bytes(), origin=str(manifest))
                for name, facts in read.files.items():
                    if facts.sha256 == sha256 and (manifest.parent / name).is_file():
                        return manifest.parent / name
        return None

    def _fetch(
        self, kind: str, key: str, made_from: Mapping[str, JsonValue], build: Callable[[Path], Mapping[str, JsonValue]]
    ) -> CacheEntry:
        if self._mode is CacheMode.READONLY:
            return self._read_only(kind, key)
        self._prepare_folders(kind)
        with self._locked(kind, key):
            for leftover in (self._root / "partial").glob(f"{key}-*"):  # who holds the lock is alone: their makers died
                _discard(leftover)
            found = self._usable(kind, key)
            if found and (self._mode is CacheMode.USE or found.session_id == self._session_id):
                return _entry(found, key, self._folder(kind, key), hit=True)
            return _entry(self._built(kind, key, made_from, build), key, self._folder(kind, key), hit=False)

    def _read_only(self, kind: str, key: str) -> CacheEntry:
        folder = self._folder(kind, key)
        if not folder.is_dir():
            raise StoreFailed(f"the cache {self._root} has no {kind} {key[:12]} and may only be read; run once without the read-only mode")
        try:
            return _entry(_verified_manifest(folder, key), key, folder, hit=True)
        except _Damaged as damage:
            raise StoreFailed(
                f"the cached {kind} {folder} is damaged ({damage}) and may only be read; run once without the read-only mode"
            ) from damage

    def _prepare_folders(self, kind: str) -> None:
        for folder in (kind, *_OWN_FOLDERS):
            try:
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._unusable(error) from error

    def _usable(self, kind: str, key: str) -> _Manifest | None:
        """The manifest of a sound entry. A damaged one is moved out of the way, so that it is built again and can be looked at."""
        folder = self._folder(kind, key)
        if not folder.exists():
            return None
        try:
            return _verified_manifest(folder, key)
        except _Damaged as damage:
            kept = self._quarantine(folder, key)
            self._note(f"the cached {kind} {key[:12]} was damaged ({damage}); it was moved to {kept} and is built again")
            return None

    def _quarantine(self, folder: Path, key: str) -> Path:
        quarantine = self._root / "quarantine"
        for earlier in quarantine.glob(f"{key}-*"):  # the latest of a key is enough, and these can be large
            _discard(earlier)
        kept = quarantine / f"{key}-{secrets.token_hex(4)}"
        with failing_in_words(kept):
            folder.rename(kept)
        return kept

    def _built(
        self, kind: str, key: str, made_from: Mapping[str, JsonValue], build: Callable[[Path], Mapping[str, JsonValue]]
    ) -> _Manifest:
        partial = self._root / "partial" / f"{key}-{os.getpid()}-{secrets.token_hex(4)}"
        with failing_in_words(partial):
            partial.mkdir()
        try:
            facts, build_seconds = _timed_build(build, partial)
            manifest = _Manifest(
                schema="enginegate/cache/1",
                kind=kind,
                made_from=dict(made_from),
                facts=dict(facts),
                files=_files_of(partial),
                build_seconds=build_seconds,
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                session_id=self._session_id,
            )
            return self._published(manifest, partial, key)
        finally:
            _discard(partial)

    def _published(self, manifest: _Manifest, partial: Path, key: str) -> _Manifest:
        document = to_json(manifest)
        write_atomically(partial / MANIFEST, document)
        folder = self._folder(manifest.kind, key)
        with failing_in_words(folder):
            flush_folder(partial)
            if folder.exists():  # only when rebuilding: a process that dies here leaves a miss, not a mixture
                folder.rename(self._root / "partial" / f"{key}-replaced-{secrets.token_hex(4)}")
            partial.rename(folder)
            flush_names(folder.parent)
        for replaced in (self._root / "partial").glob(f"{key}-replaced-*"):
            _discard(replaced)
        _verified.add((folder, hashlib.sha256(document).hexdigest()))
        # Read back, so that a builder and those who find its work see the same types.
        return from_json(_Manifest, document, origin=str(folder / MANIFEST))

    @contextmanager
    def _locked(self, kind: str, key: str) -> Generator[None]:
        from filelock import FileLock

        lock = FileLock(self._root / "locks" / f"{key}.lock")
        owner = self._root / "locks" / f"{key}.owner"
        try:
            self._acquire(lock.acquire, f"{kind} {key[:12]}", owner)
        except (OSError, NotImplementedError) as error:
            raise self._unusable(error) from error
        try:
            with suppress(OSError):  # only for people who wait
                owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            lock.release()

    def _acquire(self, acquire: Callable[[float], object], what: str, owner: Path) -> None:
        from filelock import Timeout

        started = time.monotonic()
        patience = _PATIENCE_SECONDS
        while True:
            try:
                acquire(patience)
            except Timeout:
                self._note(f"waiting for {what}, which {_text(owner)} is building ({time.monotonic() - started:.0f} s so far)")
                patience = _REMINDER_SECONDS
            else:
                return

    def _folder(self, kind: str, key: str) -> Path:
        return self._root / kind / key

    def _unusable(self, error: Exception) -> StoreFailed:
        if isinstance(error, OSError) and is_full(error):
            return in_words(error, self._root)
        found = (isinstance(error, OSError) and error.strerror) or error
        return StoreFailed(
            f"the cache folder {self._root} cannot be made, written or locked ({found}); expected a folder that this user can write, "
            "on a disk with file locks; choose another with --cache-dir or ENGINEGATE_CACHE_DIR"
        )


def _named(kind: str) -> str:
    if not _KIND.fullmatch(kind) or kind in _OWN_FOLDERS:
        raise StoreFailed(
            f"{kind!r} names no kind of artifact; expected lower case letters, digits, - and _, and none of {', '.join(_OWN_FOLDERS)}"
        )
    return kind


def _entry(manifest: _Manifest, key: str, folder: Path, *, hit: bool) -> CacheEntry:
    return CacheEntry(
        kind=manifest.kind,
        key=key,
        folder=folder,
        facts=manifest.facts,
        files=manifest.files,
        build_seconds=manifest.build_seconds,
        hit=hit,
    )


def _timed_build(build: Callable[[Path], Mapping[str, JsonValue]], partial: Path) -> tuple[Mapping[str, JsonValue], float]:
    started = time.monotonic()
    try:
        facts = build(partial)
    except OSError as error:
        if is_full(error):
            raise in_words(error, partial) from error
        raise
    return facts, time.monotonic() - started


def _files_of(folder: Path) -> dict[str, FileFacts]:
    files: dict[str, FileFacts] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise StoreFailed(
                f"the build left the link {name}, whose target the cache does not keep; expected plain files; copy the file instead"
            )
        if path.is_file():
            files[name] = FileFacts(sha256=_sha256(path), nbytes=path.stat().st_size)
    if MANIFEST in files:
        raise StoreFailed(f"the build left a file {MANIFEST}, a name that the cache keeps for itself; give it another name")
    return files


def _verified_manifest(folder: Path, key: str) -> _Manifest:
    """The manifest of an entry whose files are those that were built.

    Raises:
        _Damaged: they are not.
    """
    try:
        document = (folder / MANIFEST).read_bytes()
        manifest = from_json(_Manifest, document, origin=MANIFEST)
    except (OSError, StoreFailed) as error:
        raise _Damaged(getattr(error, "strerror", None) or str(error)) from error
    if cache_key(manifest.kind, manifest.made_from) != key:
        raise _Damaged(f"{MANIFEST} belongs to another entry")
    seen = (folder, hashlib.sha256(document).hexdigest())
    for name, built in manifest.files.items():
        _compare(folder / name, built, digest=seen not in _verified)
    _verified.add(seen)
    return manifest


def _compare(path: Path, built: FileFacts, *, digest: bool) -> None:
    try:
        seen = path.stat()
        if seen.st_size != built.nbytes:
            raise _Damaged(f"{path.name} has {seen.st_size:,} bytes; it was built with {built.nbytes:,}")
        if digest and _sha256_of(path, (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size)) != built.sha256:
            raise _Damaged(f"{path.name} has other content than what was built")
    except OSError as error:
        raise _Damaged(f"{path.name}: {error.strerror}") from error


def _sha256_of(path: Path, file: tuple[int, ...]) -> str:
    """The digest of a file that may have several names: an engine that is the ONNX file itself is a link to it."""
    if file not in _digested:
        _digested[file] = _sha256(path)
    return _digested[file]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _discard(folder: Path) -> None:
    # What cannot be removed now, such as a file that is open on Windows, is a leftover for the next process.
    shutil.rmtree(folder, ignore_errors=True)


def _text(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
