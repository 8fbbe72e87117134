from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.errors import BuildFailed
from harness.prepare.repair.all_repairs import REPAIRS, repair
from harness.prepare.repair.file_format import scalar_zero_point, stale_types, standard_domain
from harness.prepare.repair.placement import softmax_without_v, weight_only_convolution
from tests.helpers.models import FP8, HALF, SHAPE, fp8, half, model, op_types, q_dq, valid


def attention(v_nodes=(), v="v", *, softmax_reader="MatMul"):
    nodes = [helper.make_node("Softmax", ["x"], ["p"], "softmax"), *q_dq("p", "p"), *v_nodes]
    if softmax_reader == "MatMul":
        nodes.append(helper.make_node("MatMul", ["p_dq", v], ["y"], "product"))
    else:
        nodes.append(helper.make_node("Identity", ["p_dq"], ["y"], "other"))
    return model(nodes, [half("scale", 1 / 448), fp8("zero", [])], inputs=("x", "v"))


def convolution(*, quantized_input=False):
    source = q_dq("x", "x") if quantized_input else []
    nodes = [
        *source,
        helper.make_node("DequantizeLinear", ["weight_fp8", "scale"], ["weight_dq"], "weight/DQ"),
        helper.make_node("Conv", ["x_dq" if quantized_input else "x", "weight_dq"], ["y"], "/tower/conv1/Conv"),
    ]
    constants = [half("scale", 0.1), fp8("zero", []), fp8("weight_fp8", [5, 3, 2, 2])]
    return model(nodes, constants, shape=[1, 3, 4, 4], returns=[1, 5, 3, 3])


class TestStandardDomain:
    def test_nodes_in_the_vendors_domain_are_moved_and_the_domain_is_dropped(self):
        faulty = model(q_dq("x", "y", domain="trt"), [half("scale", 0.1), fp8("zero", [])], output="y_dq", domains=("", "trt"))
        mended = standard_domain(faulty, {})
        assert mended is not None
        assert mended.count == 2
        assert {node.domain for node in faulty.graph.node} == {""}
        assert [opset.domain for opset in faulty.opset_import] == [""]
        assert valid(faulty)

    def test_standard_nodes_are_left_alone(self):
        assert standard_domain(model(q_dq("x", "y"), [half("scale", 0.1), fp8("zero", [])], output="y_dq"), {}) is None

    def test_other_nodes_of_that_domain_stay_with_it(self):
        nodes = [*q_dq("x", "x", domain="trt"), helper.make_node("Plugin", ["x_dq"], ["y"], "plugin", domain="trt")]
        faulty = model(nodes, [half("scale", 0.1), fp8("zero", [])], domains=("", "trt"))
        assert standard_domain(faulty, {}) is not None
        assert faulty.graph.node[2].domain == "trt"
        assert [opset.domain for opset in faulty.opset_import] == ["", "trt"]


class TestScalarZeroPoint:
    def test_a_zero_point_of_one_element_becomes_scalar_like_its_scale(self):
        faulty = model(q_dq("x", "y"), [half("scale", 0.1), fp8("zero", [1])], output="y_dq")
        mended = scalar_zero_point(faulty, {})
        assert mended is not None
        assert mended.count == 1
        assert list(faulty.graph.initializer[1].dims) == []
        assert valid(faulty)

    @pytest.mark.parametrize(("scale", "zero"), [(0.1, []), ([0.1], [1])])
    def test_equal_shapes_are_left_alone(self, scale, zero):
        assert scalar_zero_point(model(q_dq("x", "y"), [half("scale", scale), fp8("zero", zero)], output="y_dq"), {}) is None


class TestSoftmaxWithoutV:
    def test_the_pair_is_removed_where_v_is_not_quantized(self):
        faulty = attention()
        mended = softmax_without_v(faulty, {})
        assert mended is not None
        assert mended.count == 1
        assert op_types(faulty) == ["Softmax", "MatMul"]
        assert list(faulty.graph.node[1].input) == ["p", "v"]
        assert not faulty.graph.initializer
        assert valid(faulty)

    @pytest.mark.parametrize("moved", [False, True], ids=["directly", "through a transpose"])
    def test_the_pair_stays_where_v_is_quantized_too(self, moved):
        nodes = q_dq("v", "v")
        if moved:
            nodes.append(helper.make_node("Transpose", ["v_dq"], ["v_t"], "transpose", perm=[0, 2, 1]))
        whole = attention(nodes, "v_t" if moved else "v_dq")
        assert softmax_without_v(whole, {}) is None
        assert op_types(whole).count("QuantizeLinear") == 2

    def test_a_softmax_that_feeds_something_else_is_left_alone(self):
        assert softmax_without_v(attention(softmax_reader="Identity"), {}) is None

    def test_a_softmax_without_q_dq_is_left_alone(self):
        nodes = [helper.make_node("Softmax", ["x"], ["p"], "softmax"), helper.make_node("MatMul", ["p", "v"], ["y"], "product")]
        assert softmax_without_v(model(nodes, inputs=("x", "v")), {}) is None


