from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.errors import BuildFailed
from harness.prepare.repair.all_repairs import repair
from harness.prepare.repair.float_casts import float_casts
from tests.helpers.models import HALF, SHAPE, fp8, half, model, op_types, valid

FLOAT = TensorProto.FLOAT


def single(name, values):
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def cast(source, target, to):
    return helper.make_node("Cast", [source], [target], f"cast/{target}", to=to)


def gemm(activation, weight, *, out="product"):
    """A MatMul and its bias in FP32, into `out`."""
    return [
        helper.make_node("MatMul", [activation, weight], ["m"], "/fc/MatMul"),
        helper.make_node("Add", ["m", "bias"], [out], "/fc/Add"),
    ]


def pair(source, scale):
    return [
        helper.make_node("QuantizeLinear", [source, scale, "zero"], ["x_q"], "/fc/Q"),
        helper.make_node("DequantizeLinear", ["x_q", scale], ["x_dq"], "/fc/DQ"),
    ]


def weight(scale):
    return helper.make_node("DequantizeLinear", ["weight", scale], ["weight_dq"], "/fc/weight/DQ")


STORED = [fp8("zero", []), fp8("weight", [4, 4])]


def casts_before_the_pair():
    """All of Q/DQ and GEMM in FP32 between two casts."""
    nodes = [cast("x", "x_f", FLOAT), *pair("x_f", "scale"), weight("scale"), *gemm("x_dq", "weight_dq"), cast("product", "y", HALF)]
    return model(nodes, [single("scale", 0.1), single("bias", [1, 2, 3, 4]), *STORED])


def casts_after_the_pair():
    """Q/DQ in FP16, and both of its outputs widened for the GEMM."""
    nodes = [
        *pair("x", "scale"),
        weight("scale"),
        cast("x_dq", "x_f", FLOAT),
        cast("weight_dq", "weight_f", FLOAT),
        *gemm("x_f", "weight_f"),
        cast("product", "y", HALF),
    ]
    return model(nodes, [half("scale", 0.1), single("bias", [1, 2, 3, 4]), *STORED])


def without_quantization():
    nodes = [cast("x", "x_f", FLOAT), *gemm("x_f", "weight"), cast("product", "h", HALF), helper.make_node("Relu", ["h"], ["y"], "relu")]
    return model(nodes, [single("weight", np.ones((4, 4))), single("bias", [1, 2, 3, 4])])


def through_moves():
    """A row is picked, and its GEMM has FP16 weights: what the vendor's FP16 conversion leaves before a final projection."""
    nodes = [
        cast("x", "x_f", FLOAT),
        helper.make_node("Gather", ["x_f", "index"], ["row"], "pick", axis=1),
        helper.make_node("MatMul", ["row", "weight"], ["y"], "/proj/MatMul"),
    ]
    return model(nodes, [numpy_helper.from_array(np.asarray(0), "index"), half("weight", np.ones((4, 4)))], returns=[2, 4])


FAULTY = (casts_before_the_pair, casts_after_the_pair, without_quantization, through_moves)


@pytest.mark.parametrize("faulty", FAULTY, ids=lambda make: make.__name__)
def test_a_gemm_between_casts_becomes_one_of_the_graphs_own_type(faulty):
    mended_model = faulty()
    mended = float_casts(mended_model, {})
    assert mended is not None
    assert (mended.name, mended.count) == ("float_casts", 1)
    assert "Cast" not in op_types(mended_model)
    assert FLOAT not in {tensor.data_type for tensor in mended_model.graph.initializer}
    assert valid(mended_model)
    assert float_casts(mended_model, {}) is None


@pytest.mark.parametrize("faulty", [casts_before_the_pair, casts_after_the_pair], ids=lambda make: make.__name__)
def test_both_dequantizelinear_nodes_feed_the_gemm_directly_with_the_same_numbers(faulty):
    mended = faulty()
    float_casts(mended, {})
    product = next(node for node in mended.graph.node if node.op_type == "MatMul")
    assert list(product.input) == ["x_dq", "weight_dq"]
    scales = {node.input[1] for node in mended.graph.node if node.op_type.endswith("QuantizeLinear") or "Dequantize" in node.op_type}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in mended.graph.initializer}
    assert [(constants[name].dtype, constants[name].item()) for name in scales] == [(np.float16, np.float16(0.1))]
    assert [value.tolist() for value in constants.values() if value.shape == (4,)] == [[1, 2, 3, 4]]


