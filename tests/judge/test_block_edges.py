"""A tower can be cut between its blocks, wherever the graph's wiring allows it."""

from dataclasses import replace

import pytest

from harness.judge.block_edges import BlockEdges, block_edges, nodes_between
from harness.judge.structure import GraphView
from tests.helpers.graphs import GraphMaker


def edges_of(view: GraphView) -> tuple[str, ...]:
    found = block_edges(view)
    assert isinstance(found, BlockEdges), found
    return found.tensors


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_the_edges_are_the_embedding_and_the_second_sum_of_each_block(blocks, quantized):
    view = GraphView(GraphMaker(blocks=blocks, quantized=quantized, attention_qdq=quantized).graph())

    assert edges_of(view) == ("patch:0", *(f"b{index}/add_2:0" for index in range(blocks)))


def test_tokens_are_cut_behind_their_table():
    view = GraphView(GraphMaker(table=True).graph())

    assert edges_of(view)[0] == "gather:0"


def test_names_do_not_matter():
    graph = GraphMaker().graph()
    names = {node.outputs[0]: f"t{place}" for place, node in enumerate(graph.nodes)}

    def renamed(tensors):
        return tuple(names.get(tensor, tensor) for tensor in tensors)

    nodes = tuple(
        replace(node, name=f"n{place}", inputs=renamed(node.inputs), outputs=renamed(node.outputs))
        for place, node in enumerate(graph.nodes)
    )
    outputs = tuple(replace(port, name=names[port.name]) for port in graph.outputs)

    assert edges_of(GraphView(replace(graph, nodes=nodes, outputs=outputs))) == renamed(edges_of(GraphView(graph)))


def test_nodes_between_two_edges_are_those_of_one_block():
    view = GraphView(GraphMaker().graph())

    inside = nodes_between(view, ("b0/add_2:0",), "b1/add_2:0")

    assert {node.name.partition("/")[0] for node in inside} == {"b1"}
    assert {node.op_type for node in inside} >= {"LayerNormalization", "Softmax", "Gelu", "QuantizeLinear"}


def test_a_block_that_is_computed_past_its_input_is_told_and_not_cut():
    graph = GraphMaker(quantized=False).graph()
    nodes = tuple(replace(node, inputs=("b0/add_1:0", node.inputs[1])) if node.name == "b1/add_1" else node for node in graph.nodes)

    words = block_edges(GraphView(replace(graph, nodes=nodes)))

    assert isinstance(words, str)
    assert "block 0" in words


def test_a_graph_without_blocks_is_told():
    graph = GraphMaker(blocks=0).graph()

    assert block_edges(GraphView(graph)) == "no block repeats in it"
