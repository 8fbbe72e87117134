from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import helper, numpy_helper

from harness.errors import BuildFailed
from harness.judge.onnx_checks.scales import SMALLEST_FP16_SCALE
from harness.prepare.repair.zero_scales import SMALLEST_SCALE, zero_scales
from tests.helpers.models import fp8, half, model, q_dq, valid

STAND_IN = 6e-8  # what Model Optimizer 0.47 writes in the place of zero
TINY = np.random.default_rng(0).uniform(-1e-5, 1e-5, (4, 4)).astype(np.float16)  # as a module holds it: [outputs, inputs]


def linear(scale):
    """A product whose weight was divided by zero: codes of 448 and NaN."""
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"], "/tower/fc/DQ"),
        helper.make_node("MatMul", ["x", "weight"], ["y"], "/tower/fc/MatMul"),
    ]
    codes = helper.make_tensor("codes", fp8("", []).data_type, [4, 4], bytes([126, 255] * 8), raw=True)
    return model(nodes, [half("scale", scale), codes])


def gathered(scale):
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["table"], "/tower/token_embedding/DQ"),
        helper.make_node("Gather", ["table", "index"], ["y"], "/tower/token_embedding/Gather"),
    ]
    constants = [half("scale", scale), fp8("codes", [4, 4]), numpy_helper.from_array(np.zeros((2, 4), np.int64), "index")]
    return model(nodes, constants)


def weight_of(mended):
    """What the DequantizeLinear gives."""
    node = next(node for node in mended.graph.node if node.op_type == "DequantizeLinear")
    constants = {tensor.name: tensor for tensor in mended.graph.initializer}
    codes = np.frombuffer(constants[node.input[0]].raw_data, ml_dtypes.float8_e4m3fn).reshape(4, 4)
    return codes.astype(np.float32) * numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)


@pytest.mark.parametrize("scale", [0.0, STAND_IN], ids=["zero", "the exporter's stand-in"])
def test_weights_too_small_for_an_fp16_scale_are_quantized_again_to_e4m3s_full_precision(scale):
    faulty = linear(scale)
    mended = zero_scales(faulty, {"tower.fc.weight": TINY})
    assert mended is not None
    assert (mended.name, mended.count) == ("zero_scales", 1)
    assert np.allclose(weight_of(faulty), TINY.T, rtol=1 / 16, atol=0)
    assert valid(faulty)
    assert zero_scales(faulty, {"tower.fc.weight": TINY}) is None


def test_a_table_is_stored_as_its_module_holds_it():
    faulty = gathered(0.0)
    assert zero_scales(faulty, {"tower.token_embedding.weight": TINY}) is not None
    assert np.allclose(weight_of(faulty), TINY, rtol=1 / 16, atol=0)


def test_weights_of_zeros_stay_exactly_zero():
    faulty = linear(0.0)
    assert zero_scales(faulty, {"tower.fc.weight": np.zeros((4, 4), np.float16)}) is not None
    assert not weight_of(faulty).any()


def test_every_fp16_number_of_such_a_weight_is_a_normal_e4m3_code():
    numbers = np.arange(1, 448 * 16, dtype=np.float32) * np.float32(2.0**-24)  # all of FP16 up to 448 smallest scales
    codes = (numbers / np.float32(SMALLEST_SCALE)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert codes.min() >= 2.0**-6
    assert np.abs(codes * SMALLEST_SCALE / numbers - 1).max() <= 1 / 16


@pytest.mark.parametrize("scale", [SMALLEST_SCALE / 8, SMALLEST_SCALE, 0.1])
def test_a_scale_that_fp16_holds_is_left_alone(scale):
    left = linear(scale)
    before = left.SerializeToString()
    assert zero_scales(left, {"tower.fc.weight": TINY}) is None
    assert left.SerializeToString() == before


@pytest.mark.parametrize("scale", [0.0, STAND_IN], ids=["zero", "the exporter's stand-in"])
def test_an_activation_of_which_calibration_saw_nothing_is_an_error(scale):
    nodes = [*q_dq("x", "x"), helper.make_node("Relu", ["x_dq"], ["y"], "relu")]
    with pytest.raises(BuildFailed, match=r"x/Q.*calibration saw next to nothing"):
        zero_scales(model(nodes, [half("scale", scale), fp8("zero", [])]), {})


def test_weights_that_fp16_has_a_scale_for_are_an_error_and_not_a_guess():
    with pytest.raises(BuildFailed, match=r"up to 1, which FP16 has a scale for"):
        zero_scales(linear(0.0), {"tower.fc.weight": np.ones((4, 4), np.float16)})


@pytest.mark.parametrize("originals", [{}, {"tower.fc.weight": np.zeros((3, 4), np.float16)}], ids=["missing", "another shape"])
def test_weights_whose_original_is_not_to_be_had_are_an_error(originals):
    with pytest.raises(BuildFailed, match=r"tower\.fc\.weight"):
        zero_scales(linear(0.0), originals)


def test_a_weight_that_something_unknown_reads_is_an_error():
    faulty = linear(0.0)
    faulty.graph.node[1].op_type = "Mul"
    with pytest.raises(BuildFailed, match="read by Mul /tower/fc/MatMul"):
        zero_scales(faulty, {"tower.fc.weight": TINY})


def test_the_repair_writes_the_smallest_scale_that_the_checks_accept():
    assert SMALLEST_SCALE == SMALLEST_FP16_SCALE
