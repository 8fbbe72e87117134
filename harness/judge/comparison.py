"""Puts two runs side by side: engines by what they are, their nodes by name, their figures under the margins that gates have.

Only like is compared with like. Engines of other weights or another batch profile are named and left alone; another ONNX file of the same
encoder and recipe is said, and then bytes are held to the margins and nodes matched by name, as the gates do with a baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.judge.figure_changes import EngineSeen, GateKey, compared_metrics, figure_changes, status_changes
from harness.judge.node_changes import CHECK, EngineNodes, finding_of, node_changes
from harness.records.comparison import (
    ComparisonFinding,
    ComparisonSummary,
    Effect,
    EngineComparison,
    EngineSide,
    FigureChange,
    NodeChange,
    Presence,
)
from harness.records.machine import class_of
from harness.records.policy import GatePolicy
from harness.records.run import EngineRow, RunRecord
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Severity, Status, Verdict, exit_code

EngineKey = tuple[str, str, str | None, str | None]  # encoder, recipe, backend, target

UNKNOWN = "unknown"
_OUTCOMES = {0: Status.PASS, 1: Status.FAIL, 3: Status.INCONCLUSIVE, 4: Status.INVALID}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """One run with what its folder holds.

    Attributes:
        nodes: of the engines whose layers and graph it kept.
        inputs: digest of the inputs that engines were run on, where it kept their embeddings.
    """

    run: RunRecord
    nodes: Mapping[EngineKey, EngineNodes] = field(default_factory=dict[EngineKey, EngineNodes])
    inputs: Mapping[EngineKey, str] = field(default_factory=dict[EngineKey, str])


def key_of(subject: EngineRow | Verdict) -> EngineKey:
    """By what engines of two runs are matched; batch and weights must agree as well."""
    return (subject.encoder, subject.recipe, subject.backend, subject.target)


def compared_engines(a: RunEvidence, b: RunEvidence, policy: GatePolicy) -> tuple[EngineComparison, ...]:
    """Every engine of both runs, in the order of their names.

    Raises:
        UsageError: a name in them is unknown to this version.
    """
    first, second = _seen(a), _seen(b)
    keys = sorted({**first, **second}, key=lambda key: tuple(part or "" for part in key))
    return tuple(_engine(key, first.get(key), second.get(key), a.nodes.get(key), b.nodes.get(key), policy) for key in keys)


def is_compared(engine: EngineComparison) -> bool:
    """Whether both runs have it, of the same weights and batch profile."""
    return engine.presence is Presence.BOTH and not _unlike(engine.a, engine.b)


def findings_of(engines: Sequence[EngineComparison], policy: GatePolicy) -> tuple[ComparisonFinding, ...]:
    """Why B is worse than A, or cannot be told from it, in the order of `engines`."""
    return tuple(finding for engine in engines for finding in _findings(engine, _severity(engine, policy)))


def summary_of(engines: Sequence[EngineComparison], findings: Sequence[ComparisonFinding]) -> ComparisonSummary:
    """The comparison in figures, and its exit code: as a gate's, of the findings that gate."""
    gates = [finding.status for finding in findings if finding.severity is Severity.GATE]
    effects = [change.effect for engine in engines for change in (*engine.figures, *engine.statuses, *engine.nodes)]
    code = exit_code(gates)
    return ComparisonSummary(
        engines=sum(is_compared(engine) and engine.backend is not None for engine in engines),
        only_a=sum(engine.presence is Presence.ONLY_A and engine.backend is not None for engine in engines),
        only_b=sum(engine.presence is Presence.ONLY_B and engine.backend is not None for engine in engines),
        changed_nodes=sum(len({change.node for change in engine.nodes}) for engine in engines),
        better=effects.count(Effect.BETTER),
        worse=effects.count(Effect.WORSE),
        gate=len(gates),
        report=len(findings) - len(gates),
        outcome=_OUTCOMES[code],
        exit_code=code,
    )


# -- engines ---------------------------------------------------------------------------------------------------------------------


