"""What accuracy verdicts rest on goes to the run directory and comes back; what is not as the run left it is refused in words."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UsageError
from harness.pipeline.keeping import Keeper
from harness.records.kept_accuracy import accuracy_file
from harness.store.kept_accuracy import KeptAccuracyReader
from harness.store.run_directory import RunDirectory
from tests.helpers.kept import (
    ATTENTION,
    FP16,
    LINEAR,
    TASK,
    KeptRun,
    change_record,
    embeddings,
    evidence,
    record_of,
    replace_archive,
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run with one engine's rows."""
    return KeptRun(tmp_path / "run").keep(LINEAR, metrics=["finite"]).finish()


def read_rows(path: Path, part: str = "observed"):
    reader = KeptAccuracyReader(path)
    (record,) = reader.records()
    return reader.rows(getattr(record, part), of=record)


def read_task(path: Path):
    reader = KeptAccuracyReader(path)
    (record,) = reader.records()
    assert record.task is not None
    return reader.task(record.task, of=record)


def archive(**arrays: object) -> bytes:
    document = io.BytesIO()
    np.savez(document, **arrays)  # type: ignore[arg-type]
    return document.getvalue()


def test_rows_read_back_as_they_were(kept):
    given, back = evidence(LINEAR), read_rows(kept)

    np.testing.assert_array_equal(back.rows, given.observed.rows)
    assert (back.ids, back.inputs_digest, back.made_by) == (given.observed.ids, given.observed.inputs_digest, given.observed.made_by)


def test_a_task_reads_back_as_it_was(kept):
    task = read_task(kept)

    np.testing.assert_array_equal(task.pairing.pairs, TASK.pairing.pairs)
    np.testing.assert_array_equal(task.other.rows, TASK.other.rows)
    assert (task.tower, task.pairing.source, task.logit_scale, task.same_weights) == ("image", "a set", 100.0, TASK.same_weights)


def test_rows_that_are_not_finite_read_back_too(tmp_path):
    broken = embeddings("broken")
    broken.rows[3] = np.nan, *[np.inf] * 15
    path = KeptRun(tmp_path).keep(LINEAR, evidence(LINEAR, observed=broken), metrics=["finite"]).finish()

    np.testing.assert_array_equal(read_rows(path).rows, broken.rows)


def test_engines_of_one_encoder_share_what_they_are_compared_with(tmp_path):
    seen = {engine: evidence(engine) for engine in (LINEAR, ATTENTION, FP16)}
    run = KeptRun(tmp_path)
    for engine, one in seen.items():
        run.keep(engine, one, metrics=[])
    run.finish()

    records = [record_of(tmp_path, engine) for engine in seen]
    assert len({record["exact"]["archive"]["file"] for record in records}) == 1
    assert records[0]["half"]["archive"] == records[2]["observed"]["archive"]
    names = sorted(file.name for file in (tmp_path / "samples").iterdir())
    assert names == [
        "a-image-attention-fake-embeddings.npz",
        "a-image-attention-fake-quant-embeddings.npz",
        "a-image-attention-range-use.npz",
        "a-image-fp16-fake-embeddings.npz",
        "a-image-fp32-embeddings.npz",
        "a-image-linear-fake-embeddings.npz",
        "a-image-linear-fake-quant-embeddings.npz",
        "a-image-linear-range-use.npz",
        "a-text-fp32-embeddings.npz",
        "pairs.npz",
    ]


def test_another_process_that_saw_other_rows_takes_nothing_from_the_first(tmp_path):
    """Workers of one run share its folder, and an engine on a GPU need not give the same bits twice."""
    first = KeptRun(tmp_path).keep(LINEAR, metrics=[])
    KeptRun(tmp_path).keep(ATTENTION, evidence(ATTENTION, half=embeddings("again", noise=2e-4)), metrics=[])
    first.finish()

    reader = KeptAccuracyReader(tmp_path)
    halves = [reader.rows(record.half, of=record).rows for record in reader.records() if record.half]
    assert len(halves) == 2
    assert (halves[0] != halves[1]).any()


