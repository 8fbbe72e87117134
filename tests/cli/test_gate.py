"""The command `gate`, from outside: what it prints, what it leaves, and how it exits."""

import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest

from harness.backends.registry import get_backend
from harness.contracts import Action
from harness.judge.accuracy.all_metrics import METRICS
from harness.records.run import RunRecord
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.run_directory import read_run
from tests.helpers.gates import REPOSITORY, Gate

_SMALL = EngineSpec(encoder=EncoderSpec.parse("small-clip/image"), recipe=Recipe.LINEAR, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SMALL)
needs_rtx = pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")


def baseline_files(gate):
    return sorted((gate.folder / "baselines").rglob("*.json"))


def add_waiver(gate, *, expires):
    line = (
        f'[[waiver]]\nmetric = "weights_bytes"\nceiling = 1e9\nreason = "for tests"\nowner = "someone@example.org"\nexpires = {expires}\n'
    )
    (gate.folder / "gate.toml").write_text((gate.folder / "gate.toml").read_text() + line)


def change_figure(gate, metric, change):
    """Change one figure in every baseline that has it."""
    for path in baseline_files(gate):
        content = json.loads(path.read_text())
        for record in content["records"]:
            if metric in record["figures"]:
                record["figures"][metric] = change(record["figures"][metric])
        path.write_text(json.dumps(content))


