"""Baselines: found, written, trimmed and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from harness.errors import StoreFailed, UnreadableBaseline
from harness.records.baseline import Baseline, BaselineKey
from harness.store.baselines import BaselineStore, Exercised, default_baselines_dir

HOUSE = Path(__file__).parents[2]
KEY = BaselineKey(
    machine_class="aot-SM89",
    arch="ViT-B-32",
    tower="image",
    recipe="linear",
    backend="tensorrt_rtx",
    backend_version="1.7",
    weights="seeded:0",
    batch="1/8/64",
)
WHOLE_RUN = Exercised(machine_class="aot-SM89", backend="tensorrt_rtx", backend_version="1.7")

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from harness.records.baseline import Baseline, BaselineKey
from harness.store.baselines import BaselineStore

key = BaselineKey(**dict.fromkeys(("machine_class", "arch", "tower", "recipe", "backend", "backend_version", "weights"), "x"), batch="")
for number in range(10):
    record = Baseline(key=replace(key, batch=f"{sys.argv[2]}-{number}"), figures={}, onnx_sha256="")
    BaselineStore(Path(sys.argv[1])).write(record)
"""


def baseline(key: BaselineKey = KEY, **figures: float) -> Baseline:
    return Baseline(key=key, figures=figures or {"weights_bytes": 1.0}, onnx_sha256="0" * 64)


@pytest.fixture(autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, as far as these tests and their children know."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setenv("ENGINEGATE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path)


def written(store: BaselineStore, *keys: BaselineKey) -> set[BaselineKey]:
    for key in keys:
        store.write(baseline(key))
    return set(keys)


def test_what_was_written_is_found_under_its_key_only(store: BaselineStore):
    store.write(baseline(weights_bytes=5.0))

    found = store.find(KEY)

    assert found == baseline(weights_bytes=5.0)
    assert store.find(replace(KEY, weights="seeded:1")) is None
    assert store.find(replace(KEY, recipe="fp16")) is None


def test_a_second_record_of_a_key_replaces_the_first(store: BaselineStore):
    store.write(baseline(weights_bytes=5.0))
    path = store.write(baseline(weights_bytes=6.0))

    assert len(json.loads(path.read_bytes())["records"]) == 1
    assert store.find(KEY) == baseline(weights_bytes=6.0)


def test_records_are_sorted_by_key_whatever_the_order_of_writing(store: BaselineStore, tmp_path: Path):
    keys = [replace(KEY, weights=f"seeded:{number}", batch=batch) for number in (2, 0, 1) for batch in ("1/8/64", "1/1/1")]
    written(store, *keys)
    other = BaselineStore(tmp_path / "other")
    written(other, *reversed(keys))

    assert (tmp_path / KEY.path).read_bytes() == (tmp_path / "other" / KEY.path).read_bytes()


def test_samples_lie_on_one_line(store: BaselineStore):
    path = store.write(replace(baseline(), samples={"latency_ms": tuple(float(number) for number in range(500))}))

    assert len(path.read_text().splitlines()) < 40


def test_writing_leaves_nothing_but_the_file(store: BaselineStore, tmp_path: Path):
    path = store.write(baseline())

    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [path]


def test_several_processes_lose_no_record(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(name)], cwd=HOUSE) for name in range(3)]
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0, 0]

    (path,) = tmp_path.rglob("*.json")
    assert len(json.loads(path.read_bytes())["records"]) == 30


def test_nearest_are_keys_of_another_version_weights_or_batch(store: BaselineStore):
    version = replace(KEY, backend_version="1.6")
    weights = replace(KEY, weights="seeded:1")
    both = replace(version, batch="1/1/1")
    others = (replace(KEY, recipe="fp16"), replace(KEY, machine_class="aot-SM120"), replace(KEY, backend="tensorrt_rtx-beta"))
    written(store, KEY, both, weights, version, *others)

    assert store.nearest(KEY) == (version, weights, both)


def test_nearest_of_an_empty_store_is_nothing(store: BaselineStore):
    assert store.nearest(KEY) == ()


def test_a_neighbour_that_cannot_be_read_does_not_hide_the_others(store: BaselineStore, tmp_path: Path):
    weights = replace(KEY, weights="seeded:1")
    written(store, weights)
    (tmp_path / KEY.path).with_name("tensorrt_rtx-1.5.json").write_text("broken")

    assert store.nearest(KEY) == (weights,)


def test_trimming_removes_what_a_whole_run_did_not_use(store: BaselineStore, tmp_path: Path):
    stale = (replace(KEY, weights="seeded:1"), replace(KEY, arch="RN50"), replace(KEY, tower="text"))
    written(store, KEY, *stale)

    removed = store.trim({KEY}, within=[WHOLE_RUN])

    assert set(removed) == set(stale)
    assert store.find(KEY) == baseline()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / KEY.path]
    assert not (tmp_path / "aot-SM89" / "RN50").exists()


@pytest.mark.parametrize(
    "foreign",
    [
        replace(KEY, machine_class="aot-SM120"),
        replace(KEY, backend="tensorrt"),
        replace(KEY, backend_version="1.6"),
    ],
)
def test_trimming_never_touches_another_machine_class_backend_or_version(store: BaselineStore, foreign: BaselineKey):
    written(store, KEY, foreign)

    assert store.trim({KEY}, within=[WHOLE_RUN]) == []
    assert store.find(foreign) is not None


