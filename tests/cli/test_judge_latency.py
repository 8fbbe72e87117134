"""The command `judge-latency`: samples from anywhere, one verdict, and words for whatever is wrong with them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from harness.cli import main
from harness.records.latency import LatencyJudgement
from harness.store.codec import from_plain

TURNS = ("baseline", "candidate", "candidate", "baseline")


def samples(*, slower=0.0, processes=8, quartets=10, spread=0.002, **changes):
    """A document of a seeded machine; `changes` go to every block."""
    rng = np.random.default_rng(7)

    def block(arm, level):
        ms = 2.0 * np.exp(level + rng.normal(0, spread, 5)) * (1 + slower * (arm == "candidate"))
        return {"arm": arm, "ms": ms.tolist(), "sm_clock_mhz": 1980, "throttle": []} | changes

    def process():
        return {"blocks": [block(arm, level) for level in rng.normal(0, 0.001, quartets) for arm in TURNS]}

    return {"schema": "enginegate/latency-samples/1", "unit": "ms", "processes": [process() for _ in range(processes)]}


def blocks_of(document):
    return [block for process in document["processes"] for block in process["blocks"]]


@pytest.fixture
def judge(tmp_path, capsys):
    """Judge a document; the exit code and what JSON says."""

    def run(document, *options):
        path = tmp_path / "samples.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        code = main(["judge-latency", str(path), "--json", *options])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("slower", "spread", "code", "status"),
    [
        (0.0, 0.002, 0, "PASS"),
        (0.02, 0.002, 1, "FAIL"),
        (0.003, 0.002, 0, "PASS"),
        (0.005, 0.2, 3, "INCONCLUSIVE"),
        (-0.1, 0.002, 0, "PASS"),
    ],
)
def test_the_exit_code_says_the_verdict(judge, slower, spread, code, status):
    seen, judged = judge(samples(slower=slower, spread=spread))
    assert (seen, judged["status"]) == (code, status)
    assert judged["low"] < judged["ratio"] < judged["high"]
    assert judged["detectable"] > 0


def test_a_stale_baseline_is_told(judge):
    assert "stale" in judge(samples(slower=-0.1))[1]["reason"]


def test_the_document_reads_back_as_a_record(judge):
    judged = judge(samples())[1]
    assert from_plain(LatencyJudgement, judged, origin="stdout").processes == 8


def test_delta_says_what_must_be_excluded(judge):
    assert judge(samples(slower=0.02), "--delta", "0.05")[0] == 0


def test_a_slow_down_counts_from_the_ratio_it_is_held_against(judge):
    document = samples(slower=5.0)
    assert judge(document)[0] == 1
    code, judged = judge(document, "--against", "6")
    assert (code, judged["against"]) == (0, 6.0)
    assert judged["low"] < 6 < judged["high"]


def test_readings_of_a_clock_that_jump_in_both_arms_are_normal_life(judge):
    document = samples()
    for number, block in enumerate(blocks_of(document)):
        block["sm_clock_mhz"] = (1980, 1600, 1900, 1700, 1600)[number % 5]
    assert judge(document)[1]["dropped"] == 0


def test_clocks_and_reasons_may_be_missing(judge):
    document = samples()
    for block in blocks_of(document):
        del block["sm_clock_mhz"], block["throttle"]
    assert judge(document)[0] == 0


def test_blocks_in_pairs_are_judged_too(judge):
    document = samples()
    for process in document["processes"]:
        process["blocks"] = process["blocks"][:2]
    assert judge(document)[1]["groups"] == 8


def test_keys_of_another_tool_are_left_alone(judge):
    assert judge(samples() | {"made_by": "another tool"})[0] == 0


def spoilt(change):
    document = samples()
    change(document)
    return document


def each_block(arm=None, **values):
    def change(document):
        for block in blocks_of(document):
            if arm in (None, block["arm"]):
                block.update(values)

    return change


def first_of_four(**values):
    return lambda document: [block.update(values) for block in blocks_of(document)[::16]]


def one_time(value):
    return lambda document: blocks_of(document)[5]["ms"].__setitem__(2, value)


def only(arm):
    def change(document):
        for process in document["processes"]:
            process["blocks"] = [block for block in process["blocks"] if block["arm"] == arm]

    return change


INVALID = {
    "no processes": (lambda document: document.update(processes=[]), "expected at least 3"),
    "two processes": (lambda document: document.update(processes=document["processes"][:2]), "2 processes"),
    "no blocks": (lambda document: document["processes"][0].update(blocks=[]), "no blocks"),
    "one arm": (only("baseline"), "alone"),
    "no launches": (each_block(ms=[]), "no launches"),
    "negative time": (one_time(-1.0), "-1.0 ms"),
    "zero time": (one_time(0), "finite"),
    "NaN": (one_time(float("nan")), "finite"),
    "infinity": (one_time(float("inf")), "finite"),
    "a block less": (lambda document: document["processes"][3]["blocks"].pop(), "as many of each"),
    "no turns": (lambda document: document["processes"][2]["blocks"].sort(key=lambda block: block["arm"]), "A B B A"),
    "launches of another design": (each_block("candidate", ms=[2.0]), "launches a block"),
    "clocks that differ": (each_block("candidate", sm_clock_mhz=1755), "1755"),
    "clocks of one arm": (each_block("candidate", sm_clock_mhz=None), "one arm alone"),
    "a clock of zero": (each_block(sm_clock_mhz=0), "SM clock"),
    "a quarter throttled": (first_of_four(throttle=["hw_thermal_slowdown"]), "throttled"),
}


@pytest.mark.parametrize("name", INVALID)
def test_samples_that_prove_nothing_are_invalid_in_words(judge, name):
    change, words = INVALID[name]
    code, judged = judge(spoilt(change))
    assert (code, judged["status"]) == (4, "INVALID")
    assert words in judged["reason"]


def test_a_power_cap_is_normal_life(judge):
    assert judge(samples(throttle=["sw_power_cap", "gpu_idle"]))[0] == 0


def test_a_few_throttled_groups_are_dropped_and_counted(judge):
    document = samples()
    document["processes"][0]["blocks"][0]["throttle"] = ["hw_power_brake_slowdown"]
    code, judged = judge(document)
    assert (code, judged["dropped"], judged["groups"]) == (0, 1, 80)


USAGE = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "",
    "another schema": json.dumps(samples() | {"schema": "enginegate/latency-samples/2"}),
    "another unit": json.dumps(samples() | {"unit": "us"}),
    "no such field": json.dumps({"schema": "enginegate/latency-samples/1", "unit": "ms"}),
    "an unknown arm": json.dumps(spoilt(lambda document: blocks_of(document)[0].update(arm="treatment"))),
    "a time in words": json.dumps(spoilt(each_block(ms=["2 ms"]))),
    "a time of 400 digits": json.dumps(spoilt(one_time(10**400))),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_file_that_is_no_such_document_is_refused(judge, name):
    code, answer = judge(USAGE[name])
    assert (code, answer["error"]["code"]) == (2, "bad_samples")


@pytest.mark.parametrize(
    "options", [["--alpha", "0"], ["--alpha", "0.7"], ["--delta", "-1"], ["--delta", "nan"], ["--delta", "much"], ["--against", "0"]]
)
def test_an_impossible_bound_is_refused(judge, options):
    assert judge(samples(), *options)[0] == 2


def test_a_missing_file_is_refused_in_words(capsys, tmp_path):
    assert main(["judge-latency", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_process_of_its_own_reads_stdin_and_says_the_verdict():
    done = subprocess.run(
        [sys.executable, "-m", "harness", "judge-latency", "-"],
        input=json.dumps(samples(slower=0.03)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("FAIL: slower by 3.0")
    assert "minimum detectable effect" in done.stdout