class TestRun:
    def test_a_first_run_creates_baselines_and_a_second_compares_with_them(self, approved, gate):
        first = approved[1]
        assert {row["reason"].partition(":")[0] for row in first.verdicts if row["metric"] == "plan_bytes"} == {"baseline_created"}

        second = gate()

        assert (second.code, second.red) == (0, {})
        assert len(second.verdicts) == len(first.verdicts)
        assert all(row["bound"] is not None for row in second.verdicts)

    def test_the_table_has_one_line_a_gate_or_a_subjects_clean_checks_and_the_last_line_is_the_run(self, gate):
        result = gate()

        table = result.stdout.partition("suite      encoder")[2]
        lines = [line for line in table.splitlines() if line.startswith(("accuracy ", "graph ", "benchmark "))]
        checks = [row for row in result.verdicts if row["unit"] == "findings"]
        subjects = {(row["recipe"], row["backend"]) for row in checks}
        assert len(lines) == len(result.verdicts) - len(checks) + len(subjects)
        assert sum("  checks " in line for line in lines) == len(subjects)
        assert re.fullmatch(r"run: .*runs/\d{8}T\d{6}Z-[0-9a-f]{6}", result.stdout.strip().splitlines()[-1])

    def test_the_run_directory_holds_everything_the_issue_of_a_verdict_needs(self, gate):
        result = gate("--run-dir", "out")

        run = gate.folder / "out"
        record = read_run(run)
        assert isinstance(record, RunRecord)
        assert json.loads((run / "run.json").read_text())["schema"] == "enginegate/run/1"
        assert result.stdout.strip().splitlines()[-1] == f"run: {run}"
        for engine in record.engines:
            assert engine.layer_table is None or json.loads((run / engine.layer_table).read_text())["rows"]
        with np.load(run / "samples" / "small-clip-image-linear-onnxruntime-embeddings.npz", allow_pickle=False) as arrays:
            assert arrays["rows"].shape == (24, 32)
        cases = ElementTree.parse(run / "junit.xml").getroot().findall(".//testcase")
        assert len(cases) >= 20
        assert any("PASS" in (prop.get("value") or "") for prop in ElementTree.parse(run / "junit.xml").getroot().iter("property"))
        assert "## enginegate: PASS" in (run / "summary.md").read_text()
        assert list((run / "logs").glob("*prepare.log"))

    def test_a_warm_run_imports_neither_torch_nor_open_clip_nor_modelopt(self, gate):
        script = (
            "import sys; from harness.cli import main; code = main(['gate', '-q']);"
            "print(code, sorted({'torch', 'open_clip', 'modelopt'} & sys.modules.keys()))"
        )

        assert gate.python(script).strip().splitlines()[-1] == "0 []"

    def test_two_workers_build_once_and_lose_no_verdict(self, gate, tmp_path, warm_cache):
        cold = Gate(gate.folder, tmp_path / "cold")
        for kind in ("inputs", "reference", "onnx"):  # what takes torch is not what is tested here
            shutil.copytree(warm_cache / kind, cold.cache / kind)

        alone, together = gate(), cold("-n", "2")

        assert together.code == 0, together.stdout
        assert sorted((row["metric"], row["recipe"], str(row["backend"])) for row in together.verdicts) == sorted(
            (row["metric"], row["recipe"], str(row["backend"])) for row in alone.verdicts
        )
        assert {row["cache"] for row in together.document["engines"]} == {"miss"}
        assert len(list((cold.cache / "engine").iterdir())) == len(together.document["engines"])
        assert len(list((gate.folder / "runs").iterdir())) == 2  # one of each

    def test_a_worker_that_dies_leaves_an_invalid_verdict(self, gate):
        suite = gate.folder / "test_dying.py"
        suite.write_text(
            "import os, pytest\n"
            "@pytest.mark.accuracy\n"
            "@pytest.mark.gates('finite')\n"
            "def test_dies(engine, observe, expect):\n"
            "    observe.embeddings(engine)\n"
            "    os._exit(7)\n"
        )

        result = gate("test_dying.py", "-n", "1", "--recipes", "fp16")

        assert result.code == 4
        assert [(row["metric"], row["status"], row["encoder"]) for row in result.verdicts] == [("test_dies", "INVALID", "small-clip/image")]

    def test_a_listing_says_what_would_run_and_makes_nothing(self, gate):
        result = gate("--list")

        assert result.code == 0
        assert "small-clip/image-linear-onnxruntime" in result.stdout
        assert not (gate.folder / "runs").exists()

    def test_json_is_the_only_thing_on_stdout(self, gate):
        result = gate("--json", "-m", "graph")

        assert json.loads(result.stdout)["schema"] == "enginegate/run/1"

    def test_the_step_summary_of_a_runner_is_appended_to(self, gate):
        summary = gate.folder / "step.md"
        summary.write_text("before\n")

        gate("-m", "graph", GITHUB_STEP_SUMMARY=str(summary))

        assert summary.read_text().startswith("before\n## enginegate: PASS")

    def test_times_show_in_the_table_and_json_of_pytest_benchmark(self, gate):
        result = gate("-k", "pace", "--benchmark-json", "times.json")

        times = json.loads((gate.folder / "times.json").read_text())
        assert {entry["name"] for entry in times["benchmarks"]} == {
            "small-clip/image-fp16-onnxruntime",
            "small-clip/image-linear-onnxruntime",
        }
        (launches,) = {entry["stats"]["rounds"] for entry in times["benchmarks"]}
        assert launches % 6 == 0  # as many of both arms: two blocks of each in every quartet, in three processes
        assert "Name (time in" in result.stdout

    def test_pytest_benchmark_reads_back_the_times_that_it_was_given(self, gate):
        gate("-k", "pace", "--benchmark-json", "times.json")

        read = subprocess.run(
            [sys.executable, "-m", "pytest_benchmark", "compare", "times.json"],
            cwd=gate.folder,
            capture_output=True,
            text=True,
            check=False,
        )

        assert read.returncode == 0, read.stderr
        for recipe in ("fp16", "linear"):
            assert f"small-clip/image-{recipe}-onnxruntime" in read.stdout

    def test_a_latency_line_says_what_it_could_see_and_leaves_samples_that_can_be_judged_again(self, gate):
        result = gate("-k", "pace", "--run-dir", "out")

        row = result.of("latency_ratio")
        assert (row["status"], row["n"] >= 3) == ("PASS", True)
        assert row["interval"][0] < row["observed"] < row["interval"][1] < row["bound"]
        assert row["detectable"] > 0
        assert "(minimum detectable effect)" in row["reason"]
        assert "sees +" in result.stdout
        kept = gate.folder / "out" / "samples" / "small-clip-image-linear-onnxruntime-latency.json"
        again = gate.command("judge-latency", str(kept), "--against", str(row["observed"]), "--delta", "1000000")
        assert again.stdout.startswith("PASS")

    def test_latency_that_the_gate_file_leaves_out_is_not_run_in_its_words(self, gate):
        line = '[[margin]]\nmetric = "latency_ratio"\nmachine_classes = ["cpu-*"]\ngated = false\nreason = "nobody waits for it"\n'
        (gate.folder / "gate.toml").write_text((gate.folder / "gate.toml").read_text() + line)

        result = gate("-k", "pace or engine_file", "--backends", "onnxruntime")

        assert (result.code, {row["metric"] for row in result.verdicts}) == (0, {"plan_bytes"})
        (left_out,) = [row for row in result.document["not_run"] if row["gate"] == "latency_ratio"]
        assert "nobody waits for it" in left_out["reason"]

    def test_nothing_is_left_beside_the_run_and_the_cache(self, gate):
        before = {path.name for path in gate.folder.iterdir()}

        gate("-m", "graph")

        assert {path.name for path in gate.folder.iterdir()} - before == {"runs"}


