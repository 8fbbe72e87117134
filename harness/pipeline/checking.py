"""Checks one ONNX file, whoever made it, against what a recipe promises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pipeline.evidence import graph_evidence
from harness.pipeline.names import recipe_of
from harness.records.findings import FINDINGS_SCHEMA, GraphFindings
from harness.records.policy import RecipePolicy
from harness.report.findings import findings_text
from harness.store.codec import to_json

if TYPE_CHECKING:
    from harness.judge.onnx_checks.all_checks import Evidence


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
    from harness.judge.onnx_checks.all_checks import all_findings, summary_of, why_not_judged

    promise = _promise(recipe_of(policy), gate_file)
    seen = _evidence(model, reference)
    findings = all_findings(seen, promise)
    record = GraphFindings(
        schema=FINDINGS_SCHEMA,
        model=str(model),
        policy=policy,
        summary=summary_of(seen.view, findings),
        findings=findings,
        not_judged=why_not_judged(seen),
    )
    return CheckedGraph(record=record, text=findings_text(record), document=to_json(record).decode().rstrip())


def _promise(recipe: str, gate_file: Path | None) -> RecipePolicy:
    from harness.store.gatefile import default_gate_file, read_gate_file
    from harness.store.packaged import packaged

    return read_gate_file(gate_file or default_gate_file(Path.cwd()), read_gate_file(packaged("gate.toml"))).policy(recipe)


def _evidence(model: Path, reference: Path | None) -> Evidence:
    from harness.judge.onnx_checks.format import distinct
    from harness.judge.structure import GraphView
    from harness.measure.onnx_graph import read_onnx_graph

    graph = read_onnx_graph(model)
    before = GraphView(distinct(read_onnx_graph(reference))) if reference else None
    return graph_evidence(GraphView(distinct(graph)), reference=before, as_read=graph)
