"""Checks of an exported graph's blocks do not pass a graph whose blocks they cannot all have seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.onnx_checks.all_checks import CHECKS, Evidence, all_findings, judgement
from harness.judge.structure import GraphView
from harness.records.verdict import Status
from tests.helpers.engine_tables import promise
from tests.helpers.graphs import GraphMaker
from tests.helpers.trunks import TrunkMaker

PARTS = ("q", "k", "v", "out", "fc", "proj")


@pytest.mark.parametrize("lost", [("b3",), ("b2", "b3")])
def test_blocks_left_in_half_precision_whose_attention_is_not_recognised_do_not_pass(lost):
    graph = GraphMaker(blocks=4, float_gemms=frozenset(f"{block}/{part}" for block in lost for part in PARTS)).graph()
    unknown = {f"{block}/softmax" for block in lost}
    nodes = tuple(replace(node, op_type="Sigmoid") if node.name in unknown else node for node in graph.nodes)
    view = GraphView(replace(graph, nodes=nodes))

    found = [one for one in all_findings(Evidence(view=view), promise("linear")) if one.check == "O2"]

    assert [(one.node, one.found) for one in found] == [(None, view.irregularity)]
    assert judgement("O2", Evidence(view=view), promise("linear")).status is Status.FAIL


def test_whole_blocks_pass_the_check_of_their_products():
    assert CHECKS["O2"](Evidence(view=GraphView(GraphMaker().graph())), promise("linear")) == ()


@pytest.mark.parametrize("maker", [TrunkMaker(), GraphMaker(blocks=1)], ids=["convolutions", "one block"])
def test_blocks_that_nothing_is_compared_with_are_not_said_to_be_alike(maker):
    answer = judgement("O11", Evidence(view=GraphView(maker.graph())), promise("linear"))

    assert (answer.status, answer.n, answer.findings) == (Status.INVALID, 0, ())


def test_blocks_that_look_alike_are_counted():
    answer = judgement("O11", Evidence(view=GraphView(GraphMaker().graph())), promise("linear"))

    assert (answer.status, answer.n) == (Status.PASS, 3)
