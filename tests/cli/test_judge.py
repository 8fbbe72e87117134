"""The command `judge`: yesterday's rows under today's bounds, and one clear line for what holds none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.cli import main
from harness.judge.accuracy.all_metrics import METRICS
from harness.records.kept_accuracy import accuracy_file
from harness.records.rejudgement import Rejudgement
from harness.records.verdict import Direction, Judgement, Status, Suite
from harness.store.codec import from_plain
from harness.store.run_directory import read_run
from tests.helpers.kept import ATTENTION, FP16, LINEAR, KeptRun, change_record, embeddings, evidence
from tests.helpers.runs import ENGINE, RunFolder

BOUND = '[[bound]]\nmetric = "{}"\n{} = {}\nreason = "to be tried"\n'
FLOOR_99 = BOUND.format("cosine_min", "floor", 0.9999999)
OF_GRAPH = Judgement(metric="check_O1", status=Status.FAIL, observed=1, bound=0, unit="findings", direction=Direction.EQUAL, n=9)
OF_ENGINE = replace(OF_GRAPH, metric="property_same_twice", unit="rows")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, so that no gate.toml of this repository is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A run of two engines, as it was left; not to be changed."""
    return KeptRun(tmp_path_factory.mktemp("left") / "run").keep(FP16).keep(LINEAR).finish()


@pytest.fixture
def kept(folder, left):
    """A copy of it."""
    shutil.copytree(left, folder / "run")
    return folder / "run"


@pytest.fixture
def green(folder):
    """A run of two engines in which everything passed."""
    metrics = ("finite", "cosine_min", "centred_snr_db", "fp8_error_db")
    return KeptRun(folder / "run").keep(FP16, metrics=metrics).keep(LINEAR, metrics=metrics).finish()


def gate_file(folder, *lines: str, name: str = "gate.toml"):
    path = folder / name
    path.write_text("\n".join(('schema = "enginegate/gate/1"', *lines)))
    return path


def judge(*arguments: object) -> int:
    return main(["judge", *map(str, arguments)])


def words(capsys) -> str:
    """What was printed, without its line breaks."""
    return " ".join(capsys.readouterr().out.split())


def judged(capsys, *arguments: object) -> Rejudgement:
    """The record that the command prints."""
    code = judge(*arguments, "--json")
    record = from_plain(Rejudgement, json.loads(capsys.readouterr().out), origin="stdout")
    assert record.summary.exit_code == code
    return record


# -- under the same bounds -------------------------------------------------------------------------------------------------------


def test_under_the_same_bounds_every_verdict_is_the_run_s_own(kept, capsys):
    record = judged(capsys, kept)

    assert {gate.now.metric for gate in record.gates} >= {"finite", "centred_snr_db", "fp8_error_db", "top10_overlap"}
    assert [gate.now for gate in record.gates] == [gate.then for gate in record.gates] == list(read_run(kept).verdicts)
    assert (record.summary.changed, record.summary.exit_code, record.summary.not_rejudged) == (0, read_run(kept).exit_code, 0)


def test_a_real_run_judges_as_it_did(approved, folder, capsys):
    """The run that made the baselines: what it approved stays approved."""
    gate, first = approved
    run = gate.folder / first.stdout.strip().splitlines()[-1].removeprefix("run: ")
    shutil.copytree(run, folder / "copied")

    record = judged(capsys, folder / "copied", "--config", gate.folder / "gate.toml")

    accuracy = [verdict for verdict in read_run(run).verdicts if verdict.metric in METRICS]
    assert [gate.now for gate in record.gates if gate.then] == accuracy
    assert {verdict.reason for verdict in accuracy} > {"baseline_created"}
    assert len(accuracy) >= 6
    others = {row.suite for row in record.not_rejudged if row.status and not row.metric.startswith("property_")}
    assert others == {"graph", "benchmark"}


def test_a_real_run_beside_its_baselines_judges_as_it_did(gate, folder, capsys):
    second = gate("-m", "accuracy")
    shutil.copytree(gate.folder / second.stdout.strip().splitlines()[-1].removeprefix("run: "), folder / "copied")
    shutil.rmtree(gate.folder / "baselines")

    record = judged(capsys, folder / "copied", "--config", gate.folder / "gate.toml")

    assert [gate.now for gate in record.gates if gate.then] == [
        verdict for verdict in read_run(folder / "copied").verdicts if verdict.metric in METRICS
    ]


