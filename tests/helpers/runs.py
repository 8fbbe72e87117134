"""Runs made by hand, as records and as folders that look like those a gate leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.judge.comparison import RunEvidence, key_of
from harness.judge.node_changes import EngineNodes
from harness.judge.roles import roles_of
from harness.judge.structure import GraphView
from harness.records.gate_lines import BOUNDED, Bound, Margin
from harness.records.graph import OnnxGraph
from harness.records.machine import Machine
from harness.records.observations import LayerTable
from harness.records.policy import Defaults, EvaluationRows, GatePolicy, RecipePolicy
from harness.records.run import EngineRow, RunRecord
from harness.records.verdict import Direction, Severity, Status, Suite, Verdict
from harness.store.codec import to_json
from harness.store.run_directory import RunDirectory
from tests.helpers.graphs import GraphMaker, layer_table

GRAPH = GraphMaker().graph()
TABLE = layer_table(GRAPH)
MACHINE = Machine(system="Linux", architecture="x86_64", cpu_model="a CPU", cpu_count=2, memory_bytes=None, python="3.11")
ENGINE = EngineRow(
    encoder="ViT-B-32/image",
    recipe="linear",
    backend="tensorrt_rtx",
    backend_version="1.7",
    target="SM89",
    batch="1/8/64",
    weights="seeded:0",
    weights_bytes=1000,
    plan_bytes=2000,
    activation_bytes=500,
    onnx_bytes=3000,
    onnx_sha256="a" * 64,
    build_seconds=2.5,
    cache="miss",
    layer_table="layers/engine.json",
    graph="graphs/graph.json",
)
PROMISE = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="for tests")


def policy(**margins: float) -> GatePolicy:
    """Bounds and margins to be checked by hand; `modelopt` is only reported on."""
    sizes = {"weights_bytes": 0.01, "plan_bytes": 0.01, "latency_ratio": 0.5, "centred_snr_db": 3.0, **margins}
    absolute = ("centred_snr_db",)
    limits = {"centred_snr_db": 10.0, "cosine_min": 0.9, "recall_at_1_drop": 1.0, "zero_shot_agreement": 0.98}
    return GatePolicy(
        defaults=Defaults(encoders=("a/image",), recipes=("linear",), backends=("fake",), targets=()),
        evaluation_rows=EvaluationRows(seeded=8, trained=8),
        policies={"linear": PROMISE, "fp16": PROMISE, "modelopt": replace(PROMISE, severity=Severity.REPORT)},
        bounds=tuple(Bound(metric=metric, limit=limit, direction=BOUNDED[metric], reason="for tests") for metric, limit in limits.items()),
        margins=tuple(
            Margin(metric=metric, reason="for tests", **{"absolute" if metric in absolute else "relative": size})
            for metric, size in sizes.items()
        ),
    )


def gate(metric: str, observed: float | None, status: Status = Status.PASS, suite: Suite = Suite.BENCHMARK, **changes) -> Verdict:
    verdict = Verdict(
        suite=suite,
        encoder=ENGINE.encoder,
        recipe=ENGINE.recipe,
        backend=ENGINE.backend,
        target=ENGINE.target,
        metric=metric,
        observed=observed,
        bound=None,
        unit="",
        direction=Direction.CEILING,
        n=64,
        status=status,
        reason="",
    )
    return replace(verdict, **changes)


def run(*engines: EngineRow, verdicts: tuple[Verdict, ...] = (), machine: Machine = MACHINE) -> RunRecord:
    return RunRecord(
        started="2026-11-23T15:04:05+00:00",
        finished="2026-11-23T15:05:05+00:00",
        command=("enginegate", "gate"),
        exit_code=0,
        outcome=Status.PASS,
        machine=machine,
        engines=engines,
        verdicts=verdicts,
    )


def nodes(table: LayerTable = TABLE, graph: OnnxGraph = GRAPH) -> EngineNodes:
    return EngineNodes(table, roles_of(GraphView(graph)))


def evidence(record: RunRecord, table: LayerTable | None = TABLE) -> RunEvidence:
    """A run whose engines all have the same layers; None: that kept none."""
    return RunEvidence(run=record, nodes={key_of(row): nodes(table) for row in record.engines} if table else {})


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Writes a finished run."""

    table: LayerTable | None = TABLE
    inputs: str | None = None

    def write(self, path: Path, *engines: EngineRow, verdicts: tuple[Verdict, ...] = ()) -> Path:
        folder = RunDirectory.shared(path)
        for row in engines:
            if row.layer_table and self.table:
                folder.save_text(row.layer_table, to_json(self.table).decode())
            if row.graph:
                folder.save_text(row.graph, to_json(roles_of(GraphView(GRAPH))).decode())
            if self.inputs:
                name = f"{row.encoder}-{row.recipe}-{row.backend}-{row.target}-embeddings".replace("/", "-")
                folder.save_arrays(name, rows=np.zeros((1, 1)), inputs_digest=np.asarray(self.inputs))
        folder.finish(run(*engines, verdicts=verdicts))
        return path
