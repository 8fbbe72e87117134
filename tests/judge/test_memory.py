from dataclasses import replace

import pytest

from harness.judge.memory import (
    bytes_against_baseline,
    device_peak_against_baseline,
    host_bytes_against_baseline,
    predicted_weights_ratio,
    weights_ratio,
)
from harness.judge.structure import GraphView
from harness.records.observations import DeviceMemory, DevicePhase, PhaseBytes
from harness.records.policy import RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="test")
COMPACT = replace(LINEAR, attention_fp8=True, embedding_fp8=True)


def judged(observed, approved, *, is_same_graph=True, **margins):
    return bytes_against_baseline("weights_bytes", observed, approved, is_same_graph=is_same_graph, relative_margin=0.001, **margins)


def test_the_approved_bytes_pass_without_words():
    judgement = judged(1_000_000, 1_000_000)

    assert (judgement.status, judgement.reason) == (Status.PASS, "")


def test_one_byte_more_fails_for_the_same_graph():
    judgement = judged(1_000_001, 1_000_000)

    assert judgement.status is Status.FAIL
    assert "+1 bytes" in judgement.reason


def test_a_builder_that_does_not_repeat_itself_has_a_margin_for_the_same_graph():
    assert judged(1_002_000, 1_000_000, same_graph_margin=0.002).status is Status.PASS
    assert judged(1_002_001, 1_000_000, same_graph_margin=0.002).status is Status.FAIL
    assert judged(1_002_000, 1_000_000, is_same_graph=False, same_graph_margin=0.002).status is Status.FAIL


def test_another_graph_may_differ_by_the_margin_and_says_so():
    assert judged(1_000_500, 1_000_000, is_same_graph=False).status is Status.PASS
    assert "differs" in judged(1_000_500, 1_000_000, is_same_graph=False).reason
    assert judged(1_001_001, 1_000_000, is_same_graph=False).status is Status.FAIL


def test_fewer_bytes_pass_and_ask_for_a_new_baseline():
    judgement = judged(900_000, 1_000_000)

    assert judgement.status is Status.PASS
    assert judgement.reason.startswith("baseline_stale")


def test_no_baseline_is_not_a_pass():
    judgement = judged(1_000_000, None)

    assert judgement.status is Status.NO_BASELINE
    assert "--baselines=create" in judgement.reason


def test_a_builder_that_did_not_say_is_invalid():
    assert judged(None, 1_000_000).status is Status.INVALID


def test_the_predicted_ratio_counts_block_weights_at_one_byte():
    fp16 = GraphView(GraphMaker(blocks=2, quantized=False).graph())

    # Two blocks of 8x8 q, k, v, out and 8x32 fc, proj: 2 * 768 elements. Patch 24 and head 32 elements stay FP16.
    assert predicted_weights_ratio(fp16, LINEAR) == pytest.approx((2 * 768 + 2 * 56) / (2 * 2 * 768 + 2 * 56))


@pytest.mark.parametrize(("policy", "table"), [(LINEAR, 2), (COMPACT, 1)], ids=["a table kept", "a table in FP8"])
def test_the_predicted_ratio_counts_a_token_table_as_its_policy_stores_it(policy, table):
    fp16 = GraphView(GraphMaker(blocks=2, quantized=False, table=True).graph())

    # As above, with a table of 100x8 in the place of the patch embedding: 800 elements.
    assert predicted_weights_ratio(fp16, policy) == pytest.approx((2 * 768 + table * 800 + 2 * 32) / (2 * 2 * 768 + 2 * 800 + 2 * 32))


def test_no_ratio_is_predicted_without_blocks():
    assert predicted_weights_ratio(GraphView(GraphMaker(blocks=0, table=True).graph()), COMPACT) is None


def test_no_ratio_is_predicted_from_a_reference_that_is_quantized_itself():
    assert predicted_weights_ratio(GraphView(GraphMaker(blocks=2).graph()), LINEAR) is None


def test_a_ratio_near_its_prediction_passes():
    assert weights_ratio(517, 1000, 0.516, relative_margin=0.02).status is Status.PASS


