from dataclasses import replace

import pytest

from harness.judge.engine_flops import fp8_flop_share
from harness.judge.flops import product_flops, products
from harness.judge.structure import GraphView
from harness.records.graph import OnnxConstant, OnnxGraph, OnnxNode
from harness.records.observations import LayerTable
from harness.records.policy import Kept, NodeKind, RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker, layer_table, ports

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")
FP8 = ("FP8", "FP8", "FP8")

GRAPH = GraphMaker(attention_qdq=True).graph()
VIEW = GraphView(GRAPH)

# By hand, for one row of 5 tokens and width 8: a block has four 8x8, one 8x32 and one 32x8 weight GEMM, and two products of
# 5x8 by 8x5. The patch embedding is 3x8, the head 8x4.
BLOCK = 2 * 5 * (4 * 64 + 2 * 256)
CORE = 2 * (2 * 5 * 5 * 8)
REST = 2 * 5 * (24 + 32)
TOTAL = 3 * (BLOCK + CORE) + REST


def share(table, view=VIEW, floor=0.9):
    return fp8_flop_share(view, table, LINEAR, floor=floor)


def test_flops_are_those_counted_by_hand():
    flops = {name: product_flops(VIEW, node) for name, node in products(VIEW).items()}

    assert (flops["patch"], flops["b0/q"], flops["b0/fc"], flops["b0/scores"], flops["b0/context"]) == (240, 640, 2560, 400, 400)
    assert sum(flops.values()) == TOTAL


def test_what_is_left_is_the_patch_embedding_and_the_head():
    judgement = share(layer_table(GRAPH, attention=FP8))

    assert judgement.status is Status.PASS
    assert judgement.observed == pytest.approx(1 - REST / TOTAL)
    assert (judgement.bound, judgement.n, judgement.findings) == (0.9, 26, ())


def test_attention_in_half_precision_takes_its_products_off():
    judgement = share(layer_table(GRAPH))

    assert judgement.observed == pytest.approx(1 - (REST + 3 * CORE) / TOTAL)


def test_attention_in_pieces_counts_where_its_products_multiply_fp8():
    table = layer_table(GRAPH, split=True)
    rows = tuple(
        replace(row, kind="gemm", inputs=(replace(row.inputs[0], datatype="FP8"),) * 2) if row.name in ("scores", "context") else row
        for row in (replace(row, name=row.name.rpartition("/")[2]) for row in table.rows)
    )

    assert share(replace(table, rows=rows)).observed == pytest.approx(1 - REST / TOTAL)
    assert share(table).observed == pytest.approx(1 - (REST + 3 * CORE) / TOTAL)


def test_the_heaviest_node_that_is_not_fp8_is_told_first():
    judgement = share(layer_table(GRAPH, attention=FP8, half=frozenset({"b1/q", "b2/proj"})), floor=0.95)

    assert judgement.status is Status.FAIL
    assert [(finding.check, finding.node, finding.block) for finding in judgement.findings][:2] == [("E3", "b2/proj", 2), ("E3", "b1/q", 1)]
    assert f"b2/proj: {2560 / TOTAL:.1%} of all FLOPs not in FP8" in judgement.reason


def keeping(*kinds):
    return replace(LINEAR, kept_fp16=tuple(Kept(kind=kind, reason="for tests") for kind in kinds))


def test_where_the_policy_keeps_more_than_the_floor_leaves_all_the_rest_must_be_fp8():
    policy = keeping(NodeKind.ATTENTION, NodeKind.PROJECTION)
    promised = pytest.approx(3 * BLOCK / TOTAL)

    kept, lost = (
        fp8_flop_share(VIEW, layer_table(GRAPH, half=half), policy, floor=0.99) for half in (frozenset[str](), frozenset({"b1/q"}))
    )

    assert (kept.status, kept.observed, kept.bound) == (Status.PASS, promised, promised)
    assert kept.reason.startswith(f"the policy keeps {1 - 3 * BLOCK / TOTAL:.1%} of the FLOPs in FP16 (attention ")
    assert (lost.status, lost.bound, lost.findings[0].node) == (Status.FAIL, promised, "b1/q")


def test_what_the_policy_keeps_does_not_lower_a_floor_that_its_promise_reaches():
    judgement = fp8_flop_share(VIEW, layer_table(GRAPH), keeping(NodeKind.ATTENTION), floor=0.5)

    assert (judgement.status, judgement.bound, judgement.reason) == (Status.PASS, 0.5, "")


def test_a_product_of_no_kind_that_the_policy_keeps_lowers_no_floor():
    assert fp8_flop_share(VIEW, layer_table(GRAPH), keeping(NodeKind.CONVOLUTION), floor=0.99).status is Status.FAIL


def test_a_product_that_no_layer_names_cannot_be_judged():
    table = layer_table(GRAPH, attention=FP8)
    rows = tuple(row for row in table.rows if "head" not in row.onnx_nodes)

    assert share(LayerTable(rows=rows, source="made by hand")).status is Status.INVALID


def test_a_graph_whose_shapes_do_not_follow_cannot_be_judged():
    view = GraphView(replace(GRAPH, tensors={name: port for name, port in GRAPH.tensors.items() if not name.startswith("b1/scores")}))

    judgement = share(layer_table(GRAPH, attention=FP8), view)

    assert (judgement.status, judgement.observed) == (Status.INVALID, None)
    assert "b1/scores" in judgement.reason


def test_a_convolution_counts_its_kernel_and_a_gemm_its_inner_size():
    nodes = (
        OnnxNode(name="conv", op_type="Conv", domain="", inputs=("image", "kernel"), outputs=("patches",)),
        OnnxNode(name="gemm", op_type="Gemm", domain="", inputs=("rows", "weight"), outputs=("result",), attributes={"transB": 1}),
    )
    constants = {
        name: OnnxConstant(name=name, dtype="FLOAT16", shape=shape, nbytes=0)
        for name, shape in (("kernel", (8, 3, 2, 2)), ("weight", (4, 6)))
    }
    shapes = {"image": (1, 3, 4, 4), "patches": (1, 8, 2, 2), "rows": (5, 6), "result": (5, 4)}
    view = GraphView(OnnxGraph(nodes=nodes, constants=constants, inputs=(), outputs=(), opsets={}, tensors=ports(shapes)))

    assert [product_flops(view, node) for node in nodes] == [2 * 8 * 4 * 12, 2 * 5 * 4 * 6]