def test_a_record_is_written_once_with_what_was_approved_at_first(tmp_path):
    run = KeptRun(tmp_path)
    for approved in (30.0, 40.0):
        run.keep(LINEAR, evidence(LINEAR, approved_snr_db=approved), metrics=[])

    assert record_of(tmp_path)["approved_snr_db"] == 30.0


def test_a_keeper_keeps_embeddings_once(tmp_path):
    keeper = Keeper(None, RunDirectory(tmp_path))  # type: ignore[arg-type]
    for _ in range(2):
        keeper.keep_embeddings("a/image-fp32", embeddings("x"))

    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["a-image-fp32-embeddings.npz"]


# -- what is not as the run left it ------------------------------------------------------------------------------------------------


def test_changed_rows_are_refused_by_their_digest(kept):
    file = kept / record_of(kept)["observed"]["archive"]["file"]
    given = evidence(LINEAR).exact  # as someone would who wants a green verdict
    file.write_bytes(archive(rows=given.rows, ids=np.asarray(given.ids), inputs_digest=np.asarray(given.inputs_digest)))

    with pytest.raises(
        UsageError, match=r"linear-fake-embeddings.npz: has sha256 \w{12}; expected \w{12}, .* changed or cut since the run"
    ):
        read_rows(kept)


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_cut_archive_is_refused(kept, share):
    file = kept / record_of(kept)["exact"]["archive"]["file"]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    with pytest.raises(UsageError, match=r"fp32-embeddings.npz: has sha256 .*copy the whole folder, or run again"):
        read_rows(kept, "exact")


def test_a_missing_archive_is_refused(kept):
    (kept / record_of(kept)["observed"]["archive"]["file"]).unlink()

    with pytest.raises(UsageError, match=r"embeddings.npz: cannot be read .*accuracy/a-image-linear-fake.json names"):
        read_rows(kept)


GIVEN = evidence(LINEAR).observed
SOUND = {"rows": GIVEN.rows, "ids": np.asarray(GIVEN.ids), "inputs_digest": np.asarray("pictures")}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"rows": GIVEN.rows[:-1]}, r"has rows of float32 \[319, 16\]; expected float32 \[320, 16\]"),
        ({"rows": GIVEN.rows.astype(np.float64)}, r"has rows of float64 \[320, 16\]"),
        ({"rows": GIVEN.rows.reshape(-1)}, r"has rows of float32 \[5120\]"),
        ({"rows": np.full((320, 16), None)}, "is no archive of plain arrays"),
        ({"ids": np.arange(320)}, r"has ids of int64 \[320\]; expected 320 texts"),
        ({"ids": np.asarray(GIVEN.ids[1:])}, r"has ids of <U\d+ \[319\]"),
        ({"ids": np.asarray([*GIVEN.ids[1:], None], dtype=object)}, "is no archive of plain arrays"),
        ({"inputs_digest": np.asarray("other")}, "was seen on inputs other; expected pictures"),
        ({"more": np.zeros(1)}, "holds ids, inputs_digest, more, rows; expected ids, inputs_digest, rows"),
    ],
)
def test_an_archive_that_holds_other_than_the_record_says_is_refused(kept, arrays, message):
    replace_archive(kept, "observed", archive(**{**SOUND, **arrays}))

    with pytest.raises(UsageError, match=message):
        read_rows(kept)


