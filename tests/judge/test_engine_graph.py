from dataclasses import replace

import pytest

from harness.judge.engine_graph import block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq, without_attention
from harness.judge.structure import GraphView
from harness.records.observations import LayerTable
from harness.records.policy import Kept, NodeKind, RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker, layer_table
from tests.helpers.trunks import TrunkMaker, trunk_table

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")
FP16 = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=False, fused_attention=True, unfused_qdq=0, reason="for tests")
ATTENTION = replace(LINEAR, attention_fp8=True)
FP8 = ("FP8", "FP8", "FP8")

GRAPH = GraphMaker().graph()
VIEW = GraphView(GRAPH)
TRUNK = TrunkMaker().graph()


def test_an_engine_that_kept_every_promise_passes_all_three():
    table = layer_table(GRAPH)

    assert (block_gemms_fp8(VIEW, table, LINEAR).observed, block_gemms_fp8(VIEW, table, LINEAR).status) == (18, Status.PASS)
    assert (fused_attention(VIEW, table, LINEAR).observed, fused_attention(VIEW, table, LINEAR).status) == (3, Status.PASS)
    assert (unfused_qdq(VIEW, table, LINEAR).observed, unfused_qdq(VIEW, table, LINEAR).status) == (0, Status.PASS)


def test_fp8_weights_widened_inside_a_half_kernel_are_not_fp8_compute():
    judgement = block_gemms_fp8(VIEW, layer_table(GRAPH, half=frozenset({"b1/out"})), LINEAR)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 17)
    assert [(finding.node, finding.block) for finding in judgement.findings] == [("b1/out", 1)]
    assert "Half activations with FP8 weights" in judgement.reason


def test_a_gemm_that_only_a_pointwise_layer_names_is_not_proven():
    table = layer_table(GRAPH)
    rows = tuple(replace(row, kind="kgen") if row.onnx_nodes == ("b0/q",) else row for row in table.rows)

    judgement = block_gemms_fp8(VIEW, replace(table, rows=rows), LINEAR)

    assert judgement.status is Status.FAIL
    assert "no matrix product carries it" in judgement.reason


def test_a_gemm_split_over_two_layers_must_be_fp8_in_both():
    table = layer_table(GRAPH)
    half = next(row for row in layer_table(GRAPH, half=frozenset({"b0/q"})).rows if row.onnx_nodes == ("b0/q",))

    assert block_gemms_fp8(VIEW, replace(table, rows=(*table.rows, half)), LINEAR).status is Status.FAIL


def test_gemms_merged_into_one_layer_are_judged_one_by_one():
    table = layer_table(GRAPH)
    merged = next(row for row in table.rows if row.onnx_nodes == ("b0/q",))
    others = tuple(row for row in table.rows if row.onnx_nodes not in (("b0/q",), ("b0/k",), ("b0/v",)))
    rows = (*others, replace(merged, onnx_nodes=("b0/v", "b0/k", "b0/q")))

    assert block_gemms_fp8(VIEW, replace(table, rows=rows), LINEAR).observed == 18


def test_a_node_that_no_layer_names_cannot_be_judged():
    table = layer_table(GRAPH)
    rows = tuple(row for row in table.rows if "b2/fc" not in row.onnx_nodes)

    judgement = block_gemms_fp8(VIEW, replace(table, rows=rows), LINEAR)

    assert judgement.status is Status.INVALID
    assert "b2/fc" in judgement.reason


def test_split_attention_fails_and_names_the_layers():
    judgement = fused_attention(VIEW, layer_table(GRAPH, split=True), LINEAR)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.FAIL, 0, 3)
    assert "b0/scores, b0/context" in judgement.reason


def test_attention_that_no_layer_names_cannot_be_judged():
    table = layer_table(GRAPH)
    rows = tuple(row for row in table.rows if "b0/softmax" not in row.onnx_nodes)

    assert fused_attention(VIEW, LayerTable(rows=rows, source="made by hand"), LINEAR).status is Status.INVALID


def test_fused_attention_that_reads_fp8_passes_where_it_is_promised():
    graph = GraphMaker(attention_qdq=True).graph()

    judgement = fused_attention_fp8(GraphView(graph), layer_table(graph, attention=FP8), ATTENTION)

    assert (judgement.status, judgement.observed, judgement.bound, judgement.unit) == (Status.PASS, 3, 3, "blocks")
    assert judgement.findings == ()


@pytest.mark.parametrize("types", [("Half", "Half", "Half"), ("FP8", "FP8", "Half"), ("FP8", "FP8"), ()])
def test_fused_attention_with_an_operand_that_is_not_fp8_fails_and_says_what_it_reads(types):
    judgement = fused_attention_fp8(VIEW, layer_table(GRAPH, attention=types), ATTENTION)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert [finding.block for finding in judgement.findings] == [0, 1, 2]
    assert f"mha 0 reads {', '.join(types) or 'nothing'}" in judgement.reason


def test_one_block_in_half_precision_is_named():
    table = layer_table(GRAPH, attention=FP8)
    half = next(row for row in layer_table(GRAPH).rows if row.name == "mha 1")
    rows = tuple(half if row.name == "mha 1" else row for row in table.rows)

    judgement = fused_attention_fp8(VIEW, replace(table, rows=rows), ATTENTION)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 2)
    assert [(finding.node, finding.block) for finding in judgement.findings] == [("b1/softmax", 1)]


def test_split_attention_is_not_fused_in_fp8_either():
    judgement = fused_attention_fp8(VIEW, layer_table(GRAPH, split=True), ATTENTION)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert "not fused" in judgement.reason