def test_an_output_of_the_graph_keeps_its_name():
    mended = casts_before_the_pair()
    float_casts(mended, {})
    assert mended.graph.output[0].name == mended.graph.node[-1].output[0] == "y"


def test_a_constant_that_others_read_in_fp32_stays_for_them():
    faulty = casts_before_the_pair()
    faulty.graph.node.append(helper.make_node("Neg", ["bias"], ["other"], "other"))
    faulty.graph.output.append(helper.make_tensor_value_info("other", HALF, [4]))
    float_casts(faulty, {})
    assert {tensor.name for tensor in faulty.graph.initializer if tensor.dims == [4]} == {"bias", "bias/float16"}


# FP32 that is meant: operators between the casts whose sums or exponentials need it.


def a_softmax():
    return model([cast("x", "x_f", FLOAT), helper.make_node("Softmax", ["x_f"], ["h"], "softmax"), cast("h", "y", HALF)])


def a_norm():
    nodes = [cast("x", "x_f", FLOAT), helper.make_node("LayerNormalization", ["x_f", "ones"], ["h"], "norm"), cast("h", "y", HALF)]
    return model(nodes, [single("ones", np.ones(4))])


def a_norm_and_its_gemm():
    nodes = [
        cast("x", "x_f", FLOAT),
        helper.make_node("LayerNormalization", ["x_f", "ones"], ["n"], "norm"),
        *gemm("n", "weight"),
        cast("product", "y", HALF),
    ]
    return model(nodes, [single("ones", np.ones(4)), single("weight", np.ones((4, 4))), single("bias", [1, 2, 3, 4])])


def a_sum_in_fp32():
    nodes = [
        cast("x", "x_f", FLOAT),
        cast("z", "z_f", FLOAT),
        *gemm("x_f", "weight"),
        helper.make_node("Add", ["product", "z_f"], ["sum"], "residual"),
        cast("sum", "y", HALF),
    ]
    return model(nodes, [single("weight", np.ones((4, 4))), single("bias", [1, 2, 3, 4])], inputs=("x", "z"))


def a_gemm_beside_a_softmax():
    nodes = [
        cast("x", "x_f", FLOAT),
        *gemm("x_f", "weight"),
        helper.make_node("Softmax", ["x_f"], ["p"], "softmax"),
        cast("product", "h", HALF),
        cast("p", "p_h", HALF),
        helper.make_node("Mul", ["h", "p_h"], ["y"], "gate"),
    ]
    return model(nodes, [single("weight", np.ones((4, 4))), single("bias", [1, 2, 3, 4])])


def scores_in_fp32():
    nodes = [
        cast("x", "x_f", FLOAT),
        cast("z", "z_f", FLOAT),
        helper.make_node("MatMul", ["x_f", "z_f"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax"),
        cast("p", "y", HALF),
    ]
    return model(nodes, inputs=("x", "z"))


def weights_beyond_fp16():
    faulty = without_quantization()
    faulty.graph.initializer[0].CopyFrom(single("weight", np.full((4, 4), 1e5)))
    return faulty


def casts_alone():
    return model([cast("x", "x_f", FLOAT), cast("x_f", "y", HALF)])


MEANT = (a_softmax, a_norm, a_norm_and_its_gemm, a_sum_in_fp32, a_gemm_beside_a_softmax, scores_in_fp32, weights_beyond_fp16, casts_alone)


@pytest.mark.parametrize("meant", MEANT, ids=lambda make: make.__name__)
def test_fp32_that_something_else_needs_is_left_alone(meant):
    left = meant()
    before = left.SerializeToString()
    assert float_casts(left, {}) is None
    assert left.SerializeToString() == before


def test_a_graph_that_declares_fp32_itself_is_left_alone():
    nodes = [cast("x", "x_f", FLOAT), *gemm("x_f", "weight", out="y")]
    left = model(nodes, [single("weight", np.ones((4, 4))), single("bias", [1, 2, 3, 4])])
    left.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, SHAPE))
    assert float_casts(left, {}) is None


def test_a_scale_that_fp16_cannot_hold_is_not_lost_in_silence():
    faulty = casts_before_the_pair()
    faulty.graph.initializer[0].CopyFrom(single("scale", 1e-9))
    with pytest.raises(BuildFailed, match="scale of zero"):
        repair(faulty, {})