@pytest.mark.parametrize(
    ("narrowed", "unseen"),
    [
        (replace(WHOLE_RUN, encoders=frozenset({"ViT-B-32/image"})), replace(KEY, tower="text")),
        (replace(WHOLE_RUN, recipes=frozenset({"linear"})), replace(KEY, recipe="fp16")),
        (replace(WHOLE_RUN, weights=frozenset({"seeded:0"})), replace(KEY, weights="seeded:1")),
        (replace(WHOLE_RUN, batches=frozenset({"1/8/64"})), replace(KEY, batch="1/1/1")),
    ],
)
def test_trimming_keeps_what_a_narrowed_run_did_not_look_at(store: BaselineStore, narrowed: Exercised, unseen: BaselineKey):
    written(store, KEY, unseen)

    assert store.trim({KEY}, within=[narrowed]) == []
    assert store.trim({KEY}, within=[WHOLE_RUN]) == [unseen]


def test_a_run_that_used_nothing_trims_nothing(store: BaselineStore):
    written(store, KEY)

    assert store.trim(set(), within=[WHOLE_RUN]) == []
    assert store.find(KEY) is not None


def test_a_store_trimmed_of_a_file_keeps_its_own_folder(tmp_path: Path):
    store = BaselineStore(tmp_path / "baselines")
    stale = replace(KEY, arch="RN50")
    written(store, stale)

    assert store.trim({KEY}, within=[WHOLE_RUN]) == [stale]
    assert list((tmp_path / "baselines").iterdir()) == []


def test_a_file_in_conflict_is_refused_with_its_line_and_left_alone(store: BaselineStore):
    path = store.write(baseline())
    broken = path.read_text().replace('  "records": [', '<<<<<<< HEAD\n  "records": [\n=======')
    path.write_text(broken)

    with pytest.raises(UnreadableBaseline, match=r"tensorrt_rtx-1\.7\.json:2: holds merge-conflict markers"):
        store.find(KEY)
    with pytest.raises(UnreadableBaseline):
        store.write(baseline())
    assert path.read_text() == broken


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("enginegate/baseline/1", "enginegate/baseline/2", "made by a newer enginegate; .* upgrade"),
        ("enginegate/baseline/1", "enginegate/baseline/0", "has schema 'enginegate/baseline/0'; expected"),
        ("enginegate/baseline/1", "other/9", "has schema 'other/9'; expected"),
        ('"enginegate/baseline/1"', "7", "has schema 7; expected"),
        ('"figures"', '"figure"', "missing required field `figures`"),
        ('"provenance": {}', '"provenance": {}, "colour": 1', r"unknown key \$\.records\[0\]\.colour"),
        ("1.0", "NaN", "holds NaN"),
        ("1.0", "-Infinity", "holds -Infinity"),
        ("1.0", '"1.0"', r"Expected `float`, got `str` - at `\$\.records\[0\]\.figures"),
        ('"linear"', '"fp16"', r"records\[0\] belongs in aot-SM89/ViT-B-32/image/fp16/tensorrt_rtx-1\.7\.json"),
    ],
)
def test_an_odd_file_is_refused_by_name(store: BaselineStore, old: str, new: str, message: str):
    path = store.write(baseline())
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(UnreadableBaseline, match=message):
        store.find(KEY)


def test_a_key_given_twice_is_refused(store: BaselineStore):
    path = store.write(baseline())
    document = json.loads(path.read_bytes())
    document["records"] *= 2
    path.write_text(json.dumps(document))

    with pytest.raises(UnreadableBaseline, match=r"records\[1\] has the key of an earlier record"):
        store.find(KEY)


def test_a_document_that_is_no_object_is_refused(store: BaselineStore, tmp_path: Path):
    store.write(baseline()).write_text("[]")

    with pytest.raises(UnreadableBaseline, match="has schema None"):
        store.find(KEY)


def test_a_file_that_cannot_be_opened_is_refused(store: BaselineStore, tmp_path: Path):
    (tmp_path / KEY.path).mkdir(parents=True)

    with pytest.raises(UnreadableBaseline, match=r"cannot be read \(Is a directory\)"):
        store.find(KEY)


def test_a_figure_that_is_not_finite_is_refused(store: BaselineStore, tmp_path: Path):
    with pytest.raises(StoreFailed, match=r"records\[0\]\.figures\.latency_ms is nan"):
        store.write(baseline(latency_ms=float("nan")))

    assert store.find(KEY) is None


def test_a_cache_folder_without_locks_is_told_in_words(store: BaselineStore, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)

    with pytest.raises(StoreFailed, match=r"cannot lock .* \(read-only\); .* ENGINEGATE_CACHE_DIR"):
        store.write(baseline())


def test_the_lock_lies_outside_the_baselines(store: BaselineStore, locks: Path):
    store.write(baseline())

    assert [path.suffix for path in (locks / "locks").iterdir()] == [".lock"]


def test_a_change_sees_what_is_there(store: BaselineStore):
    def with_one_more(before: Baseline | None) -> Baseline:
        return replace(before or baseline(first=1.0), figures={**(before.figures if before else {}), "more": 2.0})

    store.change(KEY, with_one_more)
    store.write(baseline(first=1.0))
    store.change(KEY, with_one_more)

    assert store.find(KEY) == baseline(first=1.0, more=2.0)


def test_the_baselines_of_the_folder_come_before_the_packaged_ones(tmp_path: Path):
    local = tmp_path / "baselines"
    assert default_baselines_dir(tmp_path) != local
    assert default_baselines_dir(tmp_path, writing=True) == local

    local.mkdir()

    assert default_baselines_dir(tmp_path) == local
