from dataclasses import replace

import pytest

from harness.judge.structure import GraphView
from harness.records.graph import OnnxConstant, OnnxGraph
from tests.helpers.graphs import WIDTH, GraphMaker
from tests.helpers.trunks import TrunkMaker


def blocks_of(maker: GraphMaker) -> list[list[str]]:
    return [[gemm.node.name for gemm in block.gemms] for block in GraphView(maker.graph()).blocks]


def test_each_block_owns_its_six_weight_gemms():
    expected = [[f"b{index}/{part}" for part in ("q", "k", "v", "out", "fc", "proj")] for index in range(3)]

    assert blocks_of(GraphMaker(quantized=False)) == expected


def test_quantization_does_not_change_what_a_block_is():
    assert blocks_of(GraphMaker(quantized=True, softmax_qdq=True)) == blocks_of(GraphMaker(quantized=False))


def test_quantized_attention_is_still_attention():
    assert blocks_of(GraphMaker(attention_qdq=True)) == blocks_of(GraphMaker(quantized=False))


def test_patch_embedding_and_head_belong_to_no_block():
    gemms = {name for block in blocks_of(GraphMaker()) for name in block}

    assert not {"patch", "head"} & gemms


def test_blocks_are_found_whatever_their_nodes_are_called():
    graph = GraphMaker(quantized=False).graph()
    renamed = {node.name: f"n{index}" for index, node in enumerate(graph.nodes)}
    anonymous = replace(graph, nodes=tuple(replace(node, name=renamed[node.name]) for node in graph.nodes))

    assert [len(block.gemms) for block in GraphView(anonymous).blocks] == [6, 6, 6]


def test_a_shape_read_off_an_earlier_layer_is_no_weight_of_the_block():
    maker = GraphMaker(quantized=False)
    graph = maker.graph()
    feeding = next(node for node in graph.nodes if node.name == "b1/kt")
    shape = replace(feeding, name="shape", op_type="Shape", inputs=("b0/proj:0",), outputs=("shape:0",))
    reshaped = replace(feeding, inputs=(*feeding.inputs, "shape:0"))
    nodes = tuple(one for node in graph.nodes for one in ((shape, reshaped) if node is feeding else (node,)))

    assert "b0/proj" not in {gemm.node.name for gemm in GraphView(replace(graph, nodes=nodes)).blocks[1].gemms}


def test_a_single_block_keeps_everything_after_its_attention():
    assert blocks_of(GraphMaker(blocks=1)) == [["b0/q", "b0/k", "b0/v", "b0/out", "b0/fc", "b0/proj", "head"]]


def test_a_graph_without_attention_has_no_blocks():
    graph = GraphMaker(blocks=0).graph()

    assert GraphView(graph).blocks == ()


def test_a_softmax_that_feeds_no_matmul_is_no_attention():
    graph = GraphMaker(blocks=1).graph()
    nodes = tuple(node for node in graph.nodes if node.name != "b0/context")

    assert GraphView(OnnxGraph(nodes=nodes, constants=graph.constants, inputs=(), outputs=(), opsets={})).cores == ()


def test_a_block_whose_attention_is_not_recognised_leaves_the_graph_irregular():
    for lost in range(3):
        graph = GraphMaker().graph()
        nodes = tuple(replace(node, op_type="Sigmoid") if node.name == f"b{lost}/softmax" else node for node in graph.nodes)

        assert GraphView(replace(graph, nodes=nodes)).irregularity is not None, lost


def test_whole_graphs_are_regular():
    assert GraphView(GraphMaker().graph()).irregularity is None
    assert GraphView(GraphMaker(blocks=1).graph()).irregularity is None
    assert GraphView(GraphMaker(quantized=False).graph()).irregularity is None


def with_learned_queries(graph: OnnxGraph, block: int) -> OnnxGraph:
    """The graph with queries of one block that come from a constant, as those of an attention that pools do."""
    latent = OnnxConstant(name="latent", dtype="FLOAT16", shape=(1, WIDTH), nbytes=2 * WIDTH)
    nodes = tuple(replace(node, inputs=("latent", node.inputs[1])) if node.name == f"b{block}/q" else node for node in graph.nodes)
    return replace(graph, nodes=nodes, constants={**graph.constants, "latent": latent})


