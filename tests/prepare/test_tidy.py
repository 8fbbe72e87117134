from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.prepare.tidy import give_copies_their_own_weights, lift_constants, name_nodes, tidy


def graph(nodes, constants=(), output="y"):
    port = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["anything", 3]) for name in ("x", output)]
    return helper.make_graph(
        list(nodes), "test", port[:1], port[1:], [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in constants]
    )


def test_equal_weights_each_get_their_own_name_again():
    shared = graph(
        [helper.make_node("Identity", ["a.bias"], ["b.bias"]), helper.make_node("Add", ["x", "b.bias"], ["y"])],
        [("a.bias", [1, 2, 3])],
    )
    give_copies_their_own_weights(shared)
    assert [node.op_type for node in shared.node] == ["Add"]
    assert numpy_helper.to_array(shared.initializer[1]).tolist() == [1, 2, 3]
    assert shared.initializer[1].name == "b.bias"


def test_an_identity_of_a_computed_tensor_stays():
    computed = graph([helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Identity", ["h"], ["y"])])
    give_copies_their_own_weights(computed)
    assert [node.op_type for node in computed.node] == ["Neg", "Identity"]


def test_an_identity_that_makes_an_output_stays():
    returned = graph([helper.make_node("Identity", ["a"], ["y"])], [("a", [1, 2, 3])])
    give_copies_their_own_weights(returned)
    assert [node.op_type for node in returned.node] == ["Identity"]


def test_constants_become_initializers_of_the_same_name():
    value = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "inner name")
    holder = graph([helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Add", ["x", "c"], ["y"])])
    lift_constants(holder)
    assert [node.op_type for node in holder.node] == ["Add"]
    assert [tensor.name for tensor in holder.initializer] == ["c"]


def test_every_node_has_a_name_of_its_own_and_good_names_are_kept():
    nodes = [helper.make_node("Neg", ["x"], ["a"], name) for name in ("/tower/Neg", "", "/tower/Neg", "", "Neg_1")]
    named = graph(nodes)
    name_nodes(named)
    assert [node.name for node in named.node] == ["/tower/Neg", "Neg", "/tower/Neg_1", "Neg_1", "Neg_1_1"]


def test_a_tidy_graph_is_valid_and_states_its_output():
    model = helper.make_model(
        graph([helper.make_node("Add", ["x", "b"], ["y"])], [("b", [1, 2, 3]), ("unread", [0])]),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    tidy(model, dim=3)
    onnx.checker.check_model(model, full_check=True)
    assert [tensor.name for tensor in model.graph.initializer] == ["b"]
    sizes = model.graph.output[0].type.tensor_type.shape.dim
    assert (sizes[0].dim_param, sizes[1].dim_value) == ("batch", 3)
