"""Approved engines and their times, in files that people review, and the pending records that ask for approval.

`<machine class>/<arch>/<tower>/<recipe>/<backend>-<version>.latency.json` below the baselines folder. Of each key all records stay, and
each names the digest of the one it follows, so that nobody takes one out or changes one unseen, but for the last: that one is seen in
the diff that adds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from harness.errors import UnreadableBaseline, UnusablePending
from harness.records.latency_baseline import (
    LATENCY_BASELINES_SCHEMA,
    PENDING_LATENCY_SCHEMA,
    LatencyBaseline,
    LatencyBaselineFile,
    LatencyKey,
    PendingLatency,
    folder_of,
)
from harness.records.spec import EngineSpec
from harness.store.atomic import failing_in_words, write_atomically
from harness.store.baselines import remove_empty_folders
from harness.store.codec import canonical_json, from_plain, read_json, require_schema, to_json, to_plain
from harness.store.locking import locked

RECORDS = ".latency.json"
PENDING = ".pending.json"
REJECTED = ".rejected.json"
Chain = tuple[LatencyBaseline, ...]


class LatencyBaselines:
    """The latency records below one baselines folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def chain(self, key: LatencyKey) -> Chain:
        """Every record of exactly this key, as they were approved; empty when there is none.

        Raises:
            UnreadableBaseline: the file is there and cannot be understood, or a record was changed or taken out of it.
        """
        return tuple(record for record in self._read(self._root / key.path) if record.timed.key == key)

    def has_any(self, machine_class: str, engine: EngineSpec) -> bool:
        """Whether any engine of this encoder, recipe and backend was ever approved there. Reads no record."""
        folder = self._root / folder_of(machine_class, engine.encoder.arch, engine.encoder.tower, engine.recipe)
        return any(folder.glob(f"{engine.backend}-*{RECORDS}"))

    def nearest(self, key: LatencyKey) -> tuple[LatencyKey, ...]:
        """Keys of the same encoder, recipe and backend that are not this one, the fewest differences first."""
        engines = key.path.parent.relative_to(key.machine_class)
        found: set[LatencyKey] = set()
        for path in self._root.glob(f"*/{engines}/{key.backend}-*{RECORDS}"):
            # They only help a message along: a file that cannot be read is reported when it is asked for.
            with suppress(UnreadableBaseline):
                found |= {record.timed.key for record in self._read(path)}
        return tuple(sorted(found - {key}, key=lambda other: (len(key.differences(other)), str(astuple(other)))))

    def chains(self) -> dict[LatencyKey, Chain]:
        """All there is, by key, in the order of their paths."""
        every: dict[LatencyKey, Chain] = {}
        for path in sorted(self._root.rglob(f"*{RECORDS}")):
            for record in self._read(path):
                every[record.timed.key] = (*every.get(record.timed.key, ()), record)
        return every

    def append(self, record: LatencyBaseline) -> Path:
        """Add the record at the end of its chain, and say where.

        Raises:
            UnreadableBaseline: the file cannot be understood; or the chain has grown since the record was made. It is left alone.
            StoreFailed: the folder cannot be written.
        """
        key = record.timed.key
        path = self._root / key.path
        with locked(self._root, "latency-baselines"):
            records = self._read(path)
            before = [one for one in records if one.timed.key == key]
            last = digest_of(before[-1]) if before else None
            if record.approval.previous != last:
                raise UnreadableBaseline(f"{path}: another record was approved meanwhile; look at it, and accept again")
            self._replace(path, (*records, record))
        return path

    def remove(self, keys: Collection[LatencyKey]) -> None:
        """Remove the whole chains of these keys.

        Raises:
            UnreadableBaseline: a file cannot be understood.
            StoreFailed: the folder cannot be written.
        """
        with locked(self._root, "latency-baselines"):
            for path in sorted({self._root / key.path for key in keys}):
                self._replace(path, [record for record in self._read(path) if record.timed.key not in keys])

    def _read(self, path: Path) -> Chain:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise UnreadableBaseline(f"{path}: cannot be read ({error.strerror}); expected a file that this user can read") from error
        plain = read_json(data, origin=str(path), refuse=UnreadableBaseline)
        require_schema(plain, LATENCY_BASELINES_SCHEMA, origin=str(path), refuse=UnreadableBaseline)
        records = from_plain(LatencyBaselineFile, plain, origin=str(path), refuse=UnreadableBaseline).records
        self._require_whole(path, records)
        return records

    def _require_whole(self, path: Path, records: Iterable[LatencyBaseline]) -> None:
        last: dict[LatencyKey, str] = {}
        for index, record in enumerate(records):
            key = record.timed.key
            if self._root / key.path != path:
                raise UnreadableBaseline(
                    f"{path}: records[{index}] belongs in {key.path}; expected only records of this file; move it there"
                )
            if record.approval.previous != last.get(key):
                raise UnreadableBaseline(
                    f"{path}: the chain is broken: records[{index}] follows {_short(record.approval.previous)}, and the record before it "
                    f"is {_short(last.get(key))}; one was changed or taken out: restore the file"
                )
            last[key] = digest_of(record)

    def _replace(self, path: Path, records: Iterable[LatencyBaseline]) -> None:
        kept = tuple(records)
        if kept:
            write_atomically(path, to_json(LatencyBaselineFile(records=kept)))
            return
        with failing_in_words(path):
            path.unlink(missing_ok=True)
        remove_empty_folders(path.parent, self._root)


def digest_of(record: LatencyBaseline) -> str:
    """sha256 of a record, by which the next one names it."""
    plain = to_plain(record)
    if not plain["approval"]["lost"]:
        del plain["approval"]["lost"]  # records that were approved before there was such a field keep their digests
    return hashlib.sha256(canonical_json(plain)).hexdigest()


def read_pending(path: Path) -> PendingLatency:
    """A pending record.

    Raises:
        UnusablePending: it cannot be read, or is no such document.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnusablePending(f"{path} cannot be read ({error.strerror}); expected a file that a gate left in RUN_DIR/pending") from error
    plain = read_json(data, origin=str(path), refuse=UnusablePending)
    require_schema(plain, PENDING_LATENCY_SCHEMA, origin=str(path), refuse=UnusablePending)
    return from_plain(PendingLatency, plain, origin=str(path), refuse=UnusablePending)


def pending_below(folder: Path) -> Iterator[Path]:
    """Pending records below a folder, in order."""
    yield from sorted(folder.rglob(f"*{PENDING}"))


def settle_pending(path: Path, rejected: PendingLatency | None = None) -> Path | None:
    """Take away a pending record that was decided; one that was rejected stays beside it under another name, which is returned.

    Raises:
        StoreFailed: the folder cannot be written.
    """
    kept = path.with_name(path.name.removesuffix(PENDING) + REJECTED) if rejected is not None else None
    if kept is not None:
        write_atomically(kept, to_json(rejected))
    with failing_in_words(path):
        path.unlink()
    return kept


def _short(digest: str | None) -> str:
    return f"{digest[:16]}…" if digest else "none"
