"""The folder that a run leaves behind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import StoreFailed, UsageError
from harness.records.artifacts import Repair
from harness.records.machine import Machine
from harness.records.run import EngineRow, ReportFinding, RunRecord
from harness.records.verdict import Direction, NotRun, Status, Suite, Verdict
from harness.store.packaged import packaged
from harness.store.run_directory import RunDirectory, append_step_summary, fresh_run_path, read_run, require_empty
from harness.store.schemas import schema_documents, write_schemas

SCHEMAS = Path(__file__).parents[2] / "harness" / "data" / "schemas"
RUN = RunRecord(
    started="2026-11-23T15:04:05+00:00",
    finished="2026-11-23T15:05:05+00:00",
    command=("enginegate", "gate"),
    exit_code=1,
    outcome=Status.FAIL,
    machine=Machine(system="Linux", architecture="x86_64", cpu_model="a CPU", cpu_count=2, memory_bytes=None, python="3.11"),
    engines=(
        EngineRow(
            encoder="ViT-B-32/image",
            recipe="linear",
            backend="tensorrt_rtx",
            backend_version="1.7",
            target="SM89",
            batch="1/8/64",
            weights="seeded:0",
            weights_bytes=89_841_284,
            plan_bytes=None,
            activation_bytes=None,
            onnx_bytes=90_000_000,
            onnx_sha256="0" * 64,
            build_seconds=2.5,
            cache="miss",
            layer_table=None,
            repairs=(Repair(name="domain", count=2, detail="trt"),),
        ),
    ),
    verdicts=(
        Verdict(
            suite=Suite.ACCURACY,
            encoder="ViT-B-32/image",
            recipe="linear",
            backend="onnxruntime",
            target=None,
            metric="cosine_min",
            observed=0.9,
            bound=0.99,
            unit="",
            direction=Direction.FLOOR,
            n=64,
            status=Status.FAIL,
            reason="too far",
        ),
    ),
    not_run=(NotRun(suite=Suite.BENCHMARK, encoder="a", recipe="b", backend=None, target=None, gate="latency_ms", reason="no GPU"),),
    reports=(ReportFinding(suite=Suite.GRAPH, encoder="a", recipe="b", backend=None, target=None, check="O3", message="seen"),),
)


def test_a_fresh_name_is_time_and_chance_and_makes_nothing(tmp_path: Path):
    first, second = (fresh_run_path(tmp_path / "runs") for _ in range(2))

    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", first.name)
    assert first != second
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_anything_in_it_is_refused(tmp_path: Path):
    (tmp_path / "run.json").touch()

    with pytest.raises(UsageError, match=r"already holds 'run\.json'; expected an empty or absent folder .* --run-dir"):
        require_empty(tmp_path)
    with pytest.raises(UsageError, match=r"run\.json is a file; expected a folder"):
        require_empty(tmp_path / "run.json")


def test_an_empty_or_absent_folder_is_accepted(tmp_path: Path):
    require_empty(tmp_path)
    require_empty(tmp_path / "absent")


def test_all_processes_of_a_run_share_its_folder(tmp_path: Path):
    first, second = (RunDirectory.shared(tmp_path / "deep" / "run") for _ in range(2))
    first.save_text("note.txt", "one")

    assert second.save_text("more.txt", "two").parent == first.path


def test_arrays_read_back_equal_without_pickle(tmp_path: Path):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)

    path = RunDirectory(tmp_path).save_arrays("ViT-B-32/image-linear", rows=rows, ids=np.array(["a", "b"]))

    assert path == tmp_path / "samples" / "ViT-B-32" / "image-linear.npz"
    with np.load(path, allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["rows"], rows)
        assert kept["ids"].tolist() == ["a", "b"]


def test_arrays_of_objects_are_refused(tmp_path: Path):
    with pytest.raises(StoreFailed, match="array 'rows' of odd holds Python objects"):
        RunDirectory(tmp_path).save_arrays("odd", rows=np.array([object()]))


def test_texts_and_copies_are_kept(tmp_path: Path):
    source = tmp_path / "build.log"
    source.write_bytes(b"log")
    run = RunDirectory(tmp_path / "run")

    assert run.copy_in("layers/engine.log", source).read_bytes() == b"log"
    assert run.save_text("summary.md", "é\n").read_bytes() == "é\n".encode()


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "", "a/../../b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str):
    with pytest.raises(StoreFailed, match="is no file inside"):
        RunDirectory(tmp_path).save_text(name, "")


def test_a_finished_run_reads_back_equal(tmp_path: Path):
    path = RunDirectory(tmp_path).finish(RUN)

    assert read_run(tmp_path) == read_run(path) == RUN
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_figures_are_null(tmp_path: Path):
    assert '"plan_bytes": null' in RunDirectory(tmp_path).finish(RUN).read_text()


def test_a_figure_that_is_not_finite_never_reaches_the_file(tmp_path: Path):
    broken = replace(RUN, verdicts=(replace(RUN.verdicts[0], observed=float("nan")),))

    with pytest.raises(StoreFailed, match=r"verdicts\[0\]\.observed is nan"):
        RunDirectory(tmp_path).finish(broken)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_cannot_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match=r"run\.json: cannot be read .* expected a finished run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("schema", "message"),
    [("enginegate/run/2", "made by a newer enginegate; .* upgrade"), ("enginegate/baseline/1", "expected 'enginegate/run/1'")],
)
def test_a_document_of_another_schema_is_refused(tmp_path: Path, schema: str, message: str):
    path = RunDirectory(tmp_path).finish(RUN)
    path.write_text(path.read_text().replace("enginegate/run/1", schema))

    with pytest.raises(UsageError, match=message):
        read_run(path)


def test_the_schemas_that_ship_are_those_of_the_records(tmp_path: Path):
    write_schemas(tmp_path)

    shipped = {name: (SCHEMAS / name).read_bytes() for name in schema_documents()}

    assert shipped == schema_documents() == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_processes_of_one_run_share_its_folder(tmp_path: Path):
    first, second = (RunDirectory.shared(tmp_path / "runs" / "one") for _ in range(2))

    assert first.path == second.path
    assert first.path.is_dir()


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreFailed, match=r"cannot write .*--run-dir"):
        RunDirectory.shared(tmp_path / "file" / "run")


def test_a_step_summary_is_appended_where_the_runner_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    append_step_summary("one")
    append_step_summary("two")
    assert (tmp_path / "summary").read_text() == "one\ntwo\n"

    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    append_step_summary("three")
    assert "three" not in (tmp_path / "summary").read_text()


def test_what_does_not_ship_is_named():
    with pytest.raises(StoreFailed, match="expected it to come with enginegate"):
        packaged("absent")
    assert packaged("schemas").is_dir()