def test_what_broke_stays_invalid_in_the_run_s_words(folder, capsys):
    one_model = evidence(LINEAR)
    other = replace(one_model, exact=replace(one_model.exact, inputs_digest="other pictures"))
    broken = replace(OF_GRAPH, metric="cosine_min", status=Status.INVALID, observed=None, reason="different inputs")
    run = KeptRun(folder / "run").keep(LINEAR, other, metrics=[]).say(LINEAR, broken).finish()

    assert judge(run) == 4
    assert "were computed from different inputs" in words(capsys)


def test_an_engine_that_gave_no_rows_stays_invalid(folder, capsys):
    crash = replace(OF_GRAPH, metric="finite", status=Status.INVALID, observed=None, reason="it crashed")
    run = KeptRun(folder / "run").keep(FP16, metrics=["finite"]).say(LINEAR, crash).finish()

    assert judge(run) == 4
    assert "INVALID accuracy a/image linear fake finite: the run kept no rows of this engine: it crashed" in words(capsys)


def test_rows_that_are_not_finite_fail_as_they_did(folder, capsys):
    broken = embeddings(LINEAR.id)
    broken.rows[3] = np.nan
    run = KeptRun(folder / "run").keep(LINEAR, evidence(LINEAR, observed=broken), metrics=["finite"]).finish()

    assert judge(run) == 1
    assert "FAIL accuracy a/image linear fake finite: 1 rows are zero or not finite, first id 3" in words(capsys)


# -- under other bounds ----------------------------------------------------------------------------------------------------------


def test_a_tighter_bound_fails_and_says_what_the_run_said(green, folder, capsys):
    gate_file(folder, FLOOR_99)

    assert judge(green) == 1
    shown = capsys.readouterr().out
    (row,) = [line for line in shown.splitlines() if line.startswith("a/image  linear") and " cosine_min " in line]
    assert row.split()[-2:] == ["FAIL", "PASS"]  # now, and then
    assert shown.splitlines()[-1].startswith("7 gates judged again: 5 PASS, 2 FAIL; 2 with another verdict than in the run")
    assert shown.splitlines()[:2] == [f"run     {green}, of 2026-11-23T15:04:05+00:00", f"bounds  {folder / 'gate.toml'}"]


def test_a_looser_bound_passes_what_failed(folder, capsys):
    turned = evidence(FP16, observed=embeddings("turned", noise=0.05, seed=3))
    run = KeptRun(folder / "run").keep(FP16, turned, metrics=["cosine_min", "centred_snr_db"]).finish()
    assert judge(run) == 1

    gate_file(folder, BOUND.format("cosine_min", "floor", 0.9), BOUND.format("centred_snr_db", "floor", 20))
    record = judged(capsys.readouterr() and capsys, run)

    assert (record.summary.exit_code, record.summary.changed) == (0, 2)
    assert {(gate.then.status, gate.now.status) for gate in record.gates if gate.then} == {("FAIL", "PASS")}


def test_the_approved_figure_that_was_in_force_is_held_to(folder, capsys):
    seen = evidence(LINEAR, approved_snr_db=60.0)  # far above what the engine has
    run = KeptRun(folder / "run").keep(LINEAR, seen, metrics=["centred_snr_db"]).finish()

    (gate,) = judged(capsys, run).gates
    assert (gate.now.status, gate.now.bound) == ("FAIL", 57.0)


def test_config_names_another_file_and_gate_file_is_the_same_option(green, folder, capsys):
    tight = gate_file(folder, FLOOR_99, name="tight.toml")

    assert [judge(green), judge(green, "--config", tight), judge(green, "--gate-file", tight)] == [0, 1, 1]


def test_a_recipe_that_is_only_reported_on_decides_nothing(green, folder, capsys):
    policy = 'severity = "report"\nblock_gemms_fp8 = true\nfused_attention = true\nunfused_qdq = 0\nreason = "to be tried"\n'
    gate_file(folder, FLOOR_99.replace("reason", 'recipes = ["linear"]\nreason'), f"[policy.linear]\n{policy}")

    record = judged(capsys, green)

    assert record.summary.exit_code == 0
    assert {(str(gate.severity), gate.now.status) for gate in record.gates if gate.now.metric == "cosine_min"} == {
        ("gate", "PASS"),
        ("report", "FAIL"),
    }


def test_a_metric_that_was_only_reported_is_judged_too(folder, capsys):
    few = {name: few_rows(part) for name in ("observed", "exact") if (part := getattr(evidence(FP16), name))}
    run = KeptRun(folder / "run").keep(FP16, evidence(FP16, task=None, **few), metrics=["finite", "cosine_p01"]).finish()
    assert [verdict.metric for verdict in read_run(run).verdicts] == ["finite"]

    record = judged(capsys, run)

    assert [(gate.now.metric, str(gate.severity), gate.then is None) for gate in record.gates] == [
        ("finite", "gate", False),
        ("cosine_p01", "report", True),
    ]