def test_fp8_attention_is_expected_of_no_recipe_that_does_not_promise_it():
    assert fused_attention_fp8(VIEW, layer_table(GRAPH), LINEAR).status is Status.PASS

    unasked = fused_attention_fp8(VIEW, layer_table(GRAPH, attention=FP8), LINEAR)

    assert (unasked.status, unasked.observed, unasked.bound) == (Status.FAIL, 3, 0)


def test_fp8_attention_that_no_layer_names_cannot_be_judged():
    table = layer_table(GRAPH, attention=FP8)
    rows = tuple(row for row in table.rows if row.name != "mha 0")

    assert fused_attention_fp8(VIEW, LayerTable(rows=rows, source="made by hand"), ATTENTION).status is Status.INVALID


def test_a_layer_that_only_quantizes_is_found():
    judgement = unfused_qdq(VIEW, layer_table(GRAPH, alone=frozenset({"b1/fc/input_q"})), LINEAR)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.FAIL, 1, 0)
    assert judgement.findings[0].node == "b1/fc/input_q"


def test_quantization_of_the_graphs_own_input_may_stand_alone():
    table = layer_table(GRAPH, alone=frozenset({"b0/q/input_q"}))
    rows = tuple(
        replace(row, inputs=(replace(row.inputs[0], name="image"),)) if "b0/q/input_q" in row.onnx_nodes else row for row in table.rows
    )

    assert unfused_qdq(VIEW, replace(table, rows=rows), LINEAR).status is Status.PASS


def test_a_half_precision_engine_passes_where_no_fp8_is_promised():
    graph = GraphMaker(quantized=False).graph()

    assert block_gemms_fp8(GraphView(graph), layer_table(graph), FP16).status is Status.PASS


def test_a_policy_of_reports_gives_reports():
    report = replace(LINEAR, severity=Severity.REPORT)

    judgement = fused_attention(VIEW, layer_table(GRAPH, split=True), report)

    assert judgement.severity is Severity.REPORT
    assert {finding.severity for finding in judgement.findings} == {Severity.REPORT}


def test_engine_checks_cannot_judge_a_graph_without_blocks():
    view = GraphView(GraphMaker(blocks=0).graph())
    table = layer_table(view.graph)

    assert block_gemms_fp8(view, table, LINEAR).status is Status.INVALID
    assert fused_attention_fp8(view, table, ATTENTION).status is Status.INVALID
    assert fused_attention(view, table, LINEAR).status is Status.INVALID


def test_a_table_that_names_no_quantization_cannot_show_that_none_is_left_alone():
    rows = tuple(replace(row, onnx_nodes=()) for row in layer_table(GRAPH).rows)

    assert unfused_qdq(VIEW, LayerTable(rows=rows, source="made by hand"), LINEAR).status is Status.INVALID


def test_convolutions_of_a_trunk_are_proven_one_by_one():
    view = GraphView(TRUNK)

    clean, one_half = (block_gemms_fp8(view, trunk_table(TRUNK, half=half), LINEAR) for half in (frozenset[str](), frozenset({"b1/conv2"})))

    assert (clean.status, clean.observed) == (Status.PASS, 7)
    assert (one_half.status, [finding.node for finding in one_half.findings]) == (Status.FAIL, ["b1/conv2"])


def test_a_trunk_has_no_attention_to_judge_and_says_so():
    view = GraphView(TRUNK)

    assert fused_attention(view, trunk_table(TRUNK), LINEAR).status is Status.INVALID
    assert without_attention(view) == (
        "the tower's 3 blocks are convolutions and have no attention; its one attention pools what the last block gives"
    )
    assert without_attention(VIEW) is None
    assert without_attention(GraphView(GraphMaker(blocks=0).graph())) is None  # nothing is known of it, so nothing is excused


def test_quantization_before_convolutions_stands_alone_only_where_the_policy_lets_it():
    view, table = GraphView(TRUNK), trunk_table(TRUNK, alone=frozenset({"b1/conv1/input_q", "b1/conv2/input_q"}))
    allowing = replace(LINEAR, quantized_alone=(Kept(kind=NodeKind.CONVOLUTION, reason="The compiler does not fuse it."),))

    strict, lenient = (unfused_qdq(view, table, policy) for policy in (LINEAR, allowing))

    assert (strict.status, strict.observed) == (Status.FAIL, 2)
    assert (lenient.status, lenient.observed) == (Status.PASS, 0)
    assert lenient.reason == "2 more stand alone before convolutions, as the policy says: The compiler does not fuse it"


def test_quantization_before_a_matmul_is_not_excused_by_what_convolutions_may():
    allowing = replace(LINEAR, quantized_alone=(Kept(kind=NodeKind.CONVOLUTION, reason="The compiler does not fuse it."),))

    judgement = unfused_qdq(VIEW, layer_table(GRAPH, alone=frozenset({"b1/fc/input_q"})), allowing)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 1)


def test_an_engine_without_fp8_anywhere_runs_no_gemm_in_it_named_or_not():
    graph = GraphMaker(quantized=False).graph()
    table = layer_table(graph)
    rows = tuple(row for row in table.rows if row.onnx_nodes != ("b1/fc",))
    with_fp8 = (*rows, replace(rows[0], inputs=(replace(rows[0].inputs[0], datatype="FP8"),)))

    assert block_gemms_fp8(GraphView(graph), LayerTable(rows=rows, source="made by hand"), FP16).status is Status.PASS
    assert block_gemms_fp8(GraphView(graph), LayerTable(rows=with_fp8, source="made by hand"), FP16).status is Status.INVALID
