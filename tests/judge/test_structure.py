from dataclasses import replace

from harness.judge.structure import GraphView
from harness.records.graph import OnnxGraph
from tests.helpers.graphs import GraphMaker


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


def test_an_attention_of_other_shapes_after_the_last_block_pools_and_is_no_block():
    maker = GraphMaker(blocks=3, quantized=False)
    graph = maker.graph()
    wider = {name: replace(constant, shape=(8, 24)) if name == "b2/q/weight" else constant for name, constant in graph.constants.items()}

    view = GraphView(replace(graph, constants=wider))

    assert len(view.blocks) == 2
    assert view.pooling is not None
    assert view.pooling.softmax.name == "b2/softmax"
    assert GraphView(graph).pooling is None


def test_a_block_of_other_shapes_in_the_middle_stays_a_block():
    graph = GraphMaker(blocks=3, quantized=False).graph()
    wider = {name: replace(constant, shape=(8, 24)) if name == "b1/q/weight" else constant for name, constant in graph.constants.items()}

    assert len(GraphView(replace(graph, constants=wider)).blocks) == 3


def test_nodes_before_a_product_belong_to_its_block():
    view = GraphView(GraphMaker(blocks=2).graph())
    nodes = {node.name: node for node in view.graph.nodes}

    assert [view.block_of(nodes[name]) for name in ("b1/fc/input_q", "b0/scores", "head")] == [1, 0, None]
