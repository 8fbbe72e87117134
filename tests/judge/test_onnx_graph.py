from harness.judge.onnx_graph import block_gemms_quantized, block_weights_folded
from harness.judge.structure import GraphView
from harness.records.policy import RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")
FP16 = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=False, fused_attention=True, unfused_qdq=0, reason="for tests")


def test_a_clean_quantized_graph_passes_with_all_its_gemms_counted():
    view = GraphView(GraphMaker().graph())

    quantized, folded = block_gemms_quantized(view, LINEAR), block_weights_folded(view, LINEAR)

    assert (quantized.status, quantized.observed, quantized.bound) == (Status.PASS, 18, 18)
    assert (folded.status, folded.observed, folded.bound) == (Status.PASS, 18, 18)
    assert quantized.findings == folded.findings == ()


def test_a_block_left_unquantized_fails_and_is_named():
    left = frozenset(f"b1/{part}" for part in ("q", "k", "v", "out", "fc", "proj"))

    judgement = block_gemms_quantized(GraphView(GraphMaker(float_gemms=left).graph()), LINEAR)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.FAIL, 12, 18)
    assert {finding.block for finding in judgement.findings} == {1}
    assert "b1/q" in judgement.reason


def test_a_weight_left_unfolded_fails_its_own_check_and_no_other():
    view = GraphView(GraphMaker(unfolded=frozenset({"b2/fc"})).graph())

    folded = block_weights_folded(view, LINEAR)

    assert (folded.status, folded.observed) == (Status.FAIL, 17)
    assert [finding.node for finding in folded.findings] == ["b2/fc"]
    assert "not folded" in folded.findings[0].found
    assert block_gemms_quantized(view, LINEAR).status is Status.PASS


def test_a_recipe_without_quantization_refuses_a_quantized_graph():
    judgement = block_gemms_quantized(GraphView(GraphMaker().graph()), FP16)

    assert (judgement.status, judgement.observed, judgement.bound) == (Status.FAIL, 18, 0)
    assert "should have 0" in judgement.reason


def test_a_recipe_without_quantization_accepts_a_plain_graph():
    view = GraphView(GraphMaker(quantized=False).graph())

    assert block_gemms_quantized(view, FP16).status is Status.PASS
    assert block_weights_folded(view, FP16).status is Status.PASS


def test_a_graph_without_blocks_cannot_be_judged():
    judgement = block_gemms_quantized(GraphView(GraphMaker(blocks=0).graph()), LINEAR)

    assert judgement.status is Status.INVALID
    assert judgement.observed is None
    assert "cannot judge" in judgement.reason