def few_rows(seen):
    return replace(seen, rows=seen.rows[:24], ids=seen.ids[:24])


# -- what cannot be judged again ---------------------------------------------------------------------------------------------------


def test_what_no_row_can_tell_is_listed_with_what_the_run_said(folder, capsys):
    run = KeptRun(folder / "run").keep(FP16, metrics=["finite"]).say(FP16, OF_GRAPH, Suite.GRAPH).say(FP16, OF_ENGINE).finish()

    assert judge(run) == 0  # of what was judged again, all passes
    shown = words(capsys)
    assert "not judged again: graph check_O1 (1 FAIL): rests on graphs, layers, bytes or times" in shown
    assert "not judged again: accuracy property_same_twice (1 FAIL): rests on runs of the engine itself" in shown
    assert "2 verdicts of the run not judged again" in shown


def test_json_lists_what_was_not_judged_again(folder, capsys):
    run = KeptRun(folder / "run").keep(FP16, metrics=["finite"]).say(FP16, OF_ENGINE).finish()

    (row,) = judged(capsys, run).not_rejudged
    assert (row.metric, row.status, row.recipe) == ("property_same_twice", "FAIL", "fp16")


def test_an_engine_whose_record_was_taken_away_is_never_green(kept, capsys):
    (kept / accuracy_file(LINEAR)).unlink()

    assert judge(kept) == 4
    assert "there is no accuracy/a-image-linear-fake.json, with the rows that were judged" in words(capsys)


def refused(capsys, *arguments: object) -> str:
    """The one line that the command says on stderr, with exit code 2."""
    assert judge(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def test_a_run_that_kept_no_rows_is_refused(folder, capsys):
    run = RunFolder().write(folder / "run", ENGINE)

    assert "run/accuracy holds no record of rows; expected one for each engine" in refused(capsys, run)


def test_a_run_with_rows_and_no_accuracy_verdict_is_refused(folder, capsys):
    run = KeptRun(folder / "run").keep(FP16, metrics=[]).say(FP16, OF_ENGINE).finish()

    assert "has no accuracy verdict that rests on rows" in refused(capsys, run)


def test_a_folder_that_is_no_run_is_refused(folder, capsys):
    assert "expected a finished run" in refused(capsys, folder)
    assert "expected a finished run" in refused(capsys, folder / "nowhere")


def test_rows_whose_ids_were_exchanged_are_refused(folder, capsys):
    exact = evidence(LINEAR).exact
    other_order = replace(exact, ids=exact.ids[::-1])
    run = KeptRun(folder / "run").keep(LINEAR, evidence(LINEAR, exact=other_order), metrics=["finite"]).finish()

    assert "have other ids for the same inputs; expected rows in one order" in refused(capsys, run)


def test_every_kind_of_broken_folder_is_one_line(kept, capsys):
    change_record(kept, lambda plain: plain["exact"]["archive"].update(file="../elsewhere.npz"))

    assert "expected a file inside the run's own folder" in refused(capsys, kept)


def test_a_gate_file_that_cannot_be_meant_is_refused(kept, folder, capsys):
    bad = gate_file(folder, BOUND.format("cosine_mean", "floor", 0.9), name="bad.toml")

    assert "metric 'cosine_mean' is unknown here" in refused(capsys, kept, "--config", bad)
    assert "nowhere.toml: cannot be read" in refused(capsys, kept, "--config", "nowhere.toml")


def test_a_refusal_in_json_is_one_document(folder, capsys):
    assert judge(folder, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


# -- on another machine ----------------------------------------------------------------------------------------------------------


def test_judging_needs_neither_torch_nor_onnx_nor_an_engine_s_library(left, folder):
    heavy = {"torch", "open_clip", "modelopt", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "matplotlib", "pytest", "PIL"}
    script = f"import sys\nfrom harness.cli import main\ncode = main(['judge', {str(left)!r}])\nprint(code, {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.splitlines()[-1] == f"{read_run(left).exit_code} set()"


def test_a_run_with_another_recipe_s_rows_in_its_place_is_refused(folder, capsys):
    run = KeptRun(folder / "run").keep(LINEAR, metrics=["finite"]).keep(ATTENTION, metrics=["finite"]).finish()
    shutil.copy(run / accuracy_file(LINEAR), run / accuracy_file(ATTENTION))

    assert "a-image-attention-fake.json: is about a/image-linear-fake" in refused(capsys, run)
