"""The gate of the device's peak memory, from its baseline to its verdict, on a backend whose device is made up."""

from __future__ import annotations

import json

import pytest

from tests.helpers.counted_device import ACTIVATION_BYTES, WEIGHTS_BYTES
from tests.helpers.gates import Gate

PEAK_BYTES = WEIGHTS_BYTES + ACTIVATION_BYTES
CHOSEN = ("--backends", "fake", "--recipes", "fp16", "-m", "benchmark")


@pytest.fixture(scope="module")
def weigh(warm_cache, tmp_path_factory):
    """The one gate, in a folder whose baselines lack nothing but its figure, and then have it."""
    gate = Gate(tmp_path_factory.mktemp("device-memory"), warm_cache)

    def run(*arguments, **environment):
        return gate("-p", "tests.helpers.counted_device", *CHOSEN, "-k", "engine_file or of_the_device", *arguments, **environment)

    assert gate(*CHOSEN, "-k", "engine_file", "--baselines=create").code == 0
    return run


@pytest.fixture(scope="module")
def before(weigh):
    return weigh()


@pytest.fixture(scope="module")
def created(before, weigh):
    return weigh("--baselines=create")


def test_a_baseline_that_was_stored_before_the_figure_lacks_it_and_no_other(before):
    assert (before.code, before.red) == (3, {"device_peak_bytes": "NO_BASELINE"})


def test_creating_adds_the_figure_and_leaves_the_others(created):
    assert created.code == 0
    assert created.of("device_peak_bytes", "fp16")["reason"] == "baseline_created"
    assert created.of("plan_bytes", "fp16")["reason"] == ""


def test_the_phases_are_kept_with_the_run(created):
    (kept,) = (created.folder / created.stdout.splitlines()[-1].removeprefix("run: ")).glob("memory/*.json")
    seen = json.loads(kept.read_text())
    assert {phase["phase"]: phase["runtime_bytes"] for phase in seen["phases"]} == {
        "load": WEIGHTS_BYTES,
        "context": ACTIVATION_BYTES,
        "launches": 0,
    }
    assert seen["rows"] == 64


@pytest.mark.usefixtures("created")
def test_the_same_graph_may_take_no_byte_more(weigh):
    assert weigh().of("device_peak_bytes", "fp16")["observed"] == PEAK_BYTES
    grown = weigh(COUNTED_EXTRA_BYTES="1")
    assert (grown.code, grown.red) == (1, {"device_peak_bytes": "FAIL"})
    assert "taken by phase: load 1,000,000, context 50,001" in grown.of("device_peak_bytes", "fp16")["reason"]


@pytest.mark.usefixtures("created")
def test_a_launch_that_takes_memory_fails(weigh):
    launched = weigh(COUNTED_LAUNCH_BYTES="512")
    assert (launched.code, launched.red) == (1, {"device_peak_bytes": "FAIL"})
    assert "launches after the first took 512 bytes" in launched.of("device_peak_bytes", "fp16")["reason"]
