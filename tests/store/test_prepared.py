"""A prepared folder is read only as it was left, and a report goes on only with what it was begun with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import UnusablePrepared
from harness.records.gpu_report import Event, ReportAbout, ReportLine, Stage
from harness.records.machine import Machine
from harness.records.observations import Embeddings, EncoderInputs
from harness.records.prepared import PreparedFile, PreparedGraph, PreparedManifest, PreparedRows
from harness.records.spec import Recipe
from harness.store.gpu_report import ReportFolder
from harness.store.prepared import PreparedFolder, write_manifest, write_rows, written_file

IDS = ("a", "b")


@pytest.fixture
def left(tmp_path):
    """A folder with one graph and two evaluation rows."""
    (tmp_path / "tiny-image-fp16.onnx").write_bytes(b"a graph")
    inputs = EncoderInputs(name="image", rows=np.ones((2, 3), np.float16), ids=IDS, digest="d")
    reference = Embeddings(rows=np.arange(8, dtype=np.float32).reshape(2, 4), ids=IDS, inputs_digest="d", made_by="torch")
    write_rows(tmp_path, "tiny-image-rows.npz", inputs, reference)
    graph = PreparedGraph(
        encoder="tiny/image",
        weights="seeded:0",
        recipe=Recipe.FP16,
        file=written_file(tmp_path, "tiny-image-fp16.onnx"),
        source_sha256="0" * 64,
        opset=20,
    )
    file = written_file(tmp_path, "tiny-image-rows.npz")
    rows = PreparedRows(encoder="tiny/image", file=file, input="image", ids=IDS, digest="d", made_by="torch")
    manifest = PreparedManifest(made_at="2026-11-24T00:00:00+00:00", enginegate="0.1.0", graphs=(graph,), rows=(rows,))
    write_manifest(tmp_path, manifest)
    return tmp_path, manifest


def test_a_folder_reads_back_as_it_was_left(left):
    path, manifest = left
    folder = PreparedFolder(path)

    assert folder.manifest == manifest
    assert folder.file(manifest.graphs[0].file).read_bytes() == b"a graph"
    assert folder.reference(manifest.rows[0]).rows[1, 3] == 7


def test_an_altered_file_is_refused_when_it_is_used(left):
    path, manifest = left
    (path / "tiny-image-fp16.onnx").write_bytes(b"another graph")

    with pytest.raises(UnusablePrepared, match="the manifest says"):
        PreparedFolder(path).file(manifest.graphs[0].file)


def test_a_folder_that_was_not_finished_is_refused(left):
    (left[0] / "manifest.json").unlink()

    with pytest.raises(UnusablePrepared, match="enginegate prepare --out"):
        PreparedFolder(left[0])


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".."])
def test_a_manifest_names_files_of_its_own_folder_only(left, name):
    with pytest.raises(UnusablePrepared, match="plain file names"):
        PreparedFolder(left[0]).file(PreparedFile(file=name, sha256="0", nbytes=0))


def test_a_graph_is_refilled_where_weights_were_taken(left):
    assert not left[1].graphs[0].is_refilled


ABOUT = ReportAbout(
    prepared="0" * 64,
    backend="tensorrt",
    backend_version="10.6.0",
    device="NVIDIA H100 80GB HBM3 (SM90)",
    machine=Machine(system="Linux", architecture="x86_64", cpu_model="a CPU", cpu_count=2, memory_bytes=None, python="3.12.1"),
    started="2026-11-24T00:00:00+00:00",
)


def test_a_report_goes_on_with_what_it_was_begun_with(tmp_path):
    ReportFolder(tmp_path).go_on(ABOUT)

    later = replace(ABOUT, started="2026-11-25T00:00:00+00:00")
    assert ReportFolder(tmp_path).go_on(later) == ABOUT


@pytest.mark.parametrize(("field", "value"), [("prepared", "1" * 64), ("backend_version", "11.2.0"), ("device", None)])
def test_a_report_of_something_else_is_not_gone_on_with(tmp_path, field, value):
    ReportFolder(tmp_path).go_on(ABOUT)

    with pytest.raises(UnusablePrepared, match="name another folder"):
        ReportFolder(tmp_path).go_on(replace(ABOUT, **{field: value}))


def test_a_line_reads_back_with_what_was_done_and_what_broke(tmp_path):
    line = ReportLine(encoder="tiny/image", weights="seeded:0", recipe=Recipe.LINEAR, batch=8, is_refilled=True)
    refused = line.after(Stage.BUILD, Event(stage=Stage.BUILD, code="build_failed", message="no kernel"))
    ReportFolder(tmp_path).keep_line("tiny-image-linear-b8", refused)

    assert ReportFolder(tmp_path).line("tiny-image-linear-b8") == refused
    assert ReportFolder(tmp_path).line("tiny-image-linear-b1") is None


def test_an_engine_that_cannot_be_built_leaves_nothing_to_do_and_a_built_one_does():
    line = ReportLine(encoder="tiny/image", weights="seeded:0", recipe=Recipe.LINEAR, batch=8, is_refilled=True)

    assert line.after(Stage.BUILD, Event(stage=Stage.BUILD, code="build_failed", message="no kernel")).is_complete
    assert not line.after(Stage.BUILD).is_complete
    assert replace(line, done=tuple(Stage)).is_complete
