"""Approved observations, in files that people review: one file a machine class, encoder, recipe, backend and version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UnreadableBaseline
from harness.records.baseline import BASELINE_SCHEMA, Baseline, BaselineKey
from harness.store.atomic import failing_in_words, write_atomically
from harness.store.codec import from_plain, read_json, require_schema, to_json
from harness.store.locking import locked
from harness.store.packaged import packaged


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """What one baseline file holds: records sorted by key."""

    records: tuple[Baseline, ...]
    schema: Literal["enginegate/baseline/1"] = "enginegate/baseline/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercised:
    """What one run covered completely, so that a baseline it did not use there is used no more.

    Attributes:
        encoders: `ARCH/TOWER` names the run was narrowed to; None when it gated all there are. Likewise the rest.
        weights: origins, as in the keys.
        batches: `MIN/OPT/MAX` texts.
        options: of builders, as the keys word them.
    """

    machine_class: str
    backend: str
    backend_version: str
    encoders: frozenset[str] | None = None
    recipes: frozenset[str] | None = None
    weights: frozenset[str] | None = None
    batches: frozenset[str] | None = None
    options: frozenset[str] | None = None

    def covers(self, key: BaselineKey) -> bool:
        """Whether the run would have used a baseline of this key, had anything still asked for it."""
        here = (self.machine_class, self.backend, self.backend_version)
        narrowed = (
            (f"{key.arch}/{key.tower}", self.encoders),
            (key.recipe, self.recipes),
            (key.weights, self.weights),
            (key.batch, self.batches),
            (key.options, self.options),
        )
        return here == (key.machine_class, key.backend, key.backend_version) and all(
            names is None or name in names for name, names in narrowed
        )


def default_baselines_dir(base: Path, *, writing: bool = False) -> Path:
    """`baselines` in the folder `base` where it is present or about to be written, else those that come with the distribution."""
    local = base / "baselines"
    return local if writing or local.is_dir() else packaged("baselines")


class BaselineStore:
    """The baselines below one folder, safe to write from several processes of one machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: BaselineKey) -> Baseline | None:
        """The baseline of exactly this key; None when there is none.

        Raises:
            UnreadableBaseline: its file is there and cannot be understood.
        """
        return next((record for record in self._read(self._root / key.path) if record.key == key), None)

    def nearest(self, key: BaselineKey) -> tuple[BaselineKey, ...]:
        """Keys that differ from `key` in backend version, weights or batch only, the fewest differences first."""
        prefix = f"{key.backend}-"
        folder = (self._root / key.path).parent
        found: list[BaselineKey] = []
        for path in sorted(path for path in folder.glob("*.json") if not path.name.endswith(".latency.json")):
            # They only help a message along: a file that cannot be read is reported when it is asked for.
            with suppress(UnreadableBaseline):
                found += [record.key for record in self._read(path) if path.name.startswith(prefix)]
        near = (other for other in found if other != key and _without_variants(other) == _without_variants(key))
        return tuple(sorted(near, key=lambda other: (_differences(key, other), astuple(other))))

    def write(self, baseline: Baseline) -> Path:
        """Insert the baseline, or replace the one of its key, and say where.

        Raises:
            UnreadableBaseline: the file is there and cannot be understood; it is left alone.
            StoreFailed: the folder cannot be written, or a figure is NaN.
        """
        return self.change(baseline.key, lambda _: baseline)

    def change(self, key: BaselineKey, changed: Callable[[Baseline | None], Baseline]) -> Path:
        """Replace the baseline of `key` by what `changed` makes of it (None: there is none), and say where.

        Nobody else writes in between, so that two processes that each add a figure to one record lose neither.

        Raises:
            UnreadableBaseline: the file is there and cannot be understood; it is left alone.
            StoreFailed: the folder cannot be written, or a figure is NaN.
        """
        path = self._root / key.path
        with locked(self._root, "baselines"):
            records = self._read(path)
            before = next((record for record in records if record.key == key), None)
            self._replace(path, (*(record for record in records if record is not before), changed(before)))
        return path

    def trim(self, used: Set[BaselineKey], within: Collection[Exercised]) -> list[BaselineKey]:
        """Remove baselines that nothing asks for any more, and say which.

        A record goes only if `within` covers it, nothing used it, and the same scope used another: a run that measured nothing, or that ran
        on another machine class, another backend or another version of it, proves nothing about it.

        Args:
            used: every key that the run compared with or wrote; under xdist, that of all workers together.
            within: what the run covered completely. A run with deselected tests covered nothing completely.

        Raises:
            UnreadableBaseline: a file of such a scope cannot be understood.
            StoreFailed: the folder cannot be written.
        """
        proven = [scope for scope in within if any(scope.covers(key) for key in used)]
        removed: list[BaselineKey] = []
        with locked(self._root, "baselines"):
            for path in sorted({path for scope in proven for path in self._files_of(scope)}):
                records = self._read(path)
                stale = [record for record in records if record.key not in used and any(scope.covers(record.key) for scope in proven)]
                if stale:
                    removed += [record.key for record in stale]
                    self._replace(path, [record for record in records if record not in stale])
        return sorted(removed, key=astuple)

    def _files_of(self, scope: Exercised) -> Iterator[Path]:
        for path in (self._root / scope.machine_class).rglob("*.json"):
            if path.name == f"{scope.backend}-{scope.backend_version}.json":
                yield path

    def _read(self, path: Path) -> tuple[Baseline, ...]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise UnreadableBaseline(f"{path}: cannot be read ({error.strerror}); expected a file that this user can read") from error
        return self._understood(data, path)

    def _understood(self, data: bytes, path: Path) -> tuple[Baseline, ...]:
        plain = read_json(data, origin=str(path), refuse=UnreadableBaseline)
        require_schema(plain, BASELINE_SCHEMA, origin=str(path), refuse=UnreadableBaseline)
        records = from_plain(BaselineFile, plain, origin=str(path), refuse=UnreadableBaseline).records
        seen: set[BaselineKey] = set()
        for index, record in enumerate(records):
            if self._root / record.key.path != path:
                raise UnreadableBaseline(
                    f"{path}: records[{index}] belongs in {record.key.path}; expected only records of this file; move it there"
                )
            if record.key in seen:
                raise UnreadableBaseline(
                    f"{path}: records[{index}] has the key of an earlier record; expected each key once; remove one of them"
                )
            seen.add(record.key)
        return records

    def _replace(self, path: Path, records: Iterable[Baseline]) -> None:
        ordered = tuple(sorted(records, key=lambda record: astuple(record.key)))
        if ordered:
            write_atomically(path, to_json(BaselineFile(records=ordered)))
            return
        with failing_in_words(path):
            path.unlink()
        remove_empty_folders(path.parent, self._root)


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it, below `root`, as long as they are empty."""
    with suppress(OSError):  # the first that is not empty ends it
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _without_variants(key: BaselineKey) -> tuple[str, ...]:
    return (key.machine_class, key.arch, key.tower, key.recipe, key.backend)


def _differences(key: BaselineKey, other: BaselineKey) -> int:
    return sum(mine != theirs for mine, theirs in zip(astuple(key), astuple(other), strict=True))
