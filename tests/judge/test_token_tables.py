"""Token tables: found by what reads them, and judged as their policy says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.onnx_checks.all_checks import Evidence, all_findings
from harness.judge.structure import GraphView
from harness.judge.token_tables import stored_weights, token_tables
from harness.records.graph import OnnxConstant, OnnxGraph, OnnxNode, WeightStatistics
from harness.records.policy import Kept, NodeKind, RecipePolicy
from harness.records.verdict import Severity
from tests.helpers.graphs import GraphMaker

COMPACT = RecipePolicy(
    severity=Severity.GATE,
    block_gemms_fp8=True,
    fused_attention=True,
    unfused_qdq=0,
    reason="test",
    attention_fp8=True,
    embedding_fp8=True,
)
ATTENTION = replace(COMPACT, embedding_fp8=False, kept_fp16=(Kept(kind=NodeKind.EMBEDDING, reason="No product gains from it."),))
SOUND = WeightStatistics(largest_code=448, nan_codes=0, clipped=0, zeroed=0)


def text(**choices) -> OnnxGraph:
    return GraphMaker(attention_qdq=True, table=True, **choices).graph()


def found(graph: OnnxGraph, policy: RecipePolicy) -> set[tuple[str, str | None]]:
    """Check and node of what is found, without what the small maker does not write: zero points, and softmax scales of 1/448."""
    seen = Evidence(view=GraphView(graph), statistics=dict.fromkeys(graph.constants, SOUND))
    findings = [one for one in all_findings(seen, policy) if one.check != "O1" and "softmax scale" not in one.message]
    return {(one.check, one.node) for one in findings}


def with_node(graph: OnnxGraph, node: OnnxNode) -> OnnxGraph:
    return replace(graph, nodes=tuple(node if one.name == node.name else one for one in graph.nodes))


@pytest.mark.parametrize("is_fp8", [False, True])
def test_a_table_is_what_an_input_gathers_rows_from(is_fp8):
    view = GraphView(text(table_fp8=is_fp8))

    assert {name: table.constant.name for name, table in token_tables(view).items()} == {"gather": "table"}
    assert set(stored_weights(view)) == {*view.weight_gemms, "gather"}


def test_an_image_tower_has_no_table():
    assert token_tables(GraphView(GraphMaker().graph())) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": ("table", "positions")},  # what is gathered by a constant is no table of tokens
        {"inputs": ("b0/add_2:0", "tokens")},  # an activation is none either
        {"attributes": {"axis": 1}},
    ],
    ids=["constant indices", "an activation", "along columns"],
)
def test_another_gather_is_no_token_table(change):
    graph = text()
    gather = next(node for node in graph.nodes if node.name == "gather")
    positions = OnnxConstant(name="positions", dtype="INT64", shape=(5,), nbytes=40)
    changed = replace(with_node(graph, replace(gather, **change)), constants={**graph.constants, "positions": positions})

    assert token_tables(GraphView(changed)) == {}


def test_each_table_is_clean_under_its_own_policy():
    assert found(text(table_fp8=True), COMPACT) == found(text(), ATTENTION) == set()


def test_a_table_in_fp8_is_found_where_it_is_kept():
    assert found(text(table_fp8=True), ATTENTION) == {("O10", "gather"), ("O12", "table_dq")}


def test_a_table_in_fp16_is_found_where_fp8_is_promised():
    assert found(text(), COMPACT) == {("O12", "gather")}


def test_codes_that_are_gathered_before_they_are_de_quantized_are_found():
    graph = text(table_fp8=True)
    gather = next(node for node in graph.nodes if node.name == "gather")
    norm = next(node for node in graph.nodes if "gather:0" in node.inputs)
    dequantize = OnnxNode(name="late", op_type="DequantizeLinear", domain="", inputs=("codes", "table_scale"), outputs=(gather.outputs[0],))
    late = (replace(gather, inputs=("table", "tokens"), outputs=("codes",)), dequantize)
    nodes = [one for one in graph.nodes if one.name not in ("table_dq", "gather")]

    checks = found(replace(graph, nodes=(*late, *nodes)), COMPACT)

    assert norm.name == "b0/ln_1"
    assert {("O4", "late"), ("O12", "gather")} <= checks


def test_a_table_that_is_quantized_at_build_time_is_found():
    graph = text(table_fp8=True)
    half = OnnxConstant(name="half", dtype="FLOAT16", shape=(100, 8), nbytes=1600)
    quantize = OnnxNode(name="table_q", op_type="QuantizeLinear", domain="", inputs=("half", "table_scale"), outputs=("table",))
    constants = {**{name: one for name, one in graph.constants.items() if name != "table"}, "half": half}

    checks = found(replace(graph, nodes=(quantize, *graph.nodes), constants=constants), COMPACT)

    assert ("O4", "gather") in checks


@pytest.mark.parametrize(("axis", "elements", "is_clean"), [(0, 100, True), (1, 8, False), (0, 8, False)])
def test_a_table_may_have_a_scale_a_row_and_none_a_column(axis, elements, is_clean):
    graph = text(table_fp8=True)
    dequantize = next(node for node in graph.nodes if node.name == "table_dq")
    scale = OnnxConstant(name="table_scale", dtype="FLOAT16", shape=(elements,), nbytes=2 * elements)
    changed = with_node(graph, replace(dequantize, attributes={"axis": axis}))

    checks = found(replace(changed, constants={**graph.constants, "table_scale": scale}), COMPACT)

    assert checks == (set() if is_clean else {("O5", "table_dq")})


@pytest.mark.parametrize(("more", "policy", "is_clean"), [(0, COMPACT, True), (0, ATTENTION, False), (800, COMPACT, False)])
def test_the_size_of_the_file_counts_the_table_as_its_policy_stores_it(more, policy, is_clean, monkeypatch):
    monkeypatch.setattr("harness.judge.onnx_checks.size.NODE_BYTES", 0)
    graph = text(table_fp8=True, blocks=3)
    predicted = 3 * 768 + 800 + 2 * 32 + 2 * sum(constant.shape == () for constant in graph.constants.values())

    checks = {check for check, _ in found(replace(graph, file_bytes=predicted + more), policy)}

    assert ("O14" not in checks) == is_clean