def test_weights_wider_than_predicted_fail():
    judgement = weights_ratio(670, 1000, 0.516, relative_margin=0.02)

    assert judgement.status is Status.FAIL
    assert "left unquantized" in judgement.reason


def test_weights_narrower_than_predicted_fail_too():
    assert "more is quantized" in weights_ratio(400, 1000, 0.516, relative_margin=0.02).reason


@pytest.mark.parametrize(("quantized", "fp16", "predicted"), [(None, 1000, 0.5), (500, None, 0.5), (500, 1000, None), (500, 0, 0.5)])
def test_a_ratio_of_unknown_figures_is_invalid(quantized, fp16, predicted):
    assert weights_ratio(quantized, fp16, predicted, relative_margin=0.02).status is Status.INVALID


def _phase(phase, runtime_bytes, *, session_bytes=0, held_bytes=1000):
    return PhaseBytes(
        phase=phase, runtime_bytes=runtime_bytes, session_bytes=session_bytes, held_bytes=held_bytes, peak_bytes=held_bytes, requests=1
    )


WEIGHED = (_phase(DevicePhase.LOAD, 900), _phase(DevicePhase.BUFFERS, 0, session_bytes=100), _phase(DevicePhase.LAUNCHES, 0))


def device_peak(phases=WEIGHED, approved=1000.0, *, is_same_graph=True, troubles=()):
    seen = DeviceMemory(phases=phases, rows=4, troubles=troubles)
    return device_peak_against_baseline(seen, approved, is_same_graph=is_same_graph, relative_margin=0.01)


@pytest.mark.parametrize(
    ("approved", "is_same_graph", "status"),
    [(1000, True, "PASS"), (999, True, "FAIL"), (991, False, "PASS"), (990, False, "FAIL"), (None, True, "NO_BASELINE")],
)
def test_the_devices_peak_is_exact_for_the_same_graph_and_has_its_margin_for_another(approved, is_same_graph, status):
    judged = device_peak(approved=approved, is_same_graph=is_same_graph)
    assert (judged.metric, judged.observed, judged.status) == ("device_peak_bytes", 1000, status)


def test_a_peak_that_grew_says_in_which_phases_memory_was_taken():
    assert device_peak(approved=999).reason.endswith("the graph is the baseline's own; taken by phase: load 900, buffers 100")


def test_a_launch_that_takes_memory_fails_whatever_was_approved():
    launched = device_peak((*WEIGHED[:2], _phase(DevicePhase.LAUNCHES, 16)), approved=None)
    assert launched.status is Status.FAIL
    assert launched.reason.startswith("launches after the first took 16 bytes of the device; expected none")


def test_a_count_that_went_wrong_or_that_nothing_was_counted_in_is_invalid():
    assert device_peak(troubles=("address 0x1 was taken twice",)).status is Status.INVALID
    unasked = device_peak((_phase(DevicePhase.LOAD, 0), WEIGHED[1]))
    assert (unasked.status, unasked.observed) == (Status.INVALID, None)
    assert "takes its memory elsewhere" in unasked.reason


def host_bytes(observed, approved=100_000_000, **changes):
    return host_bytes_against_baseline(observed, approved, relative_margin=0.25, **changes)


@pytest.mark.parametrize(
    ("observed", "status"), [(100_000_000, "PASS"), (125_000_000, "PASS"), (125_000_001, "FAIL"), (60_000_000, "PASS")]
)
def test_host_memory_may_grow_by_its_margin(observed, status):
    assert host_bytes(observed).status == status


def test_host_memory_that_shrank_asks_for_a_new_baseline():
    assert host_bytes(60_000_000).reason.startswith("baseline_stale: -40,000,000 bytes (-40.0%)")


def test_more_host_memory_on_another_make_of_processor_is_inconclusive():
    assert host_bytes(200_000_000, is_same_processor=False).status is Status.INCONCLUSIVE
    assert host_bytes(100_000_000, is_same_processor=False).status is Status.PASS


def test_host_memory_without_a_figure_or_a_baseline_is_not_green():
    assert host_bytes(None).status is Status.INVALID
    assert host_bytes(1, None).status is Status.NO_BASELINE
