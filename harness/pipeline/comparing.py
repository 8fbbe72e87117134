"""Compares what two runs left. It measures nothing, and needs none of the libraries that the runs needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.pipeline.names import recipe_of
from harness.records.comparison import COMPARISON_SCHEMA, ComparedRun, Comparison
from harness.records.graph import GraphRoles
from harness.records.observations import LayerTable
from harness.records.policy import GatePolicy
from harness.records.run import EngineRow, RunRecord
from harness.store.run_directory import read_inputs_digest, read_kept, read_run, run_file

if TYPE_CHECKING:
    from harness.judge.comparison import RunEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRuns:
    """What was found, as a record, for people, for a pull request, and as a JSON document."""

    record: Comparison
    text: str
    markdown: str
    document: str


def compare_runs(a: Path, b: Path, *, gate_file: Path | None) -> ComparedRuns:
    """Compare run `b` with run `a`, which is what it is held to.

    Args:
        a, b: folders of finished runs, or their `run.json`.
        gate_file: where margins, bounds and promises are; without one, `gate.toml` in the current folder or the packaged one.

    Raises:
        UsageError: a folder holds no finished run, something in it is missing or cut, both are the same, or they share no engine.
    """
    from harness.report.comparison import comparison_text
    from harness.report.comparison_markdown import comparison_markdown
    from harness.store.codec import to_json

    record = comparison_of(a, b, policy_of(gate_file))
    return ComparedRuns(
        record=record,
        text=comparison_text(record),
        markdown=comparison_markdown(record),
        document=to_json(record).decode().rstrip(),
    )


def comparison_of(a: Path, b: Path, policy: GatePolicy) -> Comparison:
    """The record alone. Arguments and errors as above."""
    from harness.judge.comparison import compared_engines, findings_of, is_compared, summary_of

    if run_file(a).resolve() == run_file(b).resolve():
        raise UsageError(f"{a} and {b} are the same run; expected two runs; name another as RUN_B")
    first, second = read_run(a), read_run(b)
    for subject in (*first.engines, *second.engines, *first.verdicts, *second.verdicts):
        if subject.backend is not None:
            recipe_of(subject.recipe)
    graphs = _graphs(a, first) | _graphs(b, second)
    engines = compared_engines(_evidence(a, first, graphs), _evidence(b, second, graphs), policy)
    if not any(map(is_compared, engines)):
        raise UsageError(_nothing_shared(a, b, first, second))
    findings = findings_of(engines, policy)
    return Comparison(
        schema=COMPARISON_SCHEMA,
        a=_compared_run(a, first),
        b=_compared_run(b, second),
        engines=engines,
        findings=findings,
        summary=summary_of(engines, findings),
    )


def policy_of(gate_file: Path | None) -> GatePolicy:
    """What `gate_file` says, else `gate.toml` in the current folder, on top of the packaged one."""
    from harness.store.gatefile import default_gate_file, read_gate_file
    from harness.store.packaged import packaged

    return read_gate_file(gate_file or default_gate_file(Path.cwd()), read_gate_file(packaged("gate.toml")))


def _evidence(path: Path, run: RunRecord, graphs: Mapping[str | None, GraphRoles]) -> RunEvidence:
    from harness.judge.comparison import RunEvidence, key_of
    from harness.judge.node_changes import EngineNodes

    tables = {key_of(row): (row, read_kept(path, row.layer_table, LayerTable)) for row in run.engines if row.layer_table}
    nodes = {key: EngineNodes(table, graphs[row.onnx_sha256]) for key, (row, table) in tables.items() if row.onnx_sha256 in graphs}
    return RunEvidence(run=run, nodes=nodes, inputs=_inputs(path, run.engines))


def _graphs(path: Path, run: RunRecord) -> dict[str | None, GraphRoles]:
    """By digest of the ONNX file, which decides what its nodes are: what one run says of a file holds for the other."""
    return {row.onnx_sha256: read_kept(path, row.graph, GraphRoles) for row in run.engines if row.graph}


def _inputs(path: Path, engines: tuple[EngineRow, ...]) -> Mapping[tuple[str, str, str | None, str | None], str]:
    from harness.judge.comparison import key_of
    from harness.records.spec import EncoderSpec, EngineSpec

    found: dict[tuple[str, str, str | None, str | None], str] = {}
    for row in engines:
        spec = EngineSpec(encoder=EncoderSpec.parse(row.encoder), recipe=recipe_of(row.recipe), backend=row.backend, target=row.target)
        digest = read_inputs_digest(path, f"{spec.id.replace('/', '-')}-embeddings")
        if digest is not None:
            found[key_of(row)] = digest
    return found


def _compared_run(path: Path, run: RunRecord) -> ComparedRun:
    versions: dict[str, set[str]] = {}
    for row in run.engines:
        versions.setdefault(row.backend, set()).add(row.backend_version)
    return ComparedRun(
        path=str(path),
        started=run.started,
        exit_code=run.exit_code,
        outcome=run.outcome,
        cpu_model=run.machine.cpu_model,
        backends={backend: ", ".join(sorted(found)) for backend, found in sorted(versions.items())},
    )


def _nothing_shared(a: Path, b: Path, first: RunRecord, second: RunRecord) -> str:
    names = [", ".join(sorted({_name(row) for row in run.engines})) or "none" for run in (first, second)]
    return f"{a} and {b} share no engine to compare: A has {names[0]}; B has {names[1]}; expected one of the same weights and batch in both"


def _name(row: EngineRow) -> str:
    compiler = "/".join(filter(None, (row.backend, row.target)))
    return f"{row.encoder} {row.recipe} {compiler} {row.weights} {row.batch}"
