"""O16: what is not quantized stays as it was."""

from dataclasses import replace

from harness.judge.onnx_checks.all_checks import Evidence, judgement
from harness.judge.onnx_checks.unchanged import kept_constants, unquantized_constants
from harness.judge.structure import GraphView
from harness.records.graph import OnnxConstant
from harness.records.policy import RecipePolicy
from harness.records.verdict import Severity, Status
from tests.helpers.graphs import GraphMaker

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")
SIZES = (3, 5, 7)


def with_biases(view, digests, *, named="bias"):
    """The graph with float constants of these digests, each added to something; and what their digests are."""
    names = [f"{named}{index}" for index in range(len(digests))]
    constants = {
        name: OnnxConstant(name=name, dtype="FLOAT16", shape=(size,), nbytes=2 * size) for name, size in zip(names, SIZES, strict=False)
    }
    add, tensor = view.of_type["Add"][0], view.graph.outputs[0].name
    sums = (replace(add, name=f"/add{index}", inputs=(tensor, name), outputs=(f"sum{index}",)) for index, name in enumerate(names))
    graph = replace(view.graph, nodes=(*view.graph.nodes, *sums), constants={**view.graph.constants, **constants})
    return GraphView(graph), dict(zip(constants.values(), digests, strict=True))


def judged(own, reference):
    """Two graphs with biases of these digests, compared."""
    (view, digests), (before, theirs) = with_biases(GraphView(GraphMaker().graph()), own), with_biases(fp16(), reference, named="was")
    seen = Evidence(view=view, reference=before, digests={**_rest(view, before), **digests, **theirs})
    return judgement("O16", seen, LINEAR)


def fp16():
    return GraphView(GraphMaker(quantized=False).graph())


def _rest(view, before):
    """Constants that both graphs of the maker have are told apart by their names."""
    return {one: one.name for one in (*unquantized_constants(view).values(), *kept_constants(view, before).values())}


def test_a_graph_that_lost_nothing_passes_and_its_constants_are_counted():
    verdict = judged(("a", "b"), ("a", "b"))

    assert (verdict.status, verdict.observed) == (Status.PASS, 0)
    assert verdict.n >= 2


def test_names_and_order_of_constants_do_not_count():
    assert judged(("b", "a"), ("a", "b")).status is Status.PASS


def test_an_altered_constant_is_named_with_its_reader():
    verdict = judged(("a", "x"), ("a", "b"))

    assert verdict.status is Status.FAIL
    assert [(one.check, one.node) for one in verdict.findings] == [("O16", "/add1")]
    assert "was1 (5)" in verdict.findings[0].found


def test_a_lost_addition_is_missed_as_a_number_and_as_an_operator():
    number, operator = judged(("a",), ("a", "b")).findings

    assert "was1" in number.found
    assert (operator.found, operator.expected) == ("7 Add nodes", "8, as in the reference")


def test_equal_constants_are_counted():
    assert judged(("a", "b"), ("a", "a")).status is Status.FAIL


def test_another_activation_function_is_told():
    view, before = GraphView(GraphMaker().graph()), fp16()
    nodes = tuple(replace(node, op_type="Sigmoid") if node.op_type == "Gelu" else node for node in view.graph.nodes)
    other = GraphView(replace(view.graph, nodes=nodes))

    verdict = judgement("O16", Evidence(view=other, reference=before, digests=_rest(view, before)), LINEAR)

    assert [one.found for one in verdict.findings] == ["0 Gelu nodes", "3 Sigmoid nodes"]


def test_a_reference_of_other_weights_is_one_finding():
    (found,) = judgement("O16", Evidence(view=GraphView(GraphMaker().graph()), reference=fp16()), LINEAR).findings

    assert "other weights" in found.message


def test_a_constant_that_cannot_be_read_is_never_green():
    assert judged((None,), (None,)).status is Status.FAIL


def test_without_a_reference_the_check_says_so():
    verdict = judgement("O16", Evidence(view=GraphView(GraphMaker().graph())), LINEAR)

    assert verdict.status is Status.INVALID
    assert "before quantization" in verdict.reason
