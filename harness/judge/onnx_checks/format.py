"""O1: the file says FP8 in the words that every builder reads, and its nodes can be told apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from harness.judge.onnx_checks.finding import Findings, finding, quantizes
from harness.judge.onnx_graph import FP8
from harness.judge.structure import QDQ, QUANTIZE, GraphView
from harness.records.graph import OnnxGraph, OnnxNode
from harness.records.policy import RecipePolicy

MINIMUM_OPSET = 20  # what Model Optimizer exports; FP8 came with 19, scales of FP16 beside it are read from 20 on


def standard_format(view: GraphView, policy: RecipePolicy) -> Findings:
    """O1: a whole graph, opset, operators of the standard domain, an FP8 zero point on every QuantizeLinear."""
    broken = _broken(view, policy)
    if not quantizes(view, policy):
        return broken
    return (*broken, *_opset(view, policy), *_domains(view, policy), *_zero_points(view, policy))


def node_names(graph: OnnxGraph, view: GraphView, policy: RecipePolicy) -> Findings:
    """O1: every node has a name of its own. An engine names the nodes it carries; without names none of them can be proven.

    Args:
        graph: as it was read.
        view: of `distinct(graph)`.
    """
    names = Counter(node.name for node in graph.nodes)
    wrong = [(node, own) for node, own in zip(graph.nodes, view.graph.nodes, strict=True) if not node.name or names[node.name] > 1]
    if not wrong:
        return ()
    node, own = wrong[0]
    found = "a node without a name" if not node.name else f"the name {node.name!r} {names[node.name]} times"
    why = f"an engine is judged by the nodes it names ({len(wrong)} such nodes); name each one and export again"
    return (finding("O1", policy, view, own, found=found, expected="a name of its own for every node", why=why),)


def distinct(graph: OnnxGraph) -> OnnxGraph:
    """The graph with a name for every node: empty and repeated ones get their operator and place."""
    names = Counter(node.name for node in graph.nodes)
    if "" not in names and len(names) == len(graph.nodes):
        return graph
    renamed = (
        node if node.name and names[node.name] == 1 else replace(node, name=f"{node.name or node.op_type}#{index}")
        for index, node in enumerate(graph.nodes)
    )
    return replace(graph, nodes=tuple(renamed))


def _broken(view: GraphView, policy: RecipePolicy) -> Findings:
    """The first node that reads what nothing before it makes."""
    known = {port.name for port in view.graph.inputs} | set(view.graph.constants) | {""}
    for node in view.graph.nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing:
            why = "the graph is torn or out of order, and no builder takes it; export it again"
            expected = "inputs that an earlier node makes"
            return (finding("O1", policy, view, node, found=f"it reads {missing[0]}, which nothing makes", expected=expected, why=why),)
        known.update(node.outputs)
    return ()


def _opset(view: GraphView, policy: RecipePolicy) -> Findings:
    opset = view.graph.opsets.get("", 0)
    if opset >= MINIMUM_OPSET:
        return ()
    why = "older opsets lack FP8, or FP16 scales beside it; export with a newer opset"
    return (finding("O1", policy, view, None, found=f"opset {opset}", expected=f"at least {MINIMUM_OPSET}", why=why),)


def _domains(view: GraphView, policy: RecipePolicy) -> Findings:
    return tuple(
        finding(
            "O1",
            policy,
            view,
            node,
            found=f"{node.op_type} of domain {node.domain or 'ai.onnx'!r}",
            expected="QuantizeLinear or DequantizeLinear of ONNX itself",
            why="other runtimes do not know it; move it to the standard domain",
        )
        for node in view.of_types(QDQ)
        if node.domain or node.op_type.startswith("TRT_")
    )


def _zero_points(view: GraphView, policy: RecipePolicy) -> Findings:
    wrong = ((node, found) for node in view.of_types(QUANTIZE) if (found := _not_fp8(view, node)) is not None)
    why = "the zero point's type is what makes a QuantizeLinear FP8; without one it means UINT8"
    return tuple(finding("O1", policy, view, node, found=found, expected=f"a zero point of {FP8}", why=why) for node, found in wrong)


def _not_fp8(view: GraphView, node: OnnxNode) -> str | None:
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    constant = view.constant_behind(name) if name else None
    if constant is None:
        return "no constant zero point"
    return None if constant.dtype == FP8 else f"a zero point of {constant.dtype}"
