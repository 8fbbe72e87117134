from collections import Counter
from dataclasses import replace

import pytest

from harness.judge.block_members import block_members
from harness.judge.structure import GraphView
from harness.measure.onnx_graph import read_onnx_graph
from harness.records.graph import OnnxNode
from tests.helpers.graphs import GraphMaker
from tests.helpers.real_exports import real_export


def members(**options):
    return block_members(GraphView(GraphMaker(**options).graph()))


@pytest.mark.parametrize("options", [{}, {"quantized": False}, {"attention_qdq": True}, {"folded": False}])
def test_every_node_of_a_block_belongs_to_it_and_no_other_does(options):
    graph = GraphMaker(**options).graph()

    found = block_members(GraphView(graph))

    assert found == {node.name: int(node.name[1]) for node in graph.nodes if node.name.startswith("b")}
    assert {"patch", "head"}.isdisjoint(found)


def test_the_residual_sum_stays_and_the_normalisation_that_reads_it_leads_on():
    found = members()

    assert (found["b0/add_2"], found["b1/ln_1"]) == (0, 1)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_node_that_only_one_block_has_belongs_to_it(block):
    graph = GraphMaker().graph()
    extra = OnnxNode(name="extra", op_type="Relu", domain="", inputs=(f"b{block}/gelu:0",), outputs=("extra:0",))
    nodes = []
    for node in graph.nodes:
        nodes.append(replace(node, inputs=("extra:0",)) if node.name == f"b{block}/proj/input_q" else node)
        nodes += [extra] if node.name == f"b{block}/gelu" else []

    found = block_members(GraphView(replace(graph, nodes=tuple(nodes))))

    assert found.pop("extra") == block
    assert found == members()


def test_the_head_is_cut_off_even_where_it_looks_like_what_follows_a_product():
    graph = GraphMaker().graph()
    sums = [
        OnnxNode(name=f"sum {index}", op_type="Add", domain="", inputs=("b2/add_2:0",) * 2, outputs=(f"{index}",)) for index in range(3)
    ]

    assert block_members(GraphView(replace(graph, nodes=(*graph.nodes, *sums)))) == members()


def test_a_graph_whose_blocks_do_not_repeat_has_no_members():
    graph = GraphMaker().graph()
    odd = tuple(replace(node, op_type="Sigmoid") if node.name == "b1/softmax" else node for node in graph.nodes)

    assert block_members(GraphView(replace(graph, nodes=odd))) == {}
    assert members(blocks=0) == members(blocks=1) == {}


# By the names in the export; counted by hand in block 1.
@pytest.mark.parametrize(("name", "nodes"), [("image-linear", 47), ("text-linear", 48), ("image-attention", 56), ("text-fp16", 30)])
def test_a_real_export_falls_into_its_blocks(name, nodes, tmp_path):
    view = GraphView(read_onnx_graph(real_export(name, tmp_path)))

    found = block_members(view)

    assert Counter(found.values()) == dict.fromkeys(range(12), nodes)
    assert all(f"/resblocks.{block}/" in name for name, block in found.items())
    assert not any("/resblocks." in name for name in view.op_types if name not in found)
