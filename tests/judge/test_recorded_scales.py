"""O15: scales of activations against what calibration recorded."""

from dataclasses import replace

import numpy as np
import pytest

from harness.judge.onnx_checks.all_checks import Evidence, judgement
from harness.judge.onnx_checks.recorded import quantized_activations, quantizer_of
from harness.judge.onnx_checks.scales import scale_of
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")


@pytest.fixture
def view():
    return GraphView(GraphMaker().graph())


@pytest.fixture
def amax(view):
    """What calibration would have recorded of this graph."""
    scales = {node: scale_of(view, node) for node in quantized_activations(view)}
    return {quantizer_of(node): float(np.asarray(scale.value).reshape(())) * 448 for node, scale in scales.items()}


def with_scales_times(view, factor, *, of):
    """The graph with one quantizer's scale changed."""
    node = next(node for node in quantized_activations(view) if quantizer_of(node) == of)
    constants = dict(view.graph.constants)
    name = node.inputs[1]
    constants[name] = replace(constants[name], value=np.asarray(constants[name].value) * factor)
    return GraphView(replace(view.graph, constants=constants))


def test_scales_that_calibration_found_pass_and_are_counted(view, amax):
    verdict = judgement("O15", Evidence(view=view, amax=amax), LINEAR)

    assert (verdict.status, verdict.observed, verdict.n) == (Status.PASS, 0, len(amax))
    assert len(amax) > 0


@pytest.mark.parametrize("factor", [4096, 4, 1.01, 0.99, 1 / 4, float("nan")])
def test_a_scale_on_either_side_of_the_record_fails_and_is_named(view, amax, factor):
    broken = sorted(amax)[0]

    verdict = judgement("O15", Evidence(view=with_scales_times(view, factor, of=broken), amax=amax), LINEAR)

    assert verdict.status is Status.FAIL
    assert broken in {quantizer_of(node) for node in quantized_activations(view) if node.name == verdict.findings[0].node}


def test_a_scale_rounded_twice_to_fp16_passes(view, amax):
    broken = sorted(amax)[0]

    assert judgement("O15", Evidence(view=with_scales_times(view, 1 + 2**-10, of=broken), amax=amax), LINEAR).status is Status.PASS


def test_a_quantizer_that_calibration_never_saw_fails(view, amax):
    missing = {name: value for name, value in amax.items() if name != sorted(amax)[0]}

    verdict = judgement("O15", Evidence(view=view, amax=missing), LINEAR)

    assert verdict.status is Status.FAIL
    assert "no record" in verdict.reason


def test_a_graph_without_a_record_is_invalid_in_words_and_not_green(view):
    verdict = judgement("O15", Evidence(view=view), LINEAR)

    assert verdict.status is Status.INVALID
    assert "nobody recorded" in verdict.reason


@pytest.mark.parametrize(
    ("node", "path"),
    [
        (
            "/tower/transformer/resblocks.0/attn/q/input_quantizer/TRT_FP8QuantizeLinear",
            "tower.transformer.resblocks.0.attn.q.input_quantizer",
        ),
        ("/tower/layer1/layer1.0/downsample/downsample.0/input_quantizer/X", "tower.layer1.0.downsample.0.input_quantizer"),
        ("/tower/trunk/blocks/blocks.11/mlp/fc1/input_quantizer/X", "tower.trunk.blocks.11.mlp.fc1.input_quantizer"),
    ],
)
def test_a_node_is_traced_to_its_quantizer_by_the_modules_in_its_name(node, path):
    assert quantizer_of(OnnxNode(name=node, op_type="QuantizeLinear", domain="", inputs=(), outputs=(), attributes={})) == path
