"""The commands `prepare` and `gpu-report`, as processes, with ONNX Runtime in place of a GPU."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest

from tests.helpers.gates import Gate

ENCODER = ("--encoders", "small-clip/image")
QUICK = ("--backend", "onnxruntime", "--batches", "1,4", "--processes", "3", "--quartets", "1")


@pytest.fixture(scope="session")
def folders(tmp_path_factory, warm_cache):
    """A folder in which the small encoder was prepared, whole and as a skeleton; not to be changed."""
    gate = Gate(tmp_path_factory.mktemp("prepared"), warm_cache)
    recipes = ("--recipes", "fp16", "--recipes", "linear")
    whole = gate.command("prepare", "--out", "whole", *ENCODER, *recipes, "--recipes", "modelopt", "--rows", "32")
    skeleton = gate.command("prepare", "--out", "skeleton", *ENCODER, *recipes, "--skeleton", "--json")
    assert (whole.code, skeleton.code) == (0, 0), whole.stderr + skeleton.stderr
    return gate, whole, json.loads(skeleton.stdout)


@pytest.fixture(scope="session")
def reported(folders):
    """The same folder with a report of each."""
    gate = folders[0]
    whole = gate.command("gpu-report", "whole", "--out", "report", *QUICK, "--builders", "3", "--baselines", "stored", "--json")
    skeleton = gate.command("gpu-report", "skeleton", "--out", "report-skeleton", *QUICK, "--engines", "left")
    return gate, whole, skeleton


def _line(folder, name):
    return json.loads((folder / f"engines/small-clip-image-{name}.json").read_text())


def test_a_prepared_folder_holds_graphs_rows_and_a_manifest(folders):
    gate, whole, _ = folders
    names = {path.name for path in (gate.folder / "whole").iterdir()}

    graphs = {f"small-clip-image-{recipe}.onnx" for recipe in ("fp16", "linear", "modelopt")}
    assert names == graphs | {"small-clip-image-rows.npz", "manifest.json"}
    assert whole.stdout.endswith("prepared: whole\n")


def test_a_skeleton_is_smaller_has_no_rows_and_says_what_was_taken(folders):
    gate, _, manifest = folders
    sizes = [(gate.folder / kind / "small-clip-image-fp16.onnx").stat().st_size for kind in ("skeleton", "whole")]

    assert sizes[0] < sizes[1] / 2
    assert manifest["rows"] == []
    assert all(graph["taken"] for graph in manifest["graphs"])
    assert manifest["schema"] == "enginegate/prepared/1"


def test_a_prepared_graph_is_what_build_takes(folders):
    result = folders[0].command("build", "--onnx", "whole/small-clip-image-fp16.onnx", "--backend", "onnxruntime", "--out", "built")

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
    assert "timing small-clip-image-linear-b1, process 1 of 3 ..." in result.stderr
    assert (folder / "engines/small-clip-image-fp16-b1.json").read_bytes() == before


def test_every_batch_leaves_a_run_that_holds_what_the_lines_were_judged_by(reported):
    gate, _, _ = reported
    run = json.loads((gate.folder / "report/runs/b4/run.json").read_text())
    verdicts = {(one["recipe"], one["metric"]): one for one in run["verdicts"]}

    assert {one["batch"] for one in run["engines"]} == {"4/4/4"}
    assert {("linear", "weights_bytes"), ("linear", "weights_ratio"), ("linear", "finite"), ("fp16", "centred_snr_db")} <= set(verdicts)
    assert verdicts["modelopt", "plan_bytes"]["status"] == "INVALID"
    assert "missing_library" in verdicts["modelopt", "plan_bytes"]["reason"]
    assert (run["exit_code"], run["outcome"]) == (4, "INVALID")
    assert (gate.folder / "report/runs/b4/summary.md").read_text().startswith("## enginegate: INVALID")


def test_a_report_stores_what_it_saw_with_the_graph_that_it_saw_it_of(reported):
    gate, _, _ = reported
    (path,) = (gate.folder / "stored/cpu-x86_64/small-clip/image/linear").iterdir()
    (record,) = (one for one in json.loads(path.read_text())["records"] if one["key"]["batch"] == "4/4/4")
    line = _line(gate.folder / "report", "linear-b4")

    assert record["figures"]["weights_bytes"] == line["engine"]["weights_bytes"]
    assert record["onnx_sha256"] == line["engine"]["onnx_sha256"]
    assert record["provenance"]["made_by"] == "gpu-report"
    assert record["provenance"]["timing_driver"] == "none"
    assert record["provenance"]["timing_protocol"].endswith(" a launch, 1 thread, both engines in one process")
    assert len(record["samples"]["process_ratios"]) % 3 == 0
    assert "weights" not in record["provenance"]  # they are the encoder's own


def test_a_refilled_graph_is_stored_as_what_it_is(folders, tmp_path):
    gate, _, manifest = folders
    quick = (*QUICK[:2], "--batches", "1", *QUICK[4:])
    result = gate.command("gpu-report", "skeleton", "--out", str(tmp_path / "r"), *quick, "--baselines", str(tmp_path / "stored"))
    (path,) = (tmp_path / "stored/cpu-x86_64/small-clip/image/fp16").iterdir()
    (record,) = json.loads(path.read_text())["records"]
    exported = next(graph["source_sha256"] for graph in manifest["graphs"] if graph["recipe"] == "fp16")

    assert result.code == 0, result.stderr
    assert record["onnx_sha256"] != exported
    assert exported in record["provenance"]["weights"]
    assert "centred_snr_db" not in record["figures"]


def test_engine_files_are_left_where_they_were_asked_for_as_bench_takes_them(reported):
    gate = reported[0]
    names = {path.stem for path in (gate.folder / "left").iterdir()}
    result = gate.command("bench", "left/small-clip-image-fp16-b1.onnx", "--processes", "3", "--quartets", "1", "--same-process", "--json")

    assert names == {f"small-clip-image-{recipe}-b{batch}" for recipe in ("fp16", "linear") for batch in (1, 4)}
    assert json.loads(result.stdout)["judgement"]["processes"] == 3


def test_two_reports_are_compared_by_their_runs(reported):
    gate = reported[0]
    result = gate.command("compare", "report/runs/b1", "report-skeleton/runs/b1", "--json")
    found = json.loads(result.stdout)

    assert found["summary"]["engines"] == 2  # modelopt was asked of one of them only, and built by neither
    assert any("another ONNX file" in remark for engine in found["engines"] for remark in engine["remarks"])


def test_layers_and_the_nodes_that_they_carry_are_in_the_run_and_are_compared(folders, tmp_path):
    gate = folders[0]
    quick = ("--backend", "fake", "--batches", "2", "--processes", "1", "--quartets", "1")
    result = gate.command("gpu-report", "skeleton", "--out", str(tmp_path / "one"), *quick)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    compared = gate.command("compare", str(tmp_path / "one/runs/b2"), str(tmp_path / "other/runs/b2"), "--json")
    run = json.loads((tmp_path / "one/runs/b2/run.json").read_text())
    verdicts = {(one["recipe"], one["metric"]): one["status"] for one in run["verdicts"]}

    assert result.code == 0, result.stderr
    assert (verdicts["linear", "block_gemms_fp8"], verdicts["linear", "check_E7"]) == ("PASS", "NO_BASELINE")
    assert verdicts["linear", "latency_ratio"] == "INVALID"  # one process proves nothing
    assert [engine["compared_nodes"] > 20 for engine in json.loads(compared.stdout)["engines"]] == [True, True]


def test_accuracy_of_a_run_is_judged_again_without_an_engine(reported):
    result = reported[0].command("judge", "report/runs/b4", "--json")

    assert {one["now"]["metric"] for one in json.loads(result.stdout)["gates"]} >= {"finite", "cosine_min", "centred_snr_db"}


def test_baselines_are_not_written_where_nobody_looks(folders, tmp_path):
    stored = ("--baselines", str(tmp_path / "stored"))
    result = folders[0].command("gpu-report", "skeleton", "--out", str(tmp_path / "r"), *QUICK, *stored, CI="true")

    assert (result.code, result.stdout) == (2, "")
    assert "CI is set" in result.stderr
    assert not (tmp_path / "stored").exists()


@pytest.fixture(scope="session")
def studied(folders):
    """The folder with a study of three processes, of which the budget allowed the trace and, in a second call, the rest."""
    gate = folders[0]
    wanted = ("--study", "small-clip/image", "--study-quartets", "1", "--changes", "100", "--trace-seconds", "0.2")
    command = ("gpu-report", "skeleton", "--out", "studied", "--backend", "onnxruntime", "--batches", "1", *wanted)
    first = gate.command(*command, "--study-processes", "1")
    second = gate.command(*command, "--study-processes", "3")
    return gate, first, second


def test_a_study_goes_on_where_it_stopped_and_finds_a_doubled_launch(studied):
    gate, first, second = studied
    result = gate.command("noise", "studied/study", "--json")
    found = json.loads(result.stdout)

    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert "process 1 of" not in second.stderr
    assert found["noises"]["100"]["judgement"]["processes"] == 3
    assert found["injected"]["100"] == pytest.approx(1.0, rel=0.01)
    assert found["noises"]["100"]["mean"] > found["noises"]["none"]["mean"] + 0.3
    assert found["trace"]["launches"] > 2
    assert "## Noise, and slow-downs of known size" in (gate.folder / "studied/report.md").read_text()


def test_the_noise_of_kept_samples_is_printed_as_tables(studied):
    result = studied[0].command("noise", "studied/study")

    assert result.code == 0
    assert "| none | - |" in result.stdout
    assert "launches in a row" in result.stdout


def test_a_timing_that_was_cut_goes_on_with_its_next_process(reported, tmp_path):
    gate = reported[0]
    folder, name = tmp_path / "report", "small-clip-image-linear-b1"
    shutil.copytree(gate.folder / "report-skeleton", folder)
    line = json.loads((folder / f"engines/{name}.json").read_text())
    line["done"] = [stage for stage in line["done"] if stage not in ("hot", "cold")]
    (folder / f"engines/{name}.json").write_text(json.dumps({**line, "timed": {}, "benchmark": []}))
    for stage in ("hot", "cold"):
        whole = json.loads(gzip.decompress((folder / f"samples/{name}-{stage}.json.gz").read_bytes()))
        cut = json.dumps({**whole, "processes": whole["processes"][:2]})
        (folder / f"samples/unfinished/{name}-{stage}.json.gz").write_bytes(gzip.compress(cut.encode()))
    result = gate.command("gpu-report", "skeleton", "--out", str(folder), *QUICK)

    assert result.code == 0, result.stderr
    assert "process 2 of 3" not in result.stderr
    assert "process 3 of 3" in result.stderr
    assert json.loads((folder / f"engines/{name}.json").read_text())["timed"]["hot"]["judgement"]["processes"] == 3
    assert list((folder / "samples/unfinished").iterdir()) == []


def test_a_budget_that_is_over_leaves_a_report_that_says_what_is_left(folders, tmp_path):
    gate = folders[0]
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
        (["gpu-report", "skeleton", "--out", "r", *QUICK, "--study", "ViT-B-32/text"], 2, "expected one of small-clip/image"),
        (["gpu-report", "skeleton", "--out", "r", *QUICK, "--study", "--changes", "0"], 2, "expected percents"),
        (["noise", "whole"], 2, "gpu-report --study"),
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
