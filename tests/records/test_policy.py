import math
from dataclasses import replace

import pytest

from harness.errors import BadGateFile
from harness.records.gate_lines import Bound, Margin
from harness.records.policy import Defaults, EvaluationRows, GatePolicy, RecipePolicy
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Severity, Status, exit_code

ENGINE = EngineSpec(encoder=EncoderSpec.parse("ViT-B-32/image"), recipe=Recipe.LINEAR, backend="onnxruntime")


def bound(limit=0.9, **selection):
    return Bound(metric="cosine_min", limit=limit, direction=Direction.FLOOR, reason="for tests", **selection)


def policy(*bounds, margins=()):
    defaults = Defaults(encoders=("a/image",), recipes=("fp16",), backends=("fake",), targets=())
    promise = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")
    return GatePolicy(
        defaults=defaults,
        evaluation_rows=EvaluationRows(seeded=8, trained=16),
        policies={"linear": promise},
        bounds=bounds,
        margins=margins,
    )


def test_the_last_line_that_covers_an_engine_holds():
    assert policy(bound(0.9), bound(0.8, recipes=("linear",))).limit("cosine_min", ENGINE) == 0.8
    assert policy(bound(0.8, recipes=("linear",)), bound(0.9)).limit("cosine_min", ENGINE) == 0.9


@pytest.mark.parametrize("selection", [{"recipes": ("fp16",)}, {"encoders": ("*/text",)}, {"backends": ("tensorrt*",)}])
def test_a_line_for_other_engines_does_not_hold(selection):
    assert policy(bound(0.9), bound(0.1, **selection)).limit("cosine_min", ENGINE) == 0.9


def test_a_metric_without_a_bound_is_refused_rather_than_passed():
    with pytest.raises(BadGateFile, match="no \\[\\[bound\\]\\] of cosine_min covers"):
        policy().limit("cosine_min", ENGINE)
    with pytest.raises(BadGateFile, match="no \\[\\[margin\\]\\]"):
        policy().margin("cosine_min", ENGINE)


def test_a_recipe_without_a_policy_is_refused():
    with pytest.raises(BadGateFile, match=r"no \[policy.fp16\] table"):
        policy().policy("fp16")


@pytest.mark.parametrize("limit", [math.nan, math.inf])
def test_a_bound_that_is_no_finite_number_is_refused(limit):
    with pytest.raises(BadGateFile, match="finite"):
        bound(limit)


def test_a_bound_without_a_reason_is_refused():
    with pytest.raises(BadGateFile, match="no reason"):
        replace(bound(), reason=" ")


def test_a_margin_is_either_relative_or_absolute():
    assert Margin(metric="a", reason="b", relative=0.1).size == 0.1
    assert Margin(metric="a", reason="b", absolute=3).size == 3
    for sizes in ({}, {"relative": 0.1, "absolute": 3}):
        with pytest.raises(BadGateFile, match="exactly one"):
            Margin(metric="a", reason="b", **sizes)


def test_a_margin_may_be_meant_for_some_classes_of_machines():
    everywhere = Margin(metric="latency_ratio", reason="b", relative=0.01)
    narrowed = Margin(metric="latency_ratio", reason="b", relative=0.25, machine_classes=("cpu-*",))
    seen = policy(margins=(everywhere, narrowed))
    assert seen.margin("latency_ratio", ENGINE, "cpu-x86_64") == 0.25
    assert seen.margin("latency_ratio", ENGINE, "h100-sm90") == 0.01
    assert seen.margin("latency_ratio", ENGINE) == 0.01  # where nobody knows the machine, only what holds everywhere does


def test_a_line_may_say_that_latency_is_not_gated_and_a_narrower_one_that_it_is():
    left_out = Margin(metric="latency_ratio", reason="nobody waits for it", gated=False)
    narrowed = Margin(metric="latency_ratio", reason="b", relative=0.25, encoders=("ViT-B-32/*",))
    assert policy(margins=(left_out, narrowed)).margin("latency_ratio", ENGINE) == 0.25
    assert not policy(margins=(narrowed, left_out)).margin_line("latency_ratio", ENGINE).gated
    with pytest.raises(BadGateFile, match="nobody waits for it"):
        policy(margins=(narrowed, left_out)).margin("latency_ratio", ENGINE)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gated": False, "relative": 0.1}, "expected one of the two"),
        ({"relative": 0.1, "session_spread": 0.1}, "less than relative"),
        ({"relative": 0.1, "session_spread": -0.1}, "at least 0"),
        ({"relative": 0.1, "session_spread": math.nan}, "finite"),
        ({"relative": 0.1, "processes": 2}, "at least 3"),
        ({"relative": 0.1, "quartets": 0}, "at least 1"),
    ],
)
def test_a_latency_margin_that_no_timing_can_keep_is_refused(values, words):
    with pytest.raises(BadGateFile, match=words):
        Margin(metric="latency_ratio", reason="b", **values)


def test_only_what_is_timed_may_be_left_out():
    with pytest.raises(BadGateFile, match="only of host_bytes, latency_ms, latency_ratio"):
        Margin(metric="plan_bytes", reason="b", gated=False)


@pytest.mark.parametrize("size", [math.nan, -0.1])
def test_a_margin_that_no_figure_can_keep_is_refused(size):
    with pytest.raises(BadGateFile):
        Margin(metric="a", reason="b", relative=size)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        ([Status.PASS], 0),
        ([Status.PASS, Status.NO_BASELINE], 3),
        ([Status.INCONCLUSIVE], 3),
        ([Status.NO_BASELINE, Status.INVALID], 4),
        ([Status.INVALID, Status.FAIL, Status.NO_BASELINE], 1),
    ],
)
def test_a_failure_is_told_before_a_broken_measurement_and_that_before_missing_data(statuses, code):
    assert exit_code(statuses) == code
