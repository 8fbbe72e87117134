"""The command `compare`: two run directories, one exit code, and one clear line for what is no run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.records.comparison import Comparison
from harness.store.codec import from_plain
from tests.helpers.gates import GATE_TOML, REPOSITORY
from tests.helpers.graphs import layer_table
from tests.helpers.runs import ENGINE, GRAPH, RunFolder, gate

NEWER = replace(ENGINE, backend_version="1.8")
HALF = RunFolder(table=layer_table(GRAPH, half=frozenset({"b1/fc"})))
NODE = "b1/fc"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, so that no gate.toml of this repository is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(folder):
    """A run, and one whose engine has a GEMM in half precision."""
    return RunFolder().write(folder / "a", ENGINE), HALF.write(folder / "b", NEWER)


def compare(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])


def test_a_worse_run_is_1_and_names_the_node(runs, capsys):
    assert compare(*runs) == 1
    shown = capsys.readouterr().out

    assert f"worse    {NODE} type: fp8 -> mixed" in shown
    assert shown.splitlines()[-1].endswith(f"E11 {NODE}: type was fp8, is mixed")


def test_a_better_run_is_0_and_is_shown(runs, capsys):
    assert compare(*reversed(runs)) == 0
    assert f"better   {NODE} type: mixed -> fp8" in capsys.readouterr().out


def test_a_copy_of_a_run_is_no_worse(runs, capsys):
    shutil.copytree(runs[0], runs[0].parent / "copy")

    assert compare(runs[0], runs[0].parent / "copy") == 0
    assert "PASS: B is not worse than A" in capsys.readouterr().out


def test_runs_may_be_named_by_their_record(runs):
    assert compare(runs[0] / "run.json", runs[1] / "run.json") == 1


def test_json_is_one_document_of_the_record(runs, capsys):
    assert compare(*runs, "--json") == 1
    document = json.loads(capsys.readouterr().out)

    assert document["schema"] == "enginegate/comparison/1"
    assert set(document) == {"schema", "a", "b", "engines", "findings", "summary"}
    record = from_plain(Comparison, document, origin="stdout")
    assert (record.summary.gate, record.summary.exit_code) == (1, 1)
    assert [(finding.check, finding.node, finding.block) for finding in record.findings] == [("E11", NODE, 1)]


def test_markdown_fits_a_comment(runs, capsys):
    assert compare(*runs, "--markdown") == 1
    assert capsys.readouterr().out.startswith("## enginegate compare: FAIL, B is worse than A")


def test_margins_come_from_the_named_gate_file(folder):
    a, b = (RunFolder().write(folder / name, row) for name, row in (("a", ENGINE), ("b", replace(NEWER, weights_bytes=1020))))
    margin = '[[margin]]\nmetric = "weights_bytes"\nrelative = 0.05\nreason = "for tests"\n'
    (folder / "wide.toml").write_text(f"{GATE_TOML}\n{margin}")

    assert compare(a, b) == 1
    assert compare(a, b, "--gate-file", folder / "wide.toml") == 0


def test_embeddings_of_other_inputs_leave_the_comparison_open(folder, capsys):
    verdicts = [gate("cosine_min", figure, suite="accuracy") for figure in (0.99, 0.98)]
    a = RunFolder(inputs="x").write(folder / "a", ENGINE, verdicts=(verdicts[0],))
    b = RunFolder(inputs="y").write(folder / "b", NEWER, verdicts=(verdicts[1],))

    assert compare(a, b) == 3
    assert "seen on other inputs: not compared" in capsys.readouterr().out


# -- what is no run --------------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments: object) -> str:
    """The one line that the command says on stderr, with exit code 2."""
    assert compare(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def test_a_folder_that_is_no_run_is_refused(runs, folder, capsys):
    (folder / "empty").mkdir()

    assert "empty/run.json: cannot be read" in refused(capsys, runs[0], folder / "empty")
    assert "expected a finished run" in refused(capsys, folder / "nowhere", runs[1])


def test_a_half_written_run_is_refused(runs, capsys):
    (runs[1] / "run.json").unlink()  # written last

    assert "expected a finished run" in refused(capsys, *runs)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["run.json", "layers/engine.json", "graphs/graph.json"])
def test_a_file_cut_in_half_is_refused_by_name(runs, name, capsys):
    cut(runs[1] / name)

    line = refused(capsys, *runs)
    assert f"b/{name}:" in line
    assert "is no JSON" in line


@pytest.mark.parametrize("name", ["layers/engine.json", "graphs/graph.json"])
def test_a_file_that_is_missing_is_refused_by_name(runs, name, capsys):
    (runs[0] / name).unlink()

    line = refused(capsys, *runs)
    assert f"a/{name}: cannot be read" in line
    assert "copy the whole folder" in line


def test_embeddings_cut_in_half_are_refused_by_name(folder, capsys):
    a, b = (RunFolder(inputs="x").write(folder / name, ENGINE) for name in "ab")
    (archive,) = (b / "samples").iterdir()
    cut(archive)

    assert "is no archive of embeddings" in refused(capsys, a, b)


def test_one_array_in_the_place_of_an_archive_is_refused(folder, capsys):
    a, b = (RunFolder(inputs="x").write(folder / name, ENGINE) for name in "ab")
    (archive,) = (b / "samples").iterdir()
    with archive.open("wb") as stream:
        np.save(stream, np.zeros(3))

    assert "is no archive of embeddings" in refused(capsys, a, b)


def test_a_name_that_no_file_can_have_is_refused(runs, capsys):
    file = runs[1] / "run.json"
    file.write_text(file.read_text().replace("layers/engine.json", "layers/\\u0000"))

    assert "cannot be read (embedded null byte)" in refused(capsys, *runs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "enginegate/run/2"}, "made by a newer enginegate"),
        ({"schema": "enginegate/findings/1"}, "has schema 'enginegate/findings/1'; expected 'enginegate/run/1'"),
        ({"surprise": 1}, "unknown key $.surprise"),
    ],
)
def test_another_schema_is_refused(runs, changes, words, capsys):
    file = runs[1] / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    assert words in refused(capsys, *runs)


@pytest.mark.parametrize("name", ["../a/layers/engine.json", "/etc/hostname"])
def test_a_run_that_names_a_file_outside_its_folder_is_refused(folder, runs, name, capsys):
    file = runs[1] / "run.json"
    document = json.loads(file.read_text())
    document["engines"][0]["layer_table"] = name
    file.write_text(json.dumps(document))

    assert "expected a file inside the run's own folder" in refused(capsys, *runs)


def test_the_same_run_twice_is_refused(runs, folder, capsys):
    (folder / "link").symlink_to(runs[0])

    for twin in (runs[0], runs[0] / "run.json", folder / "link"):
        assert "are the same run" in refused(capsys, runs[0], twin)


def test_runs_that_share_no_engine_are_refused_with_what_they_have(runs, folder, capsys):
    other = RunFolder().write(folder / "other", replace(ENGINE, weights="seeded:1"))

    line = refused(capsys, runs[0], other)
    assert "share no engine to compare" in line
    assert "ViT-B-32/image linear tensorrt_rtx/SM89 seeded:1 1/8/64" in line


def test_a_recipe_of_another_version_is_refused_by_name(runs, folder, capsys):
    other = RunFolder().write(folder / "other", replace(ENGINE, recipe="unheard-of"))

    unbuilt = RunFolder().write(folder / "unbuilt", ENGINE, verdicts=(gate("finite", None, "INVALID", recipe="unheard-of"),))

    assert "recipe 'unheard-of' is unknown" in refused(capsys, other, runs[1])
    assert "recipe 'unheard-of' is unknown" in refused(capsys, runs[0], unbuilt)


def test_errors_are_one_json_document_where_json_is_asked_for(runs, folder, capsys):
    assert compare(runs[0], folder / "nowhere", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


# -- what a gate leaves ----------------------------------------------------------------------------------------------------------


def test_what_real_gates_leave_can_be_compared(approved, gate):
    """The small encoder's engines, gated twice; then the second run with one layer of its table in half precision."""
    first = approved[0].folder / approved[1].stdout.strip().splitlines()[-1].removeprefix("run: ")
    again = gate()
    second = gate.folder / again.stdout.strip().splitlines()[-1].removeprefix("run: ")

    same = gate.command("compare", str(first), str(second), "--json")
    assert same.code == 0, same.stdout + same.stderr
    document = json.loads(same.stdout)
    nodes = {engine["recipe"]: engine["compared_nodes"] for engine in document["engines"] if engine["backend"] == "tensorrt_rtx"}
    assert nodes["linear"] > nodes["fp16"] > 50

    table = next((second / "layers").glob("*linear*.json"))
    table.write_text(table.read_text().replace('"FP8"', '"Half"'))
    worse = gate.command("compare", str(first), str(second), "--json")
    assert worse.code == 1
    found = {finding["node"] for finding in json.loads(worse.stdout)["findings"]}
    assert any(node and node.endswith("mlp/c_fc/MatMul") for node in found)


def test_comparing_loads_no_library_that_runs_need(runs):
    script = (
        "import sys; from harness.cli import main; code = main(['compare', *sys.argv[1:]]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'open_clip', 'modelopt', 'tensorrt', 'tensorrt_rtx_bindings', 'pytest'};"
        "print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, runs)],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
