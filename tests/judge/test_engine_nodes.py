from collections import Counter
from dataclasses import replace

import pytest

from harness.judge.engine_nodes import engine_nodes
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.onnx_graph import read_onnx_graph
from harness.records.observations import LayerRow, LayerTable, LayerTensor
from tests.helpers.gates import REPOSITORY
from tests.helpers.graphs import GraphMaker, layer_table
from tests.helpers.real_exports import real_export

GRAPH = GraphMaker().graph()
VIEW = GraphView(GRAPH)
BLOCK_1 = "/tower/transformer/resblocks.1"


def tensor(datatype):
    return LayerTensor(name="x", shape=(8, 8), datatype=datatype)


def row(name, kind, inputs, constants="", outputs="Half", nodes=()):
    given = (tuple(tensor(word) for word in words.split()) for words in (inputs, constants, outputs))
    read, constant, written = given
    return LayerRow(name=name, kind=kind, inputs=read, constants=constant, outputs=written, tactic="", onnx_nodes=tuple(nodes))


def table(*rows):
    return LayerTable(rows=rows, source="made by hand")


def by_name(found):
    return {node.node: node for node in found}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Nodes of the real engines of TensorRT 10.6, by recipe and node name."""
    folder = tmp_path_factory.mktemp("exports")

    def nodes(recipe):
        layers = read_layer_table(REPOSITORY / f"docs/data/hopper-trt-10.6/ViT-B-32-image-{recipe}_fixed_128.layers.json.gz")
        return by_name(engine_nodes(layers, GraphView(read_onnx_graph(real_export(f"image-{recipe}", folder)))))

    return {recipe: nodes(recipe) for recipe in ("fp16", "linear", "attention")}


def test_every_node_of_the_graph_is_there_in_its_order_with_its_operator_and_block():
    found = engine_nodes(layer_table(GRAPH), VIEW)

    assert [(node.node, node.op_type) for node in found] == [(node.name, node.op_type) for node in GRAPH.nodes]
    assert by_name(found)["b1/gelu"].block == 1
    assert by_name(found)["head"].block is None


def test_the_product_carries_a_node_that_other_layers_prepare_and_finish():
    found = by_name(
        engine_nodes(
            table(
                row("prepare", "kgen", "Half", outputs="FP8", nodes=("q", "dq", "fc", "bias")),
                row("multiply", "gemm", "FP8", "FP8 Float", nodes=("dq", "fc")),
                row("finish", "kgen", "Half", nodes=("fc", "gelu")),
            )
        )
    )["fc"]

    assert (found.kernel, found.kind, found.layer, found.layers) == ("multiply", "gemm", 1, (0, 1, 2))
    assert found.realised == "fp8"
    assert found.fused_with == ("dq",)
    assert found.operands is not None
    assert (found.operands.inputs, found.operands.weights, found.operands.outputs) == (("FP8",), "FP8", ("Half",))


def test_without_a_product_the_layer_that_names_the_most_nodes_carries_one():
    layers = table(
        row("mha", "kgen", "Half Half Half", nodes=("scores", "softmax", "context")), row("move", "kgen", "FP8", nodes=("context",))
    )

    found = by_name(engine_nodes(layers))["context"]

    assert (found.kernel, found.realised, found.layers) == ("mha", "half", (0, 1))
    assert found.operands is not None
    assert found.operands.weights is None


@pytest.mark.parametrize(
    ("rows", "realised"),
    [
        ([("gemm", "FP8", "FP8")], "fp8"),
        ([("gemm", "Half", "FP8")], "mixed"),
        ([("gemm", "Half", "Half")], "half"),
        ([("gemm", "FP8", "FP8"), ("gemm", "FP8", "FP8")], "fp8"),
        ([("gemm", "FP8", "FP8"), ("gemm", "Half", "Half")], "mixed"),
        ([("kgen", "FP8 FP8 FP8", "Half")], "fp8"),
        ([("kgen", "FP8 Half", "")], "mixed"),
    ],
)
def test_a_node_is_what_the_layers_that_compute_it_read(rows, realised):
    layers = table(*(row(f"layer {index}", *types, nodes=("n",)) for index, types in enumerate(rows)))

    assert by_name(engine_nodes(layers))["n"].realised == realised


def test_a_quantization_is_fp8_where_its_layer_writes_it():
    fused, emulated = (
        by_name(engine_nodes(table(row("norm", "kgen", "Half", outputs=written, nodes=("b0/ln_1", "b0/q/input_q"))), VIEW))
        for written in ("FP8", "Half")
    )

    assert (fused["b0/q/input_q"].realised, fused["b0/ln_1"].realised) == ("fp8", "half")
    assert emulated["b0/q/input_q"].realised == "half"


def test_a_node_that_no_layer_names_is_unseen():
    found = by_name(engine_nodes(table(row("one", "kgen", "Half", nodes=("patch",))), VIEW))["b1/fc"]

    assert found.realised == "unseen"
    assert (found.layer, found.kernel, found.kind, found.operands, found.layers, found.fused_with) == (None, None, None, None, (), ())


def test_quantizations_that_the_compiler_merged_stand_where_the_one_it_kept_stands():
    layers = table(row("norm", "kgen", "Half", outputs="FP8", nodes=("b0/ln_1", "b0/v/input_q")))

    found = by_name(engine_nodes(layers, VIEW))

    for name in ("b0/q/input_q", "b0/k/input_q"):
        assert (found[name].merged_into, found[name].realised, found[name].kernel) == ("b0/v/input_q", "fp8", "norm")
    assert found["b0/v/input_q"].merged_into is None
    assert found["b1/v/input_q"].realised == "unseen"


def test_dequantizations_of_merged_quantizations_are_merged_too():
    layers = table(row("multiply", "gemm", "FP8", "FP8", nodes=("b0/v/input_q", "b0/v/input_dq", "b0/v")))

    found = by_name(engine_nodes(layers, VIEW))["b0/q/input_dq"]

    assert (found.merged_into, found.realised) == ("b0/v/input_dq", "fp8")


def test_quantizations_with_another_scale_are_not_taken_for_merged():
    constants = dict(GRAPH.constants)
    scale = constants["b0/q/input_scale"]
    constants["b0/q/input_scale"] = replace(scale, value=scale.value * 2)
    layers = table(row("norm", "kgen", "Half", outputs="FP8", nodes=("b0/v/input_q",)))

    found = by_name(engine_nodes(layers, GraphView(replace(GRAPH, constants=constants))))

    assert found["b0/q/input_q"].realised == "unseen"
    assert found["b0/k/input_q"].merged_into == "b0/v/input_q"


def test_without_the_graph_nodes_come_as_layers_name_them():
    found = engine_nodes(table(row("a", "kgen", "Half", nodes=("y", "x")), row("b", "gemm", "FP8", "FP8", nodes=("z", "x"))))

    assert [(node.node, node.op_type, node.block) for node in found] == [("y", None, None), ("x", None, None), ("z", None, None)]


def test_nodes_that_are_not_in_the_graph_follow_those_that_are():
    found = engine_nodes(table(row("a", "kgen", "Half", nodes=("stranger", "patch"))), VIEW)

    assert (found[-1].node, found[-1].op_type, len(found)) == ("stranger", None, len(GRAPH.nodes) + 1)


def test_a_real_engine_of_linear_multiplies_in_fp8_and_attends_in_half_precision(real):
    found = real["linear"]

    assert Counter(node.realised for node in found.values()) == {"fp8": 396, "half": 106, "unseen": 86}
    products = {node.node: node for node in found.values() if node.op_type == "MatMul" and node.block is not None}
    assert Counter(node.realised for node in products.values()) == {"fp8": 72, "half": 24}
    fc = found[f"{BLOCK_1}/mlp/c_fc/MatMul"]
    assert fc.kind == "fusion"
    assert f"{BLOCK_1}/mlp/gelu/Gelu" in fc.fused_with
    assert f"{BLOCK_1}/mlp/c_proj/input_quantizer/TRT_FP8QuantizeLinear" in fc.fused_with
    assert f"{BLOCK_1}/attn/Softmax" in found[f"{BLOCK_1}/attn/MatMul_1"].fused_with
    query = found[f"{BLOCK_1}/attn/q/input_quantizer/TRT_FP8QuantizeLinear"]
    assert query.merged_into == f"{BLOCK_1}/attn/v/input_quantizer/TRT_FP8QuantizeLinear"
    assert not [node for node in found.values() if node.realised == "unseen" and node.op_type in ("MatMul", "Conv", "QuantizeLinear")]


def test_a_real_engine_of_attention_multiplies_scores_in_fp8_apart_from_their_softmax(real):
    found = real["attention"]

    scores, softmax = found[f"{BLOCK_1}/attn/MatMul"], found[f"{BLOCK_1}/attn/Softmax"]
    assert (scores.realised, scores.kind, softmax.realised) == ("fp8", "gemm", "half")
    assert softmax.node not in scores.fused_with


def test_a_real_engine_of_fp16_has_no_fp8_at_all(real):
    assert {node.realised for node in real["fp16"].values()} == {"half", "unseen"}
