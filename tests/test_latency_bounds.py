"""Delta of latency in this repository's gate.toml: one percent on GPUs, and on processors no less than what was measured can be seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.judge.latency.contrasts import process_effects
from harness.judge.latency.decision import two_stage_detectable
from harness.judge.latency.samples import ALPHA
from harness.records.gate_lines import LATENCY_MS, LATENCY_RATIO
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.gatefile import read_gate_file

ROOT = Path(__file__).parents[1]
POLICY = read_gate_file(ROOT / "gate.toml")
CPU, H200, LAPTOP = "cpu-x86_64", "NVIDIA-H200-SM90", "NVIDIA-GeForce-RTX-5070-Laptop-GPU-SM120"
GATES = 3  # of the default job on a processor, that share alpha: two ratios and one engine beside the approved one
TEXT = EngineSpec(encoder=EncoderSpec.parse("emoji-clip/text"), recipe=Recipe.FP16, backend="onnxruntime")


def line(metric, machine_class, engine=TEXT):
    return POLICY.margin_line(metric, engine, machine_class)


def sees(spread, gate):
    """Slow-down that both stages of a gate find in 99 of 100, where its processes spread so."""
    return float(two_stage_detectable(np.array(spread), gate.processes, alpha=ALPHA / GATES, margin=gate.session_spread))


@pytest.mark.parametrize("metric", [LATENCY_RATIO, LATENCY_MS])
@pytest.mark.parametrize("machine_class", [H200, LAPTOP])
def test_one_percent_is_for_every_class_of_gpu(metric, machine_class):
    for encoder in ("emoji-clip/text", "ViT-L-14/image"):
        gate = line(metric, machine_class, replace(TEXT, encoder=EncoderSpec.parse(encoder)))
        assert (gate.size, gate.gated, gate.processes) == (0.01, True, 16)


def test_one_percent_of_a_gpu_is_more_than_the_processes_seen_there_can_tell():
    assert sees(0.0026, line(LATENCY_MS, H200)) < 0.01  # docs/hopper.md: 0.10 to 0.26 %
    assert sees(0.0026, line(LATENCY_RATIO, H200)) < 0.01


def test_delta_beside_the_approved_engine_on_a_processor_is_what_the_measured_pairs_can_tell_with_room():
    gate = line(LATENCY_MS, CPU)
    pairs = json.loads((ROOT / "docs/data/latency-real.json").read_text())["pairs"]
    contrasts = np.array([pair["gates"]["0 %"]["contrasts"][: gate.quartets] for pair in pairs])
    spread = float(process_effects(contrasts, np.ones(contrasts.shape, dtype=bool)).std(ddof=1))
    assert len(pairs) == 120
    assert spread == pytest.approx(0.065, abs=0.001)
    assert sees(spread, gate) == pytest.approx(0.14, abs=0.005)
    assert sees(spread, gate) < gate.size == 0.25


def test_delta_of_a_stored_ratio_on_a_processor_is_what_sessions_differ_by_and_what_processes_can_tell():
    gate = line(LATENCY_RATIO, CPU, replace(TEXT, recipe=Recipe.LINEAR))
    beyond = [sees(spread, replace(gate, session_spread=0.0)) for spread in (0.054, 0.070)]  # docs/metrics.md, without busy neighbours
    assert beyond == [pytest.approx(0.114, abs=0.005), pytest.approx(0.15, abs=0.005)]
    assert gate.size == gate.session_spread + 0.15 == 0.3


@pytest.mark.parametrize("metric", [LATENCY_RATIO, LATENCY_MS])
def test_a_large_encoder_is_not_timed_on_a_processor_and_the_line_says_why(metric):
    gate = line(metric, CPU, replace(TEXT, encoder=EncoderSpec.parse("ViT-L-14/image"), recipe=Recipe.LINEAR))
    assert not gate.gated
    assert "longer than a job of minutes has" in gate.reason