class TestRegressions:
    @pytest.mark.parametrize("plant", ["block", "weight", "scale"])
    def test_every_planted_regression_fails_the_run(self, planted, plant):
        assert f"{plant}: exit code 1" in planted[1]

    def test_a_block_left_unquantized_is_counted_in_the_graph_and_in_the_engine(self, planted):
        verdicts = planted[0]["block"]

        assert (verdicts["block_gemms_quantized"].observed, verdicts["block_gemms_quantized"].bound) == (12, 18)
        assert "block 0" in verdicts["block_gemms_quantized"].reason
        if _WHY_NO_RTX is None:
            assert (verdicts["block_gemms_fp8"].observed, verdicts["block_gemms_fp8"].status) == (12, "FAIL")

    def test_a_weight_left_unfolded_is_named(self, planted):
        verdicts = planted[0]["weight"]

        assert (verdicts["block_weights_folded"].observed, verdicts["block_weights_folded"].status) == (17, "FAIL")
        assert "was not folded" in verdicts["block_weights_folded"].reason
        assert verdicts["block_gemms_quantized"].status == "PASS"

    def test_an_activation_scale_at_a_quarter_costs_the_approved_accuracy(self, planted):
        verdicts = planted[0]["scale"]

        assert verdicts["centred_snr_db"].status == "FAIL"
        assert verdicts["check_O6"].status == "FAIL"  # it is the DequantizeLinear's alone
        expected = {"centred_snr_db", "cosine_min", "snr_loss_db", "snr_to_fake_quant_db", "check_O6"}
        assert {metric for metric, row in verdicts.items() if row.status == "FAIL"} <= expected

    @needs_rtx
    def test_a_baseline_with_fewer_weight_bytes_fails(self, gate):
        change_figure(gate, "weights_bytes", lambda figure: figure - 1)

        result = gate("-k", "weights_need")

        assert result.code == 1
        assert set(result.red.values()) == {"FAIL"}
        assert "+1 bytes" in result.stdout

    @needs_rtx
    def test_a_failure_that_somebody_answers_for_passes_and_names_him(self, gate):
        change_figure(gate, "weights_bytes", lambda figure: figure - 1)
        add_waiver(gate, expires="9999-12-31")

        result = gate("-k", "weights_need")

        assert result.code == 0, result.stdout
        assert all("by someone@example.org" in row["reason"] for row in result.verdicts if row["metric"] == "weights_bytes")

    @needs_rtx
    def test_a_waiver_that_is_over_fails_what_would_pass(self, gate):
        add_waiver(gate, expires="2020-01-01")

        result = gate("-k", "weights_need")

        assert result.code == 1
        assert set(result.red) == {"weights_bytes"}
        assert "ended on 2020-01-01" in result.stdout