def _seen(evidence: RunEvidence) -> dict[EngineKey, EngineSeen]:
    rows = {key_of(row): row for row in evidence.run.engines}
    gates: dict[EngineKey, dict[GateKey, Verdict]] = {}
    for verdict in evidence.run.verdicts:
        gates.setdefault(key_of(verdict), {})[verdict.suite, verdict.metric] = verdict
    return {
        key: EngineSeen(
            row=rows.get(key),
            gates=gates.get(key, {}),
            cpu_model=evidence.run.machine.cpu_model,
            machine_class=class_of(key[3], evidence.run.machine.architecture, rows[key].device if key in rows else None),
            inputs=evidence.inputs.get(key),
        )
        for key in {**rows, **gates}
    }


def _engine(
    key: EngineKey, a: EngineSeen | None, b: EngineSeen | None, nodes_a: EngineNodes | None, nodes_b: EngineNodes | None, policy: GatePolicy
) -> EngineComparison:
    side_a, side_b = _side(a, nodes_a), _side(b, nodes_b)
    sides = EngineComparison(
        encoder=key[0],
        recipe=key[1],
        backend=key[2],
        target=key[3],
        batch=_agreed_batch(side_a, side_b),
        presence=Presence.ONLY_B if a is None else Presence.ONLY_A if b is None else Presence.BOTH,
        a=side_a,
        b=side_b,
    )
    if a is None or b is None:
        return sides
    if unlike := _unlike(side_a, side_b):
        return replace(sides, not_compared=unlike)
    figures = tuple(figure_changes(a, b, _spec(key), policy))
    return replace(
        sides,
        not_compared=tuple(_unknown_nodes(a, b, nodes_a, nodes_b)),
        remarks=(*_remarks(a, b), *_unmatched(nodes_a, nodes_b)),
        compared_nodes=len(nodes_a.nodes.keys() & nodes_b.nodes.keys()) if nodes_a and nodes_b else 0,
        figures=figures,
        statuses=tuple(status_changes(a, b, compared_metrics(a, b, figures))),
        nodes=node_changes(nodes_a, nodes_b) if nodes_a and nodes_b else (),
    )


def _side(seen: EngineSeen | None, nodes: EngineNodes | None) -> EngineSide | None:
    if seen is None or seen.row is None:
        return None
    row = seen.row
    return EngineSide(
        backend_version=row.backend_version,
        batch=row.batch,
        weights=row.weights,
        onnx_sha256=row.onnx_sha256,
        weights_bytes=row.weights_bytes,
        plan_bytes=row.plan_bytes,
        activation_bytes=row.activation_bytes,
        layers=len(nodes.table.rows) if nodes else None,
    )


def _agreed_batch(a: EngineSide | None, b: EngineSide | None) -> str | None:
    batches = {side.batch for side in (a, b) if side is not None}
    return batches.pop() if len(batches) == 1 else None


def _unlike(a: EngineSide | None, b: EngineSide | None) -> tuple[str, ...]:
    """Why two engines of one name must not be compared, in words."""
    if a is None or b is None:
        return ()
    pairs = {"weights": (a.weights, b.weights), "batch profile": (a.batch, b.batch)}
    return tuple(f"{what} {first} in A, {second} in B" for what, (first, second) in pairs.items() if first != second)


def _unknown_nodes(a: EngineSeen, b: EngineSeen, nodes_a: EngineNodes | None, nodes_b: EngineNodes | None) -> Iterator[str]:
    """Why nodes are not compared, though one of the runs could."""
    if a.row is None or b.row is None or not (a.row.layer_table or b.row.layer_table):
        return
    for name, row, nodes in (("A", a.row, nodes_a), ("B", b.row, nodes_b)):
        if not row.layer_table:
            yield f"nodes: run {name} kept no layer table"
        elif nodes is None:
            yield f"nodes: run {name} does not say what they are; an older enginegate made it; run it again"
    if nodes_a is None or nodes_b is None:
        return
    if not nodes_a.nodes:
        yield "nodes: what run A keeps of the graph lists none; run it again"
    if lost := nodes_a.products_beyond(nodes_b):
        words = f"{len(lost)} of the products and softmaxes of A have no counterpart of their name and place in B"
        yield f"nodes: {words}, first {lost[0]}; export both graphs alike"