class TestWeightOnlyConvolution:
    def test_the_original_weight_is_put_back_bit_for_bit(self):
        original = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float16)
        faulty = convolution()
        mended = weight_only_convolution(faulty, {"tower.conv1.weight": original})
        assert mended is not None
        assert mended.count == 1
        assert op_types(faulty) == ["Conv"]
        (weight,) = faulty.graph.initializer
        assert np.array_equal(numpy_helper.to_array(weight), original)
        assert valid(faulty)

    def test_a_convolution_whose_input_is_quantized_too_is_left_alone(self):
        assert weight_only_convolution(convolution(quantized_input=True), {}) is None

    def test_a_convolution_with_float_weights_is_left_alone(self):
        node = helper.make_node("Conv", ["x", "w"], ["y"], "/tower/conv1/Conv")
        plain = model([node], [half("w", np.zeros((5, 3, 2, 2)))], shape=[1, 3, 4, 4], returns=[1, 5, 3, 3])
        assert weight_only_convolution(plain, {}) is None

    @pytest.mark.parametrize(
        "originals", [{}, {"tower.conv1.weight": np.zeros((5, 3, 1, 1), np.float16)}], ids=["missing", "another shape"]
    )
    def test_a_weight_that_cannot_be_put_back_is_an_error_and_not_a_guess(self, originals):
        with pytest.raises(BuildFailed, match=r"tower\.conv1\.weight"):
            weight_only_convolution(convolution(), originals)


class TestStaleTypes:
    def nodes(self):
        return [*q_dq("x", "x"), helper.make_node("Identity", ["x_dq"], ["y"], "end")]

    def test_a_noted_type_that_its_node_contradicts_is_inferred_again(self):
        noted = [helper.make_tensor_value_info("x_q", HALF, SHAPE), helper.make_tensor_value_info("x_dq", HALF, SHAPE)]
        faulty = model(self.nodes(), [half("scale", 0.1), fp8("zero", [])], noted=noted)
        mended = stale_types(faulty, {})
        assert mended is not None
        assert mended.count == 1
        assert [info.type.tensor_type.elem_type for info in faulty.graph.value_info] == [FP8, HALF]
        assert valid(faulty)

    def test_true_types_are_left_alone(self):
        noted = [helper.make_tensor_value_info("x_q", FP8, SHAPE)]
        assert stale_types(model(self.nodes(), [half("scale", 0.1), fp8("zero", [])], noted=noted), {}) is None

    def test_large_weights_do_not_hinder_inference(self):
        node = helper.make_node("MatMul", ["x", "w"], ["h"], "product")
        noted = [helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 4, 512])]
        end = helper.make_node("Identity", ["h"], ["y"], "end")
        faulty = model([node, end], [half("w", np.zeros((4, 512)))], noted=noted, returns=[2, 4, 512])
        mended = stale_types(faulty, {})
        assert mended is not None
        assert valid(faulty)


def test_all_faults_at_once_are_mended_in_order_and_told():
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], "softmax"),
        *q_dq("p", "p"),
        helper.make_node("MatMul", ["p_dq", "v"], ["h"], "product"),
        *q_dq("h", "h", domain="trt"),
        helper.make_node("Identity", ["h_dq"], ["y"], "end"),
    ]
    noted = [helper.make_tensor_value_info("h_q", HALF, SHAPE)]
    faulty = model(nodes, [half("scale", 0.1), fp8("zero", [1])], inputs=("x", "v"), noted=noted, domains=("", "trt"))
    mended = repair(faulty, {})
    assert [step.name for step in mended] == ["standard_domain", "scalar_zero_point", "softmax_without_v", "stale_types"]
    assert valid(faulty)
    assert repair(faulty, {}) == ()


def test_a_repair_is_known_by_the_name_of_its_function():
    assert [step.__name__ for step in REPAIRS] == [
        "standard_domain",
        "scalar_zero_point",
        "softmax_without_v",
        "weight_only_convolution",
        "float_casts",
        "zero_scales",
        "stale_types",
    ]
