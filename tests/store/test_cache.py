"""The artifact cache, also with several processes and after a crash."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import filelock
import platformdirs
import pytest

from harness.errors import StoreFailed
from harness.store import cache as cache_module
from harness.store.cache import ArtifactCache, CacheMode, cache_key, default_cache_dir, silent

HOUSE = Path(__file__).parents[2]
MADE_FROM = {"graph": "0123", "target": "SM89", "rows": 8}

WORKER = """
import sys, time
from pathlib import Path
from harness.store.cache import ArtifactCache, CacheMode

def build(folder):
    (folder / "engine").write_bytes(b"half")
    with open(sys.argv[2], "a") as journal:
        journal.write("built\\n")
    time.sleep(float(sys.argv[3]))
    (folder / "engine").write_bytes(b"whole")
    return {"answer": 42}

cache = ArtifactCache(Path(sys.argv[1]), CacheMode(sys.argv[4]), session_id=sys.argv[5])
entry = cache.fetch("engine", {"graph": "0123"}, build)
assert entry.path("engine").read_bytes() == b"whole"
print(entry.hit)
"""


class Builder:
    """Builds one file and counts how often."""

    def __init__(self, content: bytes = b"plan", facts: Mapping[str, object] | None = None) -> None:
        self.content = content
        self.facts = facts or {"layers": 3}
        self.count = 0

    def __call__(self, folder: Path) -> Mapping[str, object]:
        self.count += 1
        (folder / "logs").mkdir()
        (folder / "logs" / "build.txt").write_text("log")
        (folder / "engine.plan").write_bytes(self.content)
        return self.facts


@pytest.fixture
def build() -> Builder:
    return Builder()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def worker(root: Path, journal: Path, *, seconds: float, mode: str = "use", session: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(root), str(journal), str(seconds), mode, session]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HOUSE)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.01)


def finished(workers: list[subprocess.Popen[str]]) -> list[str]:
    return [process.communicate(timeout=30)[0].strip() for process in workers]


def leftovers(root: Path) -> list[Path]:
    return list((root / "partial").iterdir())


def test_a_miss_is_built_and_then_found(root: Path, build: Builder):
    made = ArtifactCache(root).fetch("engine", MADE_FROM, build)
    found = ArtifactCache(root).fetch("engine", MADE_FROM, build)

    assert (made.hit, found.hit, build.count) == (False, True, 1)
    assert made.path("engine.plan").read_bytes() == b"plan"
    assert made.folder == root / "engine" / cache_key("engine", MADE_FROM) == found.folder
    assert set(made.files) == {"engine.plan", "logs/build.txt"}
    assert made.files["engine.plan"].nbytes == 4
    assert made.facts == found.facts == {"layers": 3}
    assert made.build_seconds == found.build_seconds >= 0
    assert leftovers(root) == []


def test_another_source_is_another_artifact(root: Path, build: Builder):
    cache = ArtifactCache(root)

    first = cache.fetch("engine", MADE_FROM, build)
    second = cache.fetch("engine", {**MADE_FROM, "target": "SM120"}, build)
    third = cache.fetch("onnx", MADE_FROM, build)

    assert len({first.key, second.key, third.key}) == build.count == 3


def test_the_cache_says_what_it_holds_and_builds_nothing_for_that(root: Path, build: Builder):
    cache, rebuilding = ArtifactCache(root), ArtifactCache(root, CacheMode.REBUILD)
    assert not cache.holds("engine", MADE_FROM)

    cache.fetch("engine", MADE_FROM, build)

    assert cache.holds("engine", MADE_FROM)
    assert ArtifactCache(root).holds("engine", MADE_FROM)
    assert not cache.holds("engine", {**MADE_FROM, "rows": 9})
    assert not rebuilding.holds("engine", MADE_FROM)


def test_a_session_asks_the_disk_once(root: Path, build: Builder):
    cache = ArtifactCache(root)
    first = cache.fetch("engine", MADE_FROM, build)
    first.path("engine.plan").unlink()

    assert cache.fetch("engine", MADE_FROM, build) is first
    assert first.hit is False


def test_builder_and_finder_see_the_same_facts(root: Path):
    facts = {"shape": (1, 2), "path": "a"}

    made = ArtifactCache(root).fetch("engine", MADE_FROM, Builder(facts=facts))

    assert made.facts == ArtifactCache(root).fetch("engine", MADE_FROM, Builder()).facts == {"shape": [1, 2], "path": "a"}


def test_a_file_is_found_by_its_content(root: Path, build: Builder):
    entry = ArtifactCache(root).fetch("engine", MADE_FROM, build)
    cache = ArtifactCache(root, CacheMode.READONLY)
    digest = entry.files["engine.plan"].sha256
    assert cache.file_of("engine", digest) == entry.path("engine.plan")
    assert cache.file_of("onnx", digest) is None
    assert cache.file_of("engine", "0" * 64) is None
    (entry.folder / "manifest.json").write_text("{")
    assert cache.file_of("engine", digest) is None


def test_a_file_that_an_artifact_lacks_is_named_with_those_it_has(root: Path, build: Builder):
    entry = ArtifactCache(root).fetch("engine", MADE_FROM, build)

    with pytest.raises(StoreFailed, match=r"has no file 'engine\.log'; it has engine\.plan, logs/build\.txt"):
        entry.path("engine.log")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "engine.plan").write_bytes(b"pla"), "engine.plan has 3 bytes; it was built with 4"),
        (lambda folder: (folder / "engine.plan").write_bytes(b"PLAN"), "engine.plan has other content"),
        (lambda folder: (folder / "engine.plan").unlink(), "engine.plan: No such file"),
        (lambda folder: (folder / "manifest.json").unlink(), "No such file"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"{"), "manifest.json:1: is no JSON"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"{}"), "missing required field"),
    ],
)
def test_a_damaged_entry_is_moved_away_told_and_built_again(
    root: Path, build: Builder, damage: Callable[[Path], object], words: str, monkeypatch: pytest.MonkeyPatch
):
    notes: list[str] = []
    entry = ArtifactCache(root).fetch("engine", MADE_FROM, build)
    damage(entry.folder)
    monkeypatch.setattr(cache_module, "_verified", set())  # as in the next process

    again = ArtifactCache(root, note=notes.append).fetch("engine", MADE_FROM, build)

    assert (again.hit, build.count) == (False, 2)
    assert again.path("engine.plan").read_bytes() == b"plan"
    assert words in notes[0]
    assert "is built again" in notes[0]
    assert len(list((root / "quarantine").iterdir())) == 1


def test_only_the_latest_damage_of_a_key_is_kept(root: Path, build: Builder):
    for _ in range(3):
        entry = ArtifactCache(root).fetch("engine", MADE_FROM, build)
        entry.path("engine.plan").write_bytes(b"")

    ArtifactCache(root).fetch("engine", MADE_FROM, build)

    assert build.count == 4
    assert len(list((root / "quarantine").iterdir())) == 1


def test_an_entry_under_the_name_of_another_is_damaged(root: Path, build: Builder):
    notes: list[str] = []
    first = ArtifactCache(root).fetch("engine", MADE_FROM, build)
    first.folder.rename(first.folder.with_name(cache_key("engine", {})))

    ArtifactCache(root, note=notes.append).fetch("engine", {}, build)

    assert "belongs to another entry" in notes[0]


def test_content_is_digested_once_a_process(root: Path, build: Builder, monkeypatch: pytest.MonkeyPatch):
    digested: list[Path] = []
    ArtifactCache(root).fetch("engine", MADE_FROM, build)
    monkeypatch.setattr(cache_module, "_verified", set())
    monkeypatch.setattr(cache_module, "_sha256", lambda path: digested.append(path) or "")

    with pytest.raises(StoreFailed, match="other content"):
        ArtifactCache(root, CacheMode.READONLY).fetch("engine", MADE_FROM, build)
    monkeypatch.undo()
    ArtifactCache(root).fetch("engine", MADE_FROM, build)
    monkeypatch.setattr(cache_module, "_sha256", lambda path: digested.append(path) or "")
    ArtifactCache(root).fetch("engine", MADE_FROM, build)

    assert len(digested) == 1


@pytest.mark.parametrize("failure", [RuntimeError("no kernel"), KeyboardInterrupt(), OSError(errno.EIO, "I/O error")])
def test_a_build_that_fails_leaves_nothing_and_its_error_goes_on(root: Path, build: Builder, failure: BaseException):
    def fail(folder: Path) -> Mapping[str, object]:
        build(folder)
        raise failure

    with pytest.raises(type(failure)) as caught:
        ArtifactCache(root).fetch("engine", MADE_FROM, fail)

    assert caught.value is failure
    assert leftovers(root) == []
    assert list((root / "engine").iterdir()) == []
    assert ArtifactCache(root).fetch("engine", MADE_FROM, build).hit is False


def test_a_disk_that_fills_during_a_build_is_told_in_words(root: Path):
    def fill(_folder: Path) -> Mapping[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreFailed, match=r"no room on the disk: .* free; free some or choose another folder with --cache-dir"):
        ArtifactCache(root).fetch("engine", MADE_FROM, fill)

    assert leftovers(root) == []


@pytest.mark.parametrize("step", ["flush_folder", "flush_names"])
def test_a_disk_that_fills_while_publishing_is_told_in_words(root: Path, build: Builder, step: str, monkeypatch: pytest.MonkeyPatch):
    def fill(_folder: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(cache_module, step, fill)

    with pytest.raises(StoreFailed, match="no room on the disk"):
        ArtifactCache(root).fetch("engine", MADE_FROM, build)

    assert leftovers(root) == []


def test_facts_that_are_not_finite_are_refused(root: Path):
    with pytest.raises(StoreFailed, match=r"facts\.seconds is nan"):
        ArtifactCache(root).fetch("engine", MADE_FROM, Builder(facts={"seconds": float("nan")}))

    assert leftovers(root) == []


def test_a_link_in_an_artifact_is_refused(root: Path, tmp_path: Path):
    def link(folder: Path) -> Mapping[str, object]:
        (folder / "weights").symlink_to(tmp_path)
        return {}

    with pytest.raises(StoreFailed, match="left the link weights"):
        ArtifactCache(root).fetch("engine", MADE_FROM, link)


def test_a_file_with_the_name_of_the_manifest_is_refused(root: Path):
    def claim(folder: Path) -> Mapping[str, object]:
        (folder / "manifest.json").write_text("mine")
        return {}

    with pytest.raises(StoreFailed, match=r"left a file manifest\.json"):
        ArtifactCache(root).fetch("engine", MADE_FROM, claim)


@pytest.mark.parametrize("kind", ["locks", "../engine", "", "Engine"])
def test_a_kind_that_is_no_folder_of_the_cache_is_refused(root: Path, build: Builder, kind: str):
    with pytest.raises(StoreFailed, match="names no kind of artifact"):
        ArtifactCache(root).fetch(kind, MADE_FROM, build)


def test_rebuilding_happens_once_a_session(root: Path):
    old, new = Builder(b"old"), Builder(b"new")
    ArtifactCache(root, session_id="yesterday").fetch("engine", MADE_FROM, old)

    first = ArtifactCache(root, CacheMode.REBUILD, session_id="today").fetch("engine", MADE_FROM, new)
    second = ArtifactCache(root, CacheMode.REBUILD, session_id="today").fetch("engine", MADE_FROM, new)

    assert (first.hit, second.hit, new.count) == (False, True, 1)
    assert second.path("engine.plan").read_bytes() == b"new"
    assert leftovers(root) == []


def test_a_process_without_a_session_is_a_session(root: Path, build: Builder):
    ArtifactCache(root, CacheMode.REBUILD).fetch("engine", MADE_FROM, build)
    ArtifactCache(root, CacheMode.REBUILD).fetch("engine", MADE_FROM, build)

    assert build.count == 1


def test_a_read_only_cache_gives_what_it_has_and_writes_nothing(root: Path, build: Builder):
    ArtifactCache(root).fetch("engine", MADE_FROM, build)
    for path in sorted(root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    entry = ArtifactCache(root, CacheMode.READONLY).fetch("engine", MADE_FROM, build)

    assert entry.hit is True
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    for path in root.rglob("*"):
        path.chmod(0o755)


def test_what_a_read_only_cache_lacks_is_refused(root: Path, build: Builder):
    with pytest.raises(StoreFailed, match=r"has no engine [0-9a-f]{12} and may only be read; run once without"):
        ArtifactCache(root, CacheMode.READONLY).fetch("engine", MADE_FROM, build)

    assert not root.exists()


def test_damage_in_a_read_only_cache_is_refused_and_left(root: Path, build: Builder):
    entry = ArtifactCache(root).fetch("engine", MADE_FROM, build)
    entry.path("engine.plan").write_bytes(b"")

    with pytest.raises(StoreFailed, match=r"is damaged \(engine\.plan has 0 bytes"):
        ArtifactCache(root, CacheMode.READONLY).fetch("engine", MADE_FROM, build)

    assert entry.folder.exists()


def test_a_cache_that_cannot_be_made_is_told_in_words(tmp_path: Path, build: Builder):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreFailed, match=r"cannot be made, written or locked .* --cache-dir or ENGINEGATE_CACHE_DIR"):
        ArtifactCache(tmp_path / "file" / "cache").fetch("engine", MADE_FROM, build)


def test_a_full_disk_while_making_the_cache_is_told_as_one(root: Path, build: Builder, monkeypatch: pytest.MonkeyPatch):
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", fill)

    with pytest.raises(StoreFailed, match="no room on the disk"):
        ArtifactCache(root).fetch("engine", MADE_FROM, build)


def test_a_disk_without_file_locks_is_told_in_words(root: Path, build: Builder, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)

    with pytest.raises(StoreFailed, match=r"locked \(no flock here\)"):
        ArtifactCache(root).fetch("engine", MADE_FROM, build)


def test_who_waits_is_told_for_whom(root: Path, build: Builder, monkeypatch: pytest.MonkeyPatch):
    notes: list[str] = []
    monkeypatch.setattr(cache_module, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(cache_module, "_REMINDER_SECONDS", 0.05)
    journal = root.parent / "journal"
    other = worker(root, journal, seconds=0.6)
    wait_for(journal.exists)

    entry = ArtifactCache(root, note=notes.append).fetch("engine", {"graph": "0123"}, build)

    assert finished([other]) == ["False"]
    assert (entry.hit, build.count) == (True, 0)
    assert len(notes) >= 2
    assert f"which process {other.pid} on " in notes[0]


def test_an_owner_that_left_no_name_is_another_process(tmp_path: Path):
    (tmp_path / "empty").touch()

    assert cache_module._text(tmp_path / "absent") == cache_module._text(tmp_path / "empty") == "another process"


def test_several_processes_build_one_key_once(root: Path, tmp_path: Path):
    journal = tmp_path / "journal"

    seen = finished([worker(root, journal, seconds=0.3) for _ in range(4)])

    assert sorted(seen) == ["False", "True", "True", "True"]
    assert journal.read_text().splitlines() == ["built"]


def test_several_processes_of_one_session_rebuild_one_key_once(root: Path, tmp_path: Path):
    journal = tmp_path / "journal"
    finished([worker(root, tmp_path / "yesterday", seconds=0)])

    seen = finished([worker(root, journal, seconds=0.3, mode="rebuild", session="today") for _ in range(3)])

    assert sorted(seen) == ["False", "True", "True"]
    assert journal.read_text().splitlines() == ["built"]


def test_a_builder_killed_in_the_middle_leaves_no_entry_and_no_lock(root: Path, tmp_path: Path):
    journal = tmp_path / "journal"
    victim = worker(root, journal, seconds=60)
    wait_for(journal.exists)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)
    assert len(leftovers(root)) == 1
    assert list((root / "engine").iterdir()) == []

    assert finished([worker(root, journal, seconds=0)]) == ["False"]

    assert leftovers(root) == []
    assert journal.read_text().splitlines() == ["built", "built"]


def test_what_a_dead_builder_of_the_key_left_is_removed_and_nothing_else(root: Path, build: Builder):
    key = ArtifactCache(root).fetch("engine", MADE_FROM, build).key
    for name in (f"{key}-1-aa", f"{key}-replaced-bb", "another-1-aa"):
        (root / "partial" / name).mkdir(parents=True)
        (root / "partial" / name / "file").touch()

    ArtifactCache(root).fetch("engine", MADE_FROM, build)

    assert [path.name for path in leftovers(root)] == ["another-1-aa"]


@pytest.mark.parametrize("fatal", ["flush_folder", "flush_names", "write_atomically"])
def test_a_process_killed_while_publishing_leaves_an_entry_or_none(root: Path, build: Builder, fatal: str):
    script = (
        "import os, signal, sys; from pathlib import Path; from harness.store import cache\n"
        f"cache.{fatal} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache.ArtifactCache(Path(sys.argv[1]), cache.CacheMode.REBUILD).fetch('engine', {'graph': '0123'}, lambda folder: {})\n"
    )
    ArtifactCache(root).fetch("engine", {"graph": "0123"}, build)
    killed = subprocess.run([sys.executable, "-c", script, str(root)], cwd=HOUSE, check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL

    entry = ArtifactCache(root).fetch("engine", {"graph": "0123"}, build)

    # Killed after the rename, the new entry, without files, is there; before it, the old one.
    assert set(entry.files) == (set() if fatal == "flush_names" else {"engine.plan", "logs/build.txt"})
    assert json.loads((entry.folder / "manifest.json").read_bytes())["schema"] == "enginegate/cache/1"


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENGINEGATE_CACHE_DIR", "~/elsewhere")
    assert default_cache_dir() == Path(os.path.expanduser("~/elsewhere"))

    monkeypatch.setenv("ENGINEGATE_CACHE_DIR", "")
    assert default_cache_dir() == platformdirs.user_cache_path("enginegate", appauthor=False)
    assert silent("nobody reads this") is None