def test_an_attention_with_learned_queries_after_the_last_block_pools_and_is_no_block():
    view = GraphView(with_learned_queries(GraphMaker(blocks=3, quantized=False).graph(), 2))

    assert (len(view.blocks), view.irregularity) == (2, None)
    assert view.pooling is not None
    assert view.pooling.softmax.name == "b2/softmax"
    assert {"b2/k", "b2/out", "b2/fc", "b2/scores"} <= view.pooling_products
    assert not {"head", "b1/proj"} & view.pooling_products


def test_attention_whose_queries_read_the_input_is_a_block():
    assert GraphView(GraphMaker(blocks=3, quantized=False).graph()).pooling is None


def test_a_last_block_that_lost_a_layer_is_not_taken_for_pooling():
    graph = GraphMaker(blocks=3, quantized=False).graph()
    wider = {name: replace(constant, shape=(8, 24)) if name == "b2/q/weight" else constant for name, constant in graph.constants.items()}

    view = GraphView(replace(graph, constants=wider))

    assert view.pooling is None
    assert view.irregularity is not None
    assert "block 2" in view.irregularity


def test_a_block_of_other_shapes_in_the_middle_stays_a_block():
    graph = GraphMaker(blocks=3, quantized=False).graph()
    wider = {name: replace(constant, shape=(8, 24)) if name == "b1/q/weight" else constant for name, constant in graph.constants.items()}

    assert len(GraphView(replace(graph, constants=wider)).blocks) == 3


def test_nodes_before_a_product_belong_to_its_block():
    view = GraphView(GraphMaker(blocks=2).graph())
    nodes = {node.name: node for node in view.graph.nodes}

    assert [view.block_of(nodes[name]) for name in ("b1/fc/input_q", "b0/scores", "head")] == [1, 0, None]


def test_blocks_of_a_convolutional_trunk_are_its_residual_sums():
    view = GraphView(TrunkMaker(blocks=3).graph())

    assert [[gemm.node.name for gemm in block.gemms] for block in view.blocks] == [
        ["b0/conv1", "b0/conv2", "b0/downsample"],
        ["b1/conv1", "b1/conv2"],
        ["b2/conv1", "b2/conv2"],
    ]
    assert (view.attention_blocks, view.irregularity) == ((), None)


def test_an_attention_after_a_convolutional_trunk_pools():
    view = GraphView(TrunkMaker(blocks=3).graph())

    assert view.pooling is not None
    assert view.pooling_products == {f"pool/{part}" for part in ("q", "k", "v", "scores", "softmax", "context", "out")}
    assert GraphView(TrunkMaker(blocks=3, pooled=False).graph()).pooling is None


@pytest.mark.parametrize("lost", [1, 2])
def test_a_residual_block_that_is_not_recognised_leaves_the_graph_irregular(lost):
    graph = TrunkMaker(blocks=3).graph()
    nodes = tuple(replace(node, op_type="Max") if node.name == f"b{lost}/add" else node for node in graph.nodes)

    view = GraphView(replace(graph, nodes=nodes))

    assert view.irregularity is not None
    assert f"b{lost}/conv1" in view.irregularity


def test_one_residual_sum_is_no_trunk():
    view = GraphView(TrunkMaker(blocks=1).graph())

    assert [core.softmax.name for _, core in view.attention_blocks] == ["pool/softmax"]


def test_convolutions_before_transformer_blocks_stay_outside_them():
    graph = GraphMaker(blocks=3, quantized=False).graph()
    stem = TrunkMaker(blocks=2, quantized=False, pooled=False).graph()
    joined = replace(graph, nodes=(*stem.nodes, *graph.nodes), constants={**stem.constants, **graph.constants})

    view = GraphView(joined)

    assert [len(block.gemms) for block in view.blocks] == [6, 6, 6]