class TestStoredEngines:
    """The engine beside the one that was approved, with real engines and a blob store in a folder."""

    ONE = ("-k", "approved_one_beside", "--recipes", "linear", "--backends", "onnxruntime", "--blobs", "my blobs")

    def blob(self, gate):
        (blob,) = [path for path in (gate.folder / "my blobs").rglob("*") if path.is_file()]
        return blob

    def test_an_engine_is_approved_and_the_next_one_is_timed_beside_it(self, gate):
        (gate.folder / "my blobs").mkdir()

        first = gate(*self.ONE, "--run-dir", "first")

        row = first.of("latency_ms")
        assert (first.code, row["status"], row["unit"]) == (3, "NO_BASELINE", "ms")
        pending = "first/pending/small-clip-image-linear-onnxruntime.pending.json"
        assert "no engine is approved under this key; approve this one: enginegate baseline accept" in row["reason"]
        assert hashlib.sha256(self.blob(gate).read_bytes()).hexdigest() == self.blob(gate).name

        shown = shlex.split(row["reason"].partition("approve this one: enginegate ")[2])
        accepted = gate.command(*shown[:-1], "the first", "--by", "Ada")  # as it is shown, but for the reason
        assert accepted.code == 0, accepted.stderr
        assert not (gate.folder / pending).exists()

        second = gate(*self.ONE, "--run-dir", "second", "--benchmark-json", "times.json")

        row = second.of("latency_ms")
        assert (second.code, row["status"], row["direction"]) == (0, "PASS", "ceiling")
        assert row["interval"][0] < row["observed"] < row["interval"][1] < row["bound"]
        # A first stage that happens to look slow is followed by a second one.
        assert re.search(r"beside the approved engine, in the same session; 3 (\+ 3 )?processes", row["reason"])
        kept = gate.folder / "second" / "samples" / "small-clip-image-linear-onnxruntime-latency-beside-approved.json"
        assert gate.command("judge-latency", str(kept), "--delta", "1000000").code == 0
        self.times_can_be_compared(gate)
        self.a_broken_store_is_never_green(gate)

    def times_can_be_compared(self, gate):
        names = [one["name"] for one in json.loads((gate.folder / "times.json").read_text())["benchmarks"]]
        assert names == ["small-clip/image-linear-onnxruntime-approved", "small-clip/image-linear-onnxruntime"]
        shutil.copy(gate.folder / "times.json", gate.folder / "again.json")
        command = [sys.executable, "-m", "pytest_benchmark", "compare", "times.json", "again.json", "--columns=median"]
        shown = subprocess.run(command, cwd=gate.folder, env=gate.environment, capture_output=True, text=True, timeout=60, check=False)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.count("small-clip/image-linear-onnxruntime-approved") >= 2

    def a_broken_store_is_never_green(self, gate):
        blob = self.blob(gate)
        content = blob.read_bytes()
        blob.write_bytes(content[:-1])

        altered = gate(*self.ONE, "-W", "error")

        assert (altered.code, altered.of("latency_ms")["status"]) == (4, "INVALID")
        assert "it was altered or cut short" in altered.of("latency_ms")["reason"]
        assert " error" not in altered.stdout.splitlines()[-2]  # a fixture of pytest-benchmark that nobody used would be one

        blob.unlink()
        missing = gate(*self.ONE, "-p", "tests.helpers.slower_builds", SLOWER_PRODUCTS="1")
        assert (missing.code, missing.of("latency_ms")["status"]) == (3, "NO_BASELINE")
        reason = missing.of("latency_ms")["reason"]
        assert "the engine that Ada approved on" in reason
        shown = shlex.split(reason.partition("approve this one: enginegate ")[2])
        why = [words if words != "..." else "the share was wiped" for words in shown]
        accepted = gate.command(*why)
        assert (accepted.code, "which was lost: the share was wiped" in accepted.stdout) == (0, True)

        away = gate(*self.ONE[:-1], "away")
        assert (away.code, away.of("latency_ms")["status"]) == (4, "INVALID")
        assert "cannot be reached" in away.of("latency_ms")["reason"]

    def test_without_a_store_the_line_is_not_run_and_says_what_is_held_to_instead(self, gate):
        result = gate("-k", "pace or approved_one_beside", "--backends", "onnxruntime")

        assert (result.code, {row["metric"] for row in result.verdicts}) == (0, {"latency_ratio"})
        reasons = {row["reason"] for row in result.document["not_run"] if row["gate"] == "latency_ms"}
        (reason,) = reasons
        assert "no blob store is named (--blobs, ENGINEGATE_BLOBS, or [blobs] folder in gate.toml)" in reason
        assert "latency_ratio is held to a stored number" in reason

    def test_a_run_that_updates_times_the_engine_beside_both_and_asks_for_approval(self, gate):
        (gate.folder / "my blobs").mkdir()
        gate(*self.ONE, "--run-dir", "first")
        pending = "pending/small-clip-image-linear-onnxruntime.pending.json"
        gate.command("baseline", "accept", f"first/{pending}", "--reason", "the first", "--by", "Ada", "--blobs", "my blobs")

        result = gate(*self.ONE, "--baselines=update", "--run-dir", "second")

        assert (result.code, result.of("latency_ms")["status"]) == (0, "PASS")
        again = gate.command(
            "baseline", "accept", f"second/{pending}", "--reason", "as 1.0", "--release", "1.0", "--blobs", "my blobs", "--json"
        )
        assert again.code == 0, again.stderr
        assert list(json.loads(again.stdout)["beside"]) == ["previous"]


