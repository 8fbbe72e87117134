"""An engine needs no more bytes than the one that was approved, and as few as its shapes predict."""

import pytest

from harness.judge.memory import (
    bytes_against_baseline,
    device_peak_against_baseline,
    host_bytes_against_baseline,
    predicted_weights_ratio,
    weights_ratio,
)

pytestmark = pytest.mark.benchmark


@pytest.mark.gates("weights_bytes", needs="build")
def test_weights_need_no_more_bytes_than_approved(engine, observe, expect):
    _expect_bytes("weights_bytes", observe.memory(engine).weights_bytes, engine, observe, expect)


@pytest.mark.gates("plan_bytes", needs="build")
def test_the_engine_file_is_no_larger_than_approved(engine, observe, expect):
    _expect_bytes("plan_bytes", observe.memory(engine).plan_bytes, engine, observe, expect)


@pytest.mark.gates("activation_bytes", needs="memory")
def test_activations_need_no_more_bytes_than_approved(engine, observe, expect):
    _expect_bytes("activation_bytes", observe.memory(engine).activation_bytes, engine, observe, expect)


@pytest.mark.gates("device_peak_bytes", needs="device_memory")
def test_running_takes_no_more_of_the_device_than_approved_and_launches_take_nothing(engine, observe, expect):
    judgement = device_peak_against_baseline(
        observe.device_memory(engine),
        observe.approved("device_peak_bytes", engine),
        is_same_graph=observe.is_approved_graph(engine),
        relative_margin=observe.margin("device_peak_bytes", engine),
    )
    expect(judgement)


@pytest.mark.gates("host_bytes")
def test_running_takes_no_more_host_memory_than_approved(engine, observe, expect):
    judgement = host_bytes_against_baseline(
        observe.host_bytes(engine),
        observe.approved("host_bytes", engine),
        relative_margin=observe.margin("host_bytes", engine),
        is_same_processor=observe.is_approved_processor("host_bytes", engine),
    )
    expect(judgement)


@pytest.mark.gates("weights_ratio", needs="build", quantized=True)
def test_quantized_weights_shrink_as_their_shapes_predict(engine, observe, expect):
    fp16 = observe.fp16_of(engine)
    quantized_bytes, fp16_bytes = observe.memory(engine).weights_bytes, observe.memory(fp16).weights_bytes
    predicted = predicted_weights_ratio(observe.graph(fp16), observe.promise(engine))
    expect(weights_ratio(quantized_bytes, fp16_bytes, predicted, relative_margin=observe.margin("weights_ratio", engine)))


def _expect_bytes(metric, observed, engine, observe, expect):
    judgement = bytes_against_baseline(
        metric,
        observed,
        observe.approved(metric, engine),
        is_same_graph=observe.is_approved_graph(engine),
        relative_margin=observe.margin(metric, engine),
        same_graph_margin=observe.same_graph_margin(metric, engine),
    )
    expect(judgement)
