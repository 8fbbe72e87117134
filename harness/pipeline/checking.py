"""Checks one ONNX file, whoever made it, against what a recipe promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pipeline.names import recipe_of
from harness.records.findings import FINDINGS_SCHEMA, GraphFindings
from harness.records.graph import RoundTrip, WeightStatistics
from harness.records.policy import RecipePolicy
from harness.report.findings import findings_text
from harness.store.codec import to_json

if TYPE_CHECKING:
    from harness.judge.onnx_checks.finding import Findings
    from harness.judge.structure import GraphView


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedGraph:
    """What was found, as a record, for people, and as a JSON document."""

    record: GraphFindings
    text: str
    document: str


def check_graph(model: Path, *, reference: Path | None, policy: str, gate_file: Path | None) -> CheckedGraph:
    """Check one ONNX file.

    Args:
        model: the file.
        reference: the same encoder before quantization, which what the weights lost is measured by.
        policy: name of the recipe whose promise it is held to.
        gate_file: where the promise is written; without one, `gate.toml` in the current folder or the packaged one.

    Raises:
        UsageError: a file cannot be used, or there is no such policy.
    """
    from harness.judge.onnx_checks.all_checks import summary_of

    promise = _promise(recipe_of(policy), gate_file)
    view, findings = _checked(model, reference, promise)
    record = GraphFindings(schema=FINDINGS_SCHEMA, model=str(model), policy=policy, summary=summary_of(view, findings), findings=findings)
    return CheckedGraph(record=record, text=findings_text(record), document=to_json(record).decode().rstrip())


def _promise(recipe: str, gate_file: Path | None) -> RecipePolicy:
    from harness.store.gatefile import default_gate_file, read_gate_file
    from harness.store.packaged import packaged

    return read_gate_file(gate_file or default_gate_file(Path.cwd()), read_gate_file(packaged("gate.toml"))).policy(recipe)


def _checked(model: Path, reference: Path | None, policy: RecipePolicy) -> tuple[GraphView, Findings]:
    from harness.judge.onnx_checks.all_checks import Evidence, all_findings
    from harness.judge.onnx_checks.format import distinct, node_names
    from harness.judge.structure import GraphView
    from harness.measure.onnx_graph import read_onnx_graph

    graph = read_onnx_graph(model)
    view = GraphView(distinct(graph))
    before = GraphView(distinct(read_onnx_graph(reference))) if reference else None
    trips = _trips(view, before) if before else None
    seen = Evidence(view=view, statistics=_statistics(view), reference=before, trips=trips)
    return view, (*node_names(graph, view, policy), *all_findings(seen, policy))


def _statistics(view: GraphView) -> Mapping[str, WeightStatistics | None]:
    from harness.judge.onnx_checks.weights import fp8_weights
    from harness.measure.onnx_weights import weight_statistics

    return {constant.name: weight_statistics(constant) for _, constant in fp8_weights(view)}


def _trips(view: GraphView, reference: GraphView) -> Mapping[str, RoundTrip | None]:
    from harness.judge.onnx_checks.scales import scale_of
    from harness.judge.onnx_checks.weights import originals
    from harness.measure.onnx_weights import round_trip

    trips: dict[str, RoundTrip | None] = {}
    for name, original in originals(view, reference).items():
        gemm = view.weight_products[name]
        dequantize = view.dequantized(gemm.weight)
        scale = scale_of(view, dequantize) if dequantize else None
        if dequantize is not None and scale is not None and scale.value is not None:
            axis = dequantize.attributes.get("axis", 1)
            trips[name] = round_trip(gemm.constant, scale.value, axis if isinstance(axis, int) else 1, original)
    return trips