@pytest.mark.parametrize("document", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_archive_is_refused(kept, document):
    replace_archive(kept, "observed", document)

    with pytest.raises(UsageError, match="is no archive of plain arrays"):
        read_rows(kept)


def test_a_lone_array_is_refused(kept):
    document = io.BytesIO()
    np.save(document, GIVEN.rows)
    replace_archive(kept, "observed", document.getvalue())

    with pytest.raises(UsageError, match="is no archive of plain arrays"):
        read_rows(kept)


@pytest.mark.parametrize("name", ["../outside.npz", "/etc/passwd", "samples/../../outside.npz"])
def test_a_name_that_leaves_the_folder_is_refused(kept, name):
    change_record(kept, lambda plain: plain["observed"]["archive"].update(file=name))

    with pytest.raises(UsageError, match=r"linear-fake.json: names .* expected a file inside the run's own folder"):
        read_rows(kept)


@pytest.mark.parametrize("name", ["samples/a\0b.npz", "samples", ""])
def test_a_name_of_no_file_is_refused(kept, name):
    change_record(kept, lambda plain: plain["observed"]["archive"].update(file=name))

    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(kept)


def test_a_link_that_leaves_the_folder_is_refused(kept, tmp_path):
    file = kept / record_of(kept)["observed"]["archive"]["file"]
    file.rename(tmp_path / "elsewhere.npz")
    file.symlink_to(tmp_path / "elsewhere.npz")

    with pytest.raises(UsageError, match="expected a file inside the run's own folder"):
        read_rows(kept)


def test_a_link_in_a_circle_is_refused(kept):
    file = kept / record_of(kept)["observed"]["archive"]["file"]
    file.unlink()
    file.symlink_to(file)

    with pytest.raises(UsageError, match=r"cannot be read|inside the run's own folder"):
        read_rows(kept)


def test_a_run_that_is_itself_behind_a_link_is_read(kept, tmp_path):
    (tmp_path / "link").symlink_to(kept)

    assert read_rows(tmp_path / "link").made_by == LINEAR.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(schema="enginegate/accuracy/2"), "made by a newer enginegate"),
        (lambda plain: plain.update(schema="enginegate/run/1"), "expected 'enginegate/accuracy/1'"),
        (lambda plain: plain.pop("observed"), "missing required field `observed`"),
        (lambda plain: plain.update(note=1), "unknown key"),
        (lambda plain: plain.update(recipe="int8"), "recipe"),
        (lambda plain: plain.update(encoder="a"), "names no tower"),
        (lambda plain: plain["observed"].update(n="many"), "observed.n"),
        (lambda plain: plain.update(recipe="attention"), "is about a/image-attention-fake"),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused(kept, change, message):
    change_record(kept, change)

    with pytest.raises(UsageError, match=message):
        KeptAccuracyReader(kept).records()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": NaN}'])
def test_a_record_that_is_cut_is_refused(kept, text):
    (kept / accuracy_file(LINEAR)).write_text(text)

    with pytest.raises(UsageError, match=r"linear-fake\.json"):
        KeptAccuracyReader(kept).records()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: task.update(pictures=319), "pairs 319 pictures with 320 captions; expected as many"),
        (lambda task: task.update(captions=321), "pairs 320 pictures with 321 captions; expected as many"),
        (lambda task: task["other"].update(n=319), "as many as accuracy/a-image-linear-fake.json has rows: 320 image rows, 319 others"),
    ],
)
def test_a_task_that_does_not_fit_its_rows_is_refused(kept, change, message):
    change_record(kept, lambda plain: change(plain["task"]))

    with pytest.raises(UsageError, match=message):
        read_task(kept)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (np.stack([np.zeros(320, np.int64), np.arange(320)], axis=1), "pairs 1 different picture rows"),
        (np.stack([np.arange(320)] * 2, axis=1) - 1, "expected each of 0 to 319"),
        (np.arange(320), r"has pairs of int64 \[320\]"),
        (np.zeros((320, 2)), r"has pairs of float64 \[320, 2\]"),
    ],
)
def test_pairs_of_rows_that_there_are_not_are_refused(kept, pairs, message):
    replace_pairs(kept, archive(pairs=pairs))

    with pytest.raises(UsageError, match=message):
        read_task(kept)


def replace_pairs(path: Path, document: bytes) -> None:
    change_record(path, lambda plain: plain["task"]["pairs"].update(sha256=hashlib.sha256(document).hexdigest()))
    (path / record_of(path)["task"]["pairs"]["file"]).write_bytes(document)


def test_a_run_without_records_has_none(tmp_path):
    assert KeptAccuracyReader(tmp_path).records() == ()
