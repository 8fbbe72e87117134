"""Engines by the sha256 of their content, in a folder beside the JSON baselines: a share, or a CI cache.

An object store that can put and get files by name fits behind the same three verbs.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

from harness.errors import AlteredBlob, MissingBlob, StoreFailed, UnreachableBlobs
from harness.store.atomic import copy_atomically

BLOBS_VARIABLE = "ENGINEGATE_BLOBS"


class BlobStore(Protocol):
    """Files by their digests. Every verb raises UnreachableBlobs where the store cannot be reached."""

    def has(self, sha256: str) -> bool:
        """Whether there is such a file; what it holds is looked at by `fetch`."""
        ...

    def fetch(self, sha256: str) -> Path:
        """A file on this machine whose content has this digest, looked at now. It must not be changed.

        Raises:
            MissingBlob: there is none.
            AlteredBlob: there is one with other content.
        """
        ...

    def keep(self, path: Path) -> str:
        """Store the file's content, and say under which digest.

        Raises:
            StoreFailed: the file cannot be read, or there is no room.
        """
        ...


class FolderBlobs:
    """A blob store in a folder that is there: one that is not may be a share that was not mounted, and is never made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return f"the blob store {self._folder}"

    def has(self, sha256: str) -> bool:
        """Whether there is such a file."""
        self._require_folder()
        return self._is_there(self._path(sha256))

    def fetch(self, sha256: str) -> Path:
        """The file itself; see `BlobStore.fetch`."""
        path = self._path(sha256)
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise MissingBlob(f"{sha256!r} is no sha256; expected 64 hexadecimal digits")
        if not self.has(sha256):
            place = path.relative_to(self._folder)
            raise MissingBlob(f"{self} has no {sha256[:16]}…; put it back as {place}, or build the engine again and look at its sha256")
        found = self._digest(path)
        if found != sha256:
            raise AlteredBlob(
                f"{path} has sha256 {found[:16]}… and not the one it is named by; it was altered or cut short: remove it, and put the "
                "engine back or build it again"
            )
        return path

    def keep(self, path: Path) -> str:
        """Copy the file in, unless its content is there already; see `BlobStore.keep`."""
        self._require_folder()
        sha256 = self._digest(path)
        kept = self._path(sha256)
        if not self._is_there(kept) or self._digest(kept) != sha256:
            try:
                copy_atomically(path, kept)
            except StoreFailed as error:
                raise UnreachableBlobs(f"{self} takes no {path.name}: {error}") from error
        return sha256

    def _is_there(self, path: Path) -> bool:
        try:
            return path.is_file()
        except OSError as error:
            raise UnreachableBlobs(f"{path} cannot be looked at ({error.strerror}); expected a folder that this user can read") from error

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _require_folder(self) -> None:
        try:
            is_folder = self._folder.is_dir() and os.access(self._folder, os.R_OK | os.X_OK)
        except OSError as error:
            raise UnreachableBlobs(f"{self} cannot be reached ({error.strerror})") from error
        if not is_folder:
            raise UnreachableBlobs(
                f"{self} cannot be reached: there is no such folder, or this user may not read it; mount the share, make the folder, or "
                f"name another one with --blobs, {BLOBS_VARIABLE} or [blobs] folder in gate.toml"
            )

    def _digest(self, path: Path) -> str:
        try:
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UnreachableBlobs(f"{path} cannot be read ({error.strerror}); expected a file that this user can read") from error


def blob_store(option: str | None, named: Path | None) -> BlobStore | None:
    """The store that the option names, else the environment, else `[blobs] folder` of gate.toml; None where nobody names one."""
    folder = option or os.environ.get(BLOBS_VARIABLE) or named
    return FolderBlobs(Path(folder).expanduser()) if folder else None