class TestBaselines:
    def test_no_baseline_is_not_green(self, gate):
        shutil.rmtree(gate.folder / "baselines")
        (gate.folder / "baselines").mkdir()

        result = gate("-m", "benchmark")

        assert result.code == 3
        assert result.of("latency_ratio")["status"] == "NO_BASELINE"

    def test_a_ratio_that_was_timed_by_another_protocol_is_no_baseline_in_words(self, gate):
        for path in baseline_files(gate):
            path.write_text(path.read_text().replace('"timing_protocol": "block10ms', '"timing_protocol": "block5ms'))

        result = gate("-k", "pace", "--backends", "onnxruntime")

        assert (result.code, result.of("latency_ratio")["status"]) == (3, "NO_BASELINE")
        assert "was timed under protocol block5ms" in result.of("latency_ratio")["reason"]
        assert "(here block10ms" in result.of("latency_ratio")["reason"]

    def test_a_baseline_of_another_version_is_mentioned_and_not_used(self, gate):
        for path in baseline_files(gate):
            content = json.loads(path.read_text())
            for record in content["records"]:
                record["key"]["backend_version"] = "0.0.1"
            path.with_name(f"{content['records'][0]['key']['backend']}-0.0.1.json").write_text(json.dumps(content))
            path.unlink()

        result = gate("-k", "engine_file and onnxruntime")

        assert result.code == 3
        assert "there is one for onnxruntime 0.0.1" in result.stdout

    def test_fewer_bytes_pass_and_ask_for_a_new_baseline(self, gate):
        change_figure(gate, "plan_bytes", lambda figure: figure + 1_000_000)

        result = gate("-k", "engine_file")

        assert result.code == 0
        assert all(row["reason"].startswith("baseline_stale") for row in result.verdicts)

    def test_a_comparing_run_edits_no_baseline(self, gate):
        change_figure(gate, "plan_bytes", lambda figure: figure - 1)
        before = {path: path.read_bytes() for path in baseline_files(gate)}

        gate()

        assert {path: path.read_bytes() for path in baseline_files(gate)} == before

    def test_creating_replaces_no_figure_and_updating_does(self, gate):
        change_figure(gate, "plan_bytes", lambda figure: figure - 1)

        assert gate("-k", "engine_file", "--baselines=create").code == 1
        assert gate("-k", "engine_file", "--baselines=update").code == 0
        assert gate("-k", "engine_file").code == 0

    def test_trimming_removes_what_a_whole_run_no_longer_asks_for(self, gate):
        path = next(path for path in baseline_files(gate) if "onnxruntime" in path.name and "linear" in str(path))
        content = json.loads(path.read_text())
        for record in content["records"]:
            record["key"]["arch"] = "gone"
        stale = gate.folder / "baselines" / path.relative_to(gate.folder / "baselines").as_posix().replace("small-clip", "gone")
        stale.parent.mkdir(parents=True)
        stale.write_text(json.dumps(content))

        partly = gate("-m", "benchmark", "--baselines=trim")
        assert stale.exists()
        assert "no baseline is removed" in partly.stdout

        whole = gate("--baselines=trim")
        assert whole.code == 0
        assert not stale.exists()
        assert path.exists()

    def test_trimming_keeps_the_baselines_of_weights_it_did_not_run_with(self, gate):
        path = next(path for path in baseline_files(gate) if "onnxruntime" in path.name and "linear" in str(path))
        content = json.loads(path.read_text())
        other = json.loads(json.dumps(content["records"][0]))
        other["key"]["weights"] = "seeded:1"
        path.write_text(json.dumps({**content, "records": [*content["records"], other]}))

        assert gate("--baselines=trim").code == 0
        assert len(json.loads(path.read_text())["records"]) == 2

    def test_writing_is_refused_in_continuous_integration(self, gate):
        result = gate("--baselines=update", CI="true")

        assert result.code == 2
        assert "CI is set" in result.stderr

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n", "conflict"),
            ('{"schema": "enginegate/baseline/2", "records": []}', "upgrade"),
            ("{", "JSON"),
        ],
    )
    def test_a_baseline_that_cannot_be_understood_is_invalid_and_named(self, gate, content, words):
        path = next(path for path in baseline_files(gate) if "onnxruntime" in path.name and "linear" in str(path))
        path.write_text(content)

        result = gate("-k", "engine_file and linear and onnxruntime")

        assert result.code == 4
        assert result.of("plan_bytes")["status"] == "INVALID"
        assert path.name in result.of("plan_bytes")["reason"]
        assert words in result.of("plan_bytes")["reason"]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--encoders", "ViT-B32/image"], "ViT-B-32"),
            (["--encoders", "ViT-B-32"], "names no tower"),
            (["--recipes", "linaer"], "did you mean linear"),
            (["--backends", "onnxruntim"], "onnxruntime"),
            (["--targets", "ada"], "SM89"),
            (["--batch", "8/1/64"], "ascend"),
            (["--batch", "8"], "MIN/OPT/MAX"),
            (["--weights", "absent.safetensors"], "does not exist"),
            (["--weights", "seeded:x"], "seeded:N"),
            (["--gate-file", "absent.toml"], "absent.toml"),
            (["-k", "no such test"], ""),
        ],
    )
    def test_what_cannot_be_meant_is_usage_in_words(self, gate, arguments, words):
        result = gate(*arguments)

        assert result.code == 2
        assert words in result.stdout + result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        assert not (gate.folder / "runs").exists()

    def test_json_says_what_cannot_be_meant_in_the_same_words(self, gate):
        result = gate("--encoders", "ViT-B32/image", "--json")

        error = json.loads(result.stdout)["error"]
        assert result.code == 2
        assert error["code"] == "unknown_name"
        assert error["message"] in result.stderr
        assert "ViT-B-32" in error["message"]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('[[bound]]\nmetric = "cosine_min"\nfloor = 0.9\n', "reason"),
            ('[[bound]]\nmetric = "cosine_min"\nfloor = nan\nreason = "x"\n', "finite"),
            ('[[bound]]\nmetric = "cosine_mni"\nfloor = 0.9\nreason = "x"\n', "cosine_min"),
            ("[surprise]\n", "surprise"),
        ],
    )
    def test_a_gate_file_that_cannot_be_meant_is_named(self, gate, line, words):
        (gate.folder / "gate.toml").write_text((gate.folder / "gate.toml").read_text() + line)

        result = gate()

        assert result.code == 2
        assert "gate.toml" in result.stderr
        assert words in result.stderr

    def test_a_run_directory_that_is_in_use_is_refused(self, gate):
        (gate.folder / "out").mkdir()
        (gate.folder / "out" / "file").touch()

        result = gate("--run-dir", "out")

        assert result.code == 2
        assert "already holds" in result.stdout + result.stderr

    @needs_rtx
    def test_fp8_for_a_target_without_it_is_usage_in_the_builders_words(self, gate):
        result = gate("--targets", "sm86", "--recipes", "linear", "-k", "fused and linear")

        assert result.code == 2
        assert "SM86" in result.of("fused_attention")["reason"]
        assert "fp8" in result.of("fused_attention")["reason"].lower()

    def test_a_truncated_checkpoint_is_told_once_and_loses_nothing(self, gate):
        (gate.folder / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")

        result = gate("--weights", "cut.safetensors", "-m", "graph")

        assert result.code == 2
        assert {row["status"] for row in result.verdicts} == {"INVALID"}
        assert "truncated" in result.verdicts[0]["reason"]


class TestHonesty:
    """What must never be green."""

    def suite(self, gate, body, *arguments):
        (gate.folder / "test_own.py").write_text(f"import pytest\npytestmark = pytest.mark.accuracy\n{body}")
        return gate("test_own.py", "--recipes", "fp16", *arguments)

    def test_a_declared_gate_that_nobody_judges_is_invalid(self, gate):
        result = self.suite(gate, "@pytest.mark.gates('finite')\ndef test_own(engine): pass\n")

        assert (result.code, result.of("finite", "fp16")["status"]) == (4, "INVALID")

    def test_a_gate_that_skips_is_listed_as_not_run(self, gate):
        result = self.suite(gate, "@pytest.mark.gates('finite')\ndef test_own(engine): pytest.skip('lib missing')\n")

        assert result.code == 3
        assert [row["reason"] for row in result.document["not_run"]] == ["lib missing"]

    def test_a_gate_that_asserts_fails_and_one_that_breaks_is_invalid(self, gate):
        asserting = self.suite(gate, "@pytest.mark.gates('finite')\ndef test_own(engine): assert 1 == 2\n")
        breaking = self.suite(gate, "@pytest.mark.gates('finite')\ndef test_own(engine): 1 / 0\n")

        assert (asserting.code, asserting.red) == (1, {"finite": "FAIL"})
        assert (breaking.code, breaking.red) == (4, {"finite": "INVALID"})

    def test_a_judgement_that_is_not_a_number_is_invalid(self, gate):
        body = (
            "from harness.records.verdict import *\n"
            "@pytest.mark.gates('finite')\n"
            "def test_own(engine, expect):\n"
            "    expect(Judgement(metric='finite', status=Status.PASS, observed=float('nan'), bound=1, unit='',\n"
            "                     direction=Direction.FLOOR, n=1))\n"
        )

        assert self.suite(gate, body).red == {"finite": "INVALID"}

    def test_tests_that_gate_nothing_are_an_empty_selection(self, gate):
        assert self.suite(gate, "def test_own(): pass\n").code == 2

    def test_a_failure_beside_passing_gates_reaches_the_record(self, gate):
        body = (
            "from harness.judge.accuracy import finite\n"
            "@pytest.mark.gates('finite')\n"
            "def test_own(engine, observe, expect):\n"
            "    expect(finite(observe.embeddings(engine), observe.reference(engine)))\n"
            "def test_other(): assert 0\n"
        )
        result = self.suite(gate, body)

        assert (result.code, result.document["exit_code"], result.document["outcome"]) == (1, 1, "INVALID")

    def test_a_file_that_cannot_be_collected_is_usage(self, gate):
        assert self.suite(gate, "def test_own(:\n").code == 2

    def test_weights_for_an_encoder_that_is_not_gated_are_refused(self, gate):
        result = gate("--weights", "ViT-L-14=seeded:7")

        assert result.code == 2
        assert "only small-clip are chosen" in result.stderr
        assert "did you mean" in gate("--weights", "ViT-L14=seeded:7").stderr

    def test_approving_a_figure_does_not_lift_the_absolute_bound_it_misses(self, gate):
        bound = '[[bound]]\nmetric = "centred_snr_db"\nfloor = 90.0\nreason = "for a test"\n'
        (gate.folder / "gate.toml").write_text((gate.folder / "gate.toml").read_text() + bound)

        assert gate("-k", "differences", "--baselines=update").code == 1

    def test_a_bound_that_nothing_reads_is_refused(self, gate):
        lines = (
            'metric = "plan_bytes"\nceiling = 10',
            'metric = "cosine_min"\nceiling = 0.1',
            'metric = "cosine_min"\nfloor = 0.1\nbackends = ["onnxruntim"]',
        )
        for line in lines:
            (gate.folder / "own.toml").write_text(f'schema = "enginegate/gate/1"\n[[bound]]\n{line}\nreason = "for a test"\n')

            assert gate("--gate-file", "own.toml").code == 2, line

    def test_no_room_for_the_run_directory_is_said_and_not_green(self, gate):
        result = gate("-m", "graph", "--run-dir", "/proc/no/such/run")

        assert result.code == 4
        assert "cannot" in result.stdout
        assert "Traceback" not in result.stdout

    def test_the_command_is_recorded_as_it_was_typed(self, gate):
        assert gate("-m", "graph", "--recipes", "fp16").document["command"] == ["enginegate", "gate", "-m", "graph", "--recipes", "fp16"]

    def test_flags_before_a_path_do_not_add_the_suites(self, gate):
        result = self.suite(gate, "def test_own(): pass\n", "-x", "-v")

        assert "1 passed" in result.stdout

    def test_a_profile_that_starts_above_one_row_is_timed_with_its_own_rows(self, gate):
        result = gate("-k", "pace", "--batch", "8/8/8")

        assert (result.code, result.of("latency_ratio")["status"]) == (3, "NO_BASELINE")

    def test_the_gate_runs_without_pytest_benchmark(self, gate):
        assert gate("-p", "no:benchmark", "-m", "graph").code == 0

    def test_a_backend_that_lists_no_layers_was_not_asked_for_them(self, gate):
        result = gate("--backends", "onnxruntime")

        assert result.code == 0
        assert {row["gate"] for row in result.document["not_run"]} == {
            *("block_gemms_fp8", "fp8_flop_share"),
            *("fused_attention", "fused_attention_fp8", "unfused_qdq"),
            *(f"check_E{number}" for number in range(1, 10)),
            *("activation_bytes", "device_peak_bytes", "reformat_bytes", "latency_ms"),
            *(name for name, metric in METRICS.items() if metric.needs_task),
        }
        reasons = {row["gate"]: row["reason"] for row in result.document["not_run"]}
        assert reasons["check_E1"] == "it keeps no table of the engine's layers"
        assert reasons["activation_bytes"] == "it does not say what the engine's activations need"
        assert "no allocator of ours is under its runtime" in reasons["device_peak_bytes"]

    @needs_rtx
    def test_an_engine_with_several_streams_can_be_judged(self, gate):
        result = gate("--targets", "sm120", "-m", "graph", "--recipes", "linear")

        assert (result.code, result.red) == (3, dict.fromkeys(("check_E7", "reformat_bytes"), "NO_BASELINE"))


class TestReports:
    def test_a_recipe_that_is_only_reported_on_fails_nothing_and_hides_nothing(self, gate):
        result = gate("--recipes", "modelopt", "-m", "graph or benchmark")

        assert (result.code, result.verdicts) == (0, [])
        said = {report["check"]: report["message"] for report in result.document["reports"]}
        assert "block_gemms_quantized 18" in said["block_gemms_quantized"]
        if _WHY_NO_RTX is None:
            assert "fused_attention 0, expected >= 3" in said["fused_attention"]
        assert any("trt" in row["reason"] for row in result.document["not_run"])


class TestPlaces:
    def test_a_gate_that_no_backend_can_run_is_listed_with_its_reason(self, gate):
        (gate.folder / "gate.toml").write_text((gate.folder / "gate.toml").read_text().replace('"onnxruntime", ', ""))

        result = gate("-k", "sound or engine_file")

        assert result.code == (0 if _WHY_NO_RTX is None else 3)
        assert {row["gate"] for row in result.document["not_run"]} >= {"finite"}
        assert all(row["reason"] for row in result.document["not_run"])

    def test_a_gate_whose_backend_was_asked_for_is_invalid_where_it_cannot_run(self, gate):
        result = gate("-k", "sound", "--backends", "tensorrt_rtx", "--recipes", "fp16")

        assert result.code == 4
        assert result.of("finite", recipe="fp16")["status"] == "INVALID"
        assert "During handling" not in result.stdout  # the reason is said once

    def test_an_interrupted_build_leaves_a_cache_that_builds_just_that_again(self, gate, tmp_path, warm_cache):
        interrupted = Gate(gate.folder, tmp_path / "cache")
        shutil.copytree(warm_cache / "inputs", interrupted.cache / "inputs")
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "gate", "-m", "graph", "--recipes", "fp16"],
            cwd=gate.folder,
            env=interrupted.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A job in the background of a shell hands on that it ignores the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 120
        while not list((interrupted.cache / "partial").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)

        assert process.returncode == 130, output
        assert list((interrupted.cache / "partial").iterdir()) == []
        assert not list(interrupted.cache.glob("onnx/*"))

    def test_the_wheel_carries_suites_bounds_and_baselines(self, tmp_path):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
        )
        (wheel,) = tmp_path.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "installed")
        somewhere = tmp_path / "somewhere"
        somewhere.mkdir()
        environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "", "HOME": str(tmp_path)}

        done = subprocess.run(
            [sys.executable, "-m", "harness", "gate", "--list"], cwd=somewhere, env=environment, capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "ViT-B-32/image-linear-onnxruntime" in done.stdout
        assert (tmp_path / "installed/harness/data/baselines/aot-SM89/ViT-B-32").is_dir()
        assert list(somewhere.iterdir()) == []

    def test_a_ten_line_suite_in_a_foreign_project_gates(self, gate):
        (gate.folder / "test_ours.py").write_text(
            "import pytest\n"
            "from harness.judge.accuracy import cosine_min\n"
            "@pytest.mark.accuracy\n"
            "@pytest.mark.gates('cosine_min')\n"
            "def test_our_encoder_keeps_its_directions(engine, observe, expect):\n"
            "    expect(cosine_min(observe.embeddings(engine), observe.reference(engine), floor=0.9))\n"
        )

        result = gate("test_ours.py")

        assert result.code == 0
        assert [row["metric"] for row in result.verdicts] == ["cosine_min", "cosine_min"]