def _remarks(a: EngineSeen, b: EngineSeen) -> Iterator[str]:
    if a.row is not None and b.row is not None and a.row.onnx_sha256 != b.row.onnx_sha256:
        yield "made from another ONNX file: bytes are held to the margins, nodes are matched by name"
    if a.row is not None and b.row is not None and a.row.options.in_words != b.row.options.in_words:
        asked = (row.options.in_words or "nothing" for row in (a.row, b.row))
        yield "builders were asked {} in A, {} in B beside the graph".format(*asked)
    for name, here, there in (("A", a.row, b.row), ("B", b.row, a.row)):
        if here is None and there is not None:
            yield f"run {name} left no engine, only gates"


def _unmatched(a: EngineNodes | None, b: EngineNodes | None) -> Iterator[str]:
    """How many nodes have no counterpart of their name, so that nothing is said of them."""
    if a is None or b is None or a.nodes.keys() == b.nodes.keys():
        return
    lone = [len(one.nodes.keys() - other.nodes.keys()) for one, other in ((a, b), (b, a))]
    yield f"nodes without a counterpart of their name: {lone[0]} of A, {lone[1]} of B"


def _spec(key: EngineKey) -> EngineSpec | None:
    """The engine as gate files select it; None for gates of the exported graph."""
    encoder, recipe, backend, target = key
    if backend is None:
        return None
    return EngineSpec(encoder=EncoderSpec.parse(encoder), recipe=Recipe(recipe), backend=backend, target=target)


# -- findings --------------------------------------------------------------------------------------------------------------------


def _severity(engine: EngineComparison, policy: GatePolicy) -> Severity:
    promise = policy.policies.get(engine.recipe)
    return promise.severity if promise is not None else Severity.GATE


def _findings(engine: EngineComparison, severity: Severity) -> Iterator[ComparisonFinding]:
    for words in engine.not_compared:
        yield _finding(engine, severity, CHECK, Status.INCONCLUSIVE, ("not compared", "two like engines", f"not compared: {words}"))
    for node in engine.nodes:
        if node.effect is Effect.WORSE:
            told = finding_of(node, severity)
            yield _finding(engine, severity, CHECK, Status.FAIL, (told.found, told.expected, told.message), node)
        elif node.effect is Effect.UNKNOWN:
            words = f"{node.node}: {node.aspect} was {node.a}, is {node.b} in B: cannot judge"
            yield _finding(engine, severity, CHECK, Status.INVALID, (node.b, node.a, words), node)
    for figure in engine.figures:
        if figure.effect in (Effect.WORSE, Effect.UNKNOWN):
            status = Status.FAIL if figure.effect is Effect.WORSE else Status.INCONCLUSIVE
            yield _finding(engine, severity, figure.metric, status, _figure_words(figure))
    told_figures = {figure.metric for figure in engine.figures if figure.effect is Effect.WORSE}
    for gate in engine.statuses:
        if gate.effect in (Effect.WORSE, Effect.UNKNOWN) and gate.metric not in told_figures and gate.b is not None:
            words = (gate.b, gate.a or "not judged", f"{gate.a} in A, {gate.b} in B")
            status = gate.b if gate.b in (Status.FAIL, Status.INVALID) else Status.INCONCLUSIVE
            yield _finding(engine, severity, gate.metric, status, words)


def _figure_words(figure: FigureChange) -> tuple[str, str, str]:
    a, b = (UNKNOWN if value is None else f"{value:,.6g}" if value % 1 else f"{value:,.0f}" for value in (figure.a, figure.b))
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{b}{unit}", f"{a}{unit}", f"{a}{unit} in A, {b}{unit} in B ({figure.reason})"


def _finding(
    engine: EngineComparison, severity: Severity, check: str, status: Status, words: tuple[str, str, str], node: NodeChange | None = None
) -> ComparisonFinding:
    found, expected, message = words
    return ComparisonFinding(
        encoder=engine.encoder,
        recipe=engine.recipe,
        backend=engine.backend,
        target=engine.target,
        check=check,
        status=status,
        severity=severity,
        node=node.node if node else None,
        block=node.block if node else None,
        found=found,
        expected=expected,
        message=message,
    )
