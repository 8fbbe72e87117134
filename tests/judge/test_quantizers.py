"""Every quantizer is found once, and named by what it feeds."""

from harness.judge.quantizers import operand_words, quantizers_of
from harness.judge.structure import GraphView
from tests.helpers.graphs import GraphMaker


def found_in(maker: GraphMaker, block: str = "b1/"):
    view = GraphView(maker.graph())
    return quantizers_of(view, [node.name for node in view.graph.nodes if node.name.startswith(block)])


def test_a_linear_block_has_an_activation_and_a_weight_for_each_product_with_the_shared_input_counted_once():
    assert sorted(one.feeds for one in found_in(GraphMaker())) == sorted(
        [
            "input of q, k and v",
            "input of out",
            "input of fc1",
            "input of fc2",
            *(f"weight of {name}" for name in ("q", "k", "v", "out", "fc1", "fc2")),
        ]
    )


def test_an_attention_in_fp8_adds_its_four_operands():
    added = {one.feeds for one in found_in(GraphMaker(attention_qdq=True))} - {one.feeds for one in found_in(GraphMaker())}

    assert added == {"q into the attention scores", "k into the attention scores", "softmax into the context", "v into the context"}


def test_weights_know_their_product_and_activations_have_none():
    found = found_in(GraphMaker())

    assert {one.product for one in found if one.feeds.startswith("weight")} == {
        f"b1/{name}" for name in ("q", "k", "v", "out", "fc", "proj")
    }
    assert {one.product for one in found if one.feeds.startswith("input")} == {None}


def test_a_pair_is_wired_past_from_what_it_gives_to_what_it_rounds():
    pair = next(one for one in found_in(GraphMaker()) if one.feeds == "input of fc2")

    assert (pair.tensor, pair.dequantized, pair.node) == ("b1/gelu:0", ("b1/proj/input_dq:0",), "b1/proj/input_q")


def test_pairs_with_scales_of_their_own_stay_apart():
    import numpy as np

    maker = GraphMaker()
    graph = maker.graph()
    graph.constants["b1/q/input_scale"].value[...] = np.array(0.0025)
    view = GraphView(graph)

    feeds = {one.feeds for one in quantizers_of(view, [node.name for node in graph.nodes if node.name.startswith("b1/")])}

    assert {"input of q", "input of k and v"} <= feeds


def test_a_token_table_in_fp8_is_a_quantizer():
    assert [one.feeds for one in found_in(GraphMaker(table=True, table_fp8=True), block="table")] == ["token table"]


def test_nothing_is_quantized_in_a_float_graph():
    assert found_in(GraphMaker(quantized=False)) == ()


def test_operands_are_told_apart():
    words = operand_words(GraphView(GraphMaker(quantized=False).graph()))

    assert (words["b0/fc", 0], words["b0/fc", 1], words["b0/context", 1]) == ("input of fc1", "weight of fc1", "v into the context")
