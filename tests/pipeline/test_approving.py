"""Stored ratios: what an engine is held to, what it is not held to and why, and what of a run is stored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.judge.latency.stored_ratio import RatioSeen, ratio_judgements
from harness.pipeline.approving import Approvals
from harness.pipeline.pacing import gate_protocol
from harness.records.baseline import Baseline, BaselineKey, BaselineMode
from harness.records.gate_lines import LATENCY_RATIO, Margin
from harness.records.spec import BatchProfile, Recipe
from harness.records.timing import RatioTiming, TimingSetting
from harness.records.verdict import Direction, Judgement, Status
from harness.store.baselines import BaselineFile, BaselineStore
from harness.store.codec import from_json
from harness.store.latency_baselines import RECORDS
from tests.helpers.left_engines import fake_engine

ENGINE = fake_engine(recipe=Recipe.LINEAR).spec
LINE = Margin(metric=LATENCY_RATIO, relative=0.25, reason="for tests", processes=4, quartets=2)
ON_GPU = TimingSetting(driver="580.1", protocol=gate_protocol(1).id, rows=8, threads=1)
ON_CPU = replace(ON_GPU, driver=None)
KEY = BaselineKey(
    machine_class="NVIDIA-H200-SM90",
    arch="tiny",
    tower="image",
    recipe="linear",
    backend="fake",
    backend_version="2",
    weights="seeded:0",
    batch="8/8/8",
)
LOGS = tuple(math.log(ratio) for ratio in (1.9, 2.0, 2.1, 1.95, 2.05, 2.0))


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path)


def approvals(store, *, mode=BaselineMode.COMPARE, setting=ON_GPU, logs=LOGS):
    """What a run with one engine sees of its baseline."""
    maker = SimpleNamespace(onnx=lambda *_: SimpleNamespace(sha256="0" * 64))
    pipeline = SimpleNamespace(baseline_key=lambda _: KEY, maker=maker)
    return Approvals(pipeline, SimpleNamespace(), store, mode, lambda _: RatioTiming(logs=logs, setting=setting))


def approve(store, *, key=KEY, **facts):
    store.write(Baseline(key=key, figures={LATENCY_RATIO: 2.0}, onnx_sha256="0" * 64, provenance=facts))


def verdict(store, setting=ON_GPU, **changes):
    """The judgement of a session whose ratio is exactly the approved one."""
    run = approvals(store, setting=setting, **changes)
    gate = run.ratio_gate(ENGINE, LINE, setting)
    seen = RatioSeen(logs=np.log([1.99, 2.0, 2.01, 2.0]), groups=16)
    return run.settle(ratio_judgements({"one": gate}, {"one": seen}, {}, alpha=0.001)["one"], ENGINE)


def test_a_ratio_of_the_same_setting_is_held_to(store):
    approve(store, **ON_GPU.facts)
    judged = verdict(store)
    assert (judged.status, judged.bound) == (Status.PASS, 2.5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"driver": "570.1"}, "driver 570.1 (here 580.1)"),
        ({"driver": None}, "driver none (here 580.1)"),
        ({"protocol": "another"}, "protocol another, 8 rows a launch, 1 thread, one process an engine (here block10ms"),
        ({"rows": 1}, "1 row a launch"),
        ({"threads": 2}, "2 threads"),
        ({"shares_process": True}, "both engines in one process"),
    ],
)
def test_a_ratio_of_another_driver_or_protocol_is_no_baseline_and_says_what_differs(store, other, words):
    approve(store, **replace(ON_GPU, **other).facts)
    judged = verdict(store)
    assert (judged.status, judged.observed, judged.bound) == (Status.NO_BASELINE, pytest.approx(2.0, rel=1e-4), None)
    assert judged.reason.startswith("the approved ratio 2 was timed under ")
    assert words in judged.reason
    assert judged.reason.endswith("expected one timed as here: approve one with --baselines=update")


def test_a_ratio_that_does_not_say_how_it_was_timed_is_no_baseline(store):
    approve(store, processor="a processor")
    judged = verdict(store)
    assert judged.status is Status.NO_BASELINE
    assert "driver unknown (here 580.1) and protocol unknown (here block10ms" in judged.reason


def test_on_a_processor_the_protocol_counts_and_no_driver_does(store):
    approve(store, timing_protocol=ON_CPU.facts["timing_protocol"])
    assert verdict(store, ON_CPU).status is Status.PASS
    assert "protocol" in verdict(store, replace(ON_CPU, rows=1)).reason
    assert "driver" not in verdict(store, replace(ON_CPU, rows=1)).reason


@pytest.mark.parametrize(
    "other",
    [
        {"machine_class": "NVIDIA-H100-80GB-HBM3-SM90"},
        {"backend_version": "1"},
        {"batch": "1/8/64"},
        {"weights": "seeded:1"},
        {"options": "optimization_level=5"},
    ],
)
def test_a_ratio_of_another_gpu_version_batch_weights_or_options_is_no_baseline(store, other):
    approve(store, key=replace(KEY, **other), **ON_GPU.facts)
    judged = verdict(store)
    assert judged.status is Status.NO_BASELINE
    assert "no baseline of this key" in judged.reason


def seen(status=Status.PASS):
    observed = math.exp(np.mean(LOGS))
    return Judgement(
        metric=LATENCY_RATIO, status=status, observed=observed, bound=2.5, unit="", direction=Direction.CEILING, n=6, reason=""
    )


def test_what_is_stored_is_every_process_of_both_stages_with_the_setting(store):
    judged = approvals(store, mode=BaselineMode.UPDATE).settle(seen(Status.FAIL), ENGINE)
    record = store.find(KEY)
    assert (judged.status, judged.reason) == (Status.PASS, "baseline_created")
    ratios = record.samples["process_ratios"]
    assert len(ratios) == 6
    assert math.exp(np.log(ratios).mean()) == pytest.approx(record.figures[LATENCY_RATIO], rel=1e-4)
    assert ON_GPU.differences(record.provenance) == ()


def test_a_run_that_creates_leaves_a_ratio_of_another_setting_and_one_that_updates_replaces_it(store):
    approve(store, **replace(ON_GPU, driver="570.1").facts)
    assert verdict(store, mode=BaselineMode.CREATE).status is Status.NO_BASELINE
    assert verdict(store, mode=BaselineMode.UPDATE).status is Status.PASS
    assert verdict(store).status is Status.PASS


def test_the_ratios_of_this_repository_were_timed_as_its_gate_times():
    root = Path(__file__).parents[2] / "baselines"
    files = [read(path) for path in sorted(root.rglob("*.json")) if not path.name.endswith(RECORDS)]
    ratios = [record for file in files for record in file.records if LATENCY_RATIO in record.figures]
    settings = [replace(ON_CPU, rows=BatchProfile.parse(record.key.batch).minimum) for record in ratios]
    assert len(ratios) == 2
    assert [setting.differences(record.provenance) for setting, record in zip(settings, ratios, strict=True)] == [(), ()]


def read(path):
    return from_json(BaselineFile, path.read_bytes(), origin=str(path))
