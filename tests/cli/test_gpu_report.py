"""The commands `prepare` and `gpu-report`, as processes, with ONNX Runtime in place of a GPU."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.helpers.gates import Gate

ENCODER = ("--encoders", "small-clip/image")
QUICK = ("--backend", "onnxruntime", "--batches", "1,4", "--processes", "3", "--quartets", "1")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, warm_cache):
    """A folder in which the small encoder was prepared, whole and as a skeleton; not to be changed."""
    gate = Gate(tmp_path_factory.mktemp("prepared"), warm_cache)
    recipes = ("--recipes", "fp16", "--recipes", "linear")
    whole = gate.command("prepare", "--out", "whole", *ENCODER, *recipes, "--recipes", "modelopt", "--rows", "32")
    skeleton = gate.command("prepare", "--out", "skeleton", *ENCODER, *recipes, "--skeleton", "--json")
    assert (whole.code, skeleton.code) == (0, 0), whole.stderr + skeleton.stderr
    return gate, whole, json.loads(skeleton.stdout)


@pytest.fixture(scope="session")
def reported(prepared):
    """The same folder with a report of each."""
    gate = prepared[0]
    whole = gate.command("gpu-report", "whole", "--out", "report", *QUICK, "--json")
    skeleton = gate.command("gpu-report", "skeleton", "--out", "report-skeleton", *QUICK)
    return gate, whole, skeleton


def _line(folder, name):
    return json.loads((folder / f"engines/small-clip-image-{name}.json").read_text())


def test_a_prepared_folder_holds_graphs_rows_and_a_manifest(prepared):
    gate, whole, _ = prepared
    names = {path.name for path in (gate.folder / "whole").iterdir()}

    graphs = {f"small-clip-image-{recipe}.onnx" for recipe in ("fp16", "linear", "modelopt")}
    assert names == graphs | {"small-clip-image-rows.npz", "manifest.json"}
    assert whole.stdout.endswith("prepared: whole\n")


def test_a_skeleton_is_smaller_has_no_rows_and_says_what_was_taken(prepared):
    gate, _, manifest = prepared
    sizes = [(gate.folder / kind / "small-clip-image-fp16.onnx").stat().st_size for kind in ("skeleton", "whole")]

    assert sizes[0] < sizes[1] / 2
    assert manifest["rows"] == []
    assert all(graph["taken"] for graph in manifest["graphs"])
    assert manifest["schema"] == "enginegate/prepared/1"


def test_a_prepared_graph_is_what_build_takes(prepared):
    result = prepared[0].command("build", "--onnx", "whole/small-clip-image-fp16.onnx", "--backend", "onnxruntime", "--out", "built")

    assert result.stdout.strip() == "built/small-clip-image-fp16.onnx"


def test_every_engine_is_built_looked_at_and_timed(reported):
    gate, whole, _ = reported
    line = _line(gate.folder / "report", "linear-b4")

    assert line["done"] == ["build", "graph", "accuracy", "hot", "cold", "profile"]
    assert line["gain"]["in_turns"]
    assert line["gain"]["b"]["layers_ms"] > line["gain"]["a"]["layers_ms"] > 0  # FP8 is rounded, not computed, on a CPU
    assert _line(gate.folder / "report", "linear-b1")["gain"] is None  # the largest batch alone
    assert "## Where the time goes" in (gate.folder / "report/report.md").read_text()
    assert len(list((gate.folder / "report/profiles").iterdir())) == 2
    assert line["engine"]["weights_bytes"] > 0
    assert line["timed"]["hot"]["judgement"]["ratio"] > 0
    assert (gate.folder / "report" / line["timed"]["cold"]["samples"]).is_file()
    assert {one["metric"] for one in line["accuracy"]} == {"finite", "cosine_min", "cosine_p01", "centred_snr_db", "fp8_error_db"}
    assert next(one for one in line["accuracy"] if one["metric"] == "finite")["status"] == "PASS"
    assert json.loads(whole.stdout)["left"] == []


def test_what_cannot_be_built_is_a_line_with_its_event_and_the_report_goes_on(reported):
    gate, whole, _ = reported
    line = _line(gate.folder / "report", "modelopt-b4")

    assert whole.code == 4
    assert [event["code"] for event in line["events"]] == ["missing_library"]
    assert json.loads(whole.stdout)["events"] == {
        "small-clip-image-modelopt-b4": ["missing_library"],
        "small-clip-image-modelopt-b1": ["missing_library"],
    }
    assert "## What broke" in (gate.folder / "report/report.md").read_text()


def test_random_weights_are_timed_and_their_accuracy_is_not_judged(reported):
    gate, _, skeleton = reported
    line = _line(gate.folder / "report-skeleton", "linear-b4")

    assert skeleton.code == 0, skeleton.stderr
    assert line["is_refilled"]
    assert line["accuracy"] == []
    assert line["timed"]["hot"]["judgement"]["ratio"] > 0


def test_samples_of_a_report_are_what_judge_latency_reads(reported, tmp_path):
    import gzip

    gate = reported[0]
    (tmp_path / "samples.json").write_bytes(
        gzip.decompress((gate.folder / "report/samples/small-clip-image-linear-b4-hot.json.gz").read_bytes())
    )
    result = gate.command("judge-latency", str(tmp_path / "samples.json"), "--json")

    assert json.loads(result.stdout)["ratio"] == _line(gate.folder / "report", "linear-b4")["timed"]["hot"]["judgement"]["ratio"]


def test_a_report_that_is_there_is_gone_on_with_and_nothing_is_done_again(reported, tmp_path):
    gate = reported[0]
    folder = tmp_path / "report"
    shutil.copytree(gate.folder / "report-skeleton", folder)
    before = (folder / "engines/small-clip-image-fp16-b1.json").read_bytes()
    (folder / "engines/small-clip-image-linear-b1.json").unlink()
    result = gate.command("gpu-report", "skeleton", "--out", str(folder), *QUICK)

    assert result.code == 0, result.stderr
    assert "linear-b4" not in result.stderr
    assert "timing small-clip-image-linear-b1 ..." in result.stderr
    assert (folder / "engines/small-clip-image-fp16-b1.json").read_bytes() == before


def test_a_budget_that_is_over_leaves_a_report_that_says_what_is_left(prepared, tmp_path):
    gate = prepared[0]
    result = gate.command("gpu-report", "skeleton", "--out", str(tmp_path / "report"), *QUICK, "--budget-minutes", "0.000001")

    assert result.code == 3, result.stderr
    assert "4 of 4 engines are left" in result.stdout
    assert "## What is left" in (tmp_path / "report/report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gpu-report", "nowhere", "--out", "r"], 2, "enginegate prepare --out"),
        (["gpu-report", "whole", "--out", "report", *QUICK[:2], "--batches", "0"], 2, "batches"),
        (["gpu-report", "skeleton", "--out", "report", *QUICK], 2, "name another folder"),
        (["gpu-report", "whole", "--out", "r", "--backend", "tensorflow"], 2, "tensorrt"),
        (["gpu-report", "whole", "--out", "r", "--backend", "pytorch"], 4, "can build nothing here"),
        (["prepare", "--out", "p", "--encoders", "ViT-B32/image"], 2, "ViT-B-32"),
        (["prepare", "--out", "p", *ENCODER, "--weights", "ViT-B-32=seeded:1"], 2, "only small-clip are chosen"),
        (["prepare", "--out", "gate.toml", *ENCODER], 2, "is a file"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_with_its_exit_code(reported, arguments, code, words):
    result = reported[0].command(*arguments)

    assert (result.code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
