"""Two runs: what makes the second worse, what only differs, and what is never compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.comparison import RunEvidence, compared_engines, findings_of, is_compared, key_of, summary_of
from harness.judge.node_changes import EngineNodes
from harness.records.comparison import ComparisonSummary, Effect, EngineComparison, Presence
from harness.records.graph import GraphRoles
from harness.records.run import EngineRow, RunRecord
from harness.records.spec import BuildOptions
from harness.records.verdict import Severity, Status, Suite, Verdict
from tests.helpers.graphs import GraphMaker, layer_table
from tests.helpers.runs import ENGINE, GRAPH, MACHINE, TABLE, evidence, gate, nodes, policy, run

OTHER_GRAPH = "b" * 64
NEWER = replace(ENGINE, backend_version="1.8")
HALF = layer_table(GRAPH, half=frozenset({"b1/fc"}))


def compared(a: RunEvidence, b: RunEvidence, **margins: float) -> tuple[tuple[EngineComparison, ...], ComparisonSummary, list[str]]:
    """Engines, summary, and for each finding its status and check."""
    rules = policy(**margins)
    engines = compared_engines(a, b, rules)
    findings = findings_of(engines, rules)
    return engines, summary_of(engines, findings), [f"{finding.status} {finding.check}" for finding in findings]


def rows(a: EngineRow, b: EngineRow, **margins: float) -> tuple[EngineComparison, ComparisonSummary, list[str]]:
    engines, summary, findings = compared(evidence(run(a)), evidence(run(b)), **margins)
    (engine,) = engines
    return engine, summary, findings


def gates(a: Verdict, b: Verdict, *, processor: str = MACHINE.cpu_model) -> tuple[EngineComparison, ComparisonSummary, list[str]]:
    second = run(ENGINE, verdicts=(b,), machine=replace(MACHINE, cpu_model=processor))
    engines, summary, findings = compared(evidence(run(ENGINE, verdicts=(a,))), evidence(second))
    (engine,) = engines
    return engine, summary, findings


def test_a_run_beside_its_equal_is_no_worse():
    engine, summary, findings = rows(ENGINE, ENGINE)

    assert (summary.outcome, summary.exit_code, summary.engines, findings) == (Status.PASS, 0, 1, [])
    assert (engine.figures, engine.statuses, engine.nodes) == ((), (), ())
    assert engine.compared_nodes == len(GRAPH.nodes)


# -- bytes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bytes_now", "effect", "code"),
    [(1011, Effect.WORSE, 1), (1010, Effect.NEUTRAL, 0), (991, Effect.NEUTRAL, 0), (990, Effect.BETTER, 0)],
)
def test_bytes_of_another_release_are_held_to_the_margin(bytes_now, effect, code):
    engine, summary, findings = rows(ENGINE, replace(NEWER, weights_bytes=bytes_now))

    assert [(change.metric, change.effect) for change in engine.figures] == [("weights_bytes", effect)]
    assert (summary.exit_code, findings) == (code, ["FAIL weights_bytes"] if code else [])


def test_the_same_graph_under_the_same_release_may_not_grow_by_one_byte():
    assert rows(ENGINE, replace(ENGINE, plan_bytes=2001))[2] == ["FAIL plan_bytes"]
    assert rows(ENGINE, replace(ENGINE, plan_bytes=2001, onnx_sha256=OTHER_GRAPH))[2] == []


def test_a_builder_that_does_not_repeat_itself_has_its_margin_for_the_same_graph():
    rules = policy()
    line = next(line for line in rules.margins if line.metric == "plan_bytes")
    rules = replace(rules, margins=(*rules.margins, replace(line, same_graph=True)))

    def findings(plan_bytes):
        return findings_of(compared_engines(evidence(run(ENGINE)), evidence(run(replace(ENGINE, plan_bytes=plan_bytes))), rules), rules)

    assert ENGINE.plan_bytes == 2000
    assert not findings(2020)
    assert [finding.check for finding in findings(2021)] == ["plan_bytes"]


def test_bytes_without_a_margin_are_shown_and_not_judged():
    grown = replace(NEWER, activation_bytes=5000)

    engine, summary, _ = rows(ENGINE, grown)
    assert [(change.effect, change.b) for change in engine.figures] == [(Effect.NEUTRAL, 5000)]
    assert "no margin" in engine.figures[0].reason
    assert summary.exit_code == 0


def test_bytes_that_only_the_first_run_says_leave_the_comparison_open():
    assert rows(ENGINE, replace(NEWER, weights_bytes=None))[2] == ["INCONCLUSIVE weights_bytes"]
    assert rows(ENGINE, replace(NEWER, weights_bytes=None))[1].exit_code == 3
    assert rows(replace(ENGINE, weights_bytes=None), NEWER)[1].exit_code == 0


# -- nodes -----------------------------------------------------------------------------------------------------------------------


def test_a_node_that_left_fp8_fails_the_comparison():
    _, summary, findings = compared(evidence(run(ENGINE)), evidence(run(NEWER), HALF))

    assert (summary.outcome, summary.changed_nodes, findings) == (Status.FAIL, 1, ["FAIL E11"])
    assert compared(evidence(run(ENGINE), HALF), evidence(run(NEWER)))[1].exit_code == 0


def test_a_node_that_no_layer_names_any_more_makes_the_comparison_invalid():
    table = layer_table(GRAPH)
    unseen = replace(table, rows=tuple(row for row in table.rows if row.onnx_nodes != ("b1/fc",)))

    _, summary, findings = compared(evidence(run(ENGINE)), evidence(run(NEWER), unseen))

    assert (summary.outcome, summary.exit_code, findings) == (Status.INVALID, 4, ["INVALID E11"])


def test_a_recipe_that_is_only_reported_on_fails_no_comparison():
    old, new = (replace(row, recipe="modelopt") for row in (ENGINE, replace(NEWER, weights_bytes=9999)))

    rules = policy()
    engines = compared_engines(evidence(run(old)), evidence(run(new), HALF), rules)
    findings = findings_of(engines, rules)

    assert {finding.severity for finding in findings} == {Severity.REPORT}
    assert len(findings) == 2
    assert (summary_of(engines, findings).exit_code, summary_of(engines, findings).report) == (0, 2)


@pytest.mark.parametrize(("lacks", "words"), [("layer_table", "kept no layer table"), ("graph", "does not say what they are")])
def test_a_run_without_nodes_leaves_the_comparison_open(lacks, words):
    bare = evidence(run(replace(NEWER, **{lacks: None})), None)

    engines, summary, findings = compared(evidence(run(ENGINE)), bare)

    assert (summary.exit_code, findings) == (3, ["INCONCLUSIVE E11"])
    assert words in engines[0].not_compared[0]
    assert "run B" in engines[0].not_compared[0]


def test_engines_without_layer_tables_are_compared_by_their_figures_alone():
    row = replace(ENGINE, backend="onnxruntime", target=None, layer_table=None, graph=None)

    engine, summary, _ = rows(row, row)

    assert (engine.not_compared, summary.engines, summary.exit_code) == ((), 1, 0)


# -- like with like --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("weights", "seeded:1"), ("batch", "8/8/8")])
def test_engines_of_other_weights_or_batches_are_named_and_left_alone(field, value):
    other = replace(ENGINE, **{field: value}, weights_bytes=9999)

    engines, summary, findings = compared(evidence(run(ENGINE)), evidence(run(other), HALF))

    assert not is_compared(engines[0])
    assert (engines[0].figures, engines[0].nodes) == ((), ())
    assert value in engines[0].not_compared[0]
    assert (summary.engines, summary.exit_code, findings) == (0, 3, ["INCONCLUSIVE E11"])


def test_another_onnx_file_is_said():
    assert "another ONNX file" in rows(ENGINE, replace(ENGINE, onnx_sha256=OTHER_GRAPH))[0].remarks[0]


def test_nodes_without_a_counterpart_are_counted():
    longer = GraphMaker(blocks=4).graph()
    second = run(replace(ENGINE, onnx_sha256=OTHER_GRAPH))
    other = RunEvidence(run=second, nodes={key_of(ENGINE): nodes(layer_table(longer), longer)})

    engines, summary, _ = compared(evidence(run(ENGINE)), other)

    assert engines[0].remarks[-1] == f"nodes without a counterpart of their name: 0 of A, {len(longer.nodes) - len(GRAPH.nodes)} of B"
    assert (engines[0].compared_nodes, summary.exit_code) == (len(GRAPH.nodes), 0)


@pytest.mark.parametrize("lost", ["b1/out", "b1/softmax"])
def test_a_product_or_a_softmax_of_another_name_leaves_the_comparison_open(lost):
    renamed = replace(GRAPH, nodes=tuple(replace(node, name="other") if node.name == lost else node for node in GRAPH.nodes))
    second = run(replace(ENGINE, onnx_sha256=OTHER_GRAPH))
    other = RunEvidence(run=second, nodes={key_of(ENGINE): nodes(layer_table(renamed), renamed)})

    engines, summary, findings = compared(evidence(run(ENGINE)), other)

    assert f"first {lost}" in engines[0].not_compared[0]
    assert (summary.exit_code, findings) == (3, ["INCONCLUSIVE E11"])


@pytest.mark.parametrize("metric", ["check_E7", "reformat_bytes"])
@pytest.mark.parametrize(("before", "after", "code"), [(1.0, 40.0, 1), (40.0, 1.0, 0)])
def test_more_layers_that_only_move_are_worse_without_a_baseline(metric, before, after, code):
    first, second = (run(ENGINE, verdicts=(gate(metric, figure, Status.NO_BASELINE, Suite.GRAPH),)) for figure in (before, after))
    engines = compared_engines(evidence(first), evidence(second), policy(reformat_bytes=0.0))
    findings = findings_of(engines, policy(reformat_bytes=0.0))

    assert [change.effect for change in engines[0].figures] == [Effect.WORSE if code else Effect.BETTER]
    assert summary_of(engines, findings).exit_code == code


def test_a_graph_without_nodes_leaves_the_comparison_open():
    empty = RunEvidence(run=run(ENGINE), nodes={key_of(ENGINE): EngineNodes(TABLE, GraphRoles(nodes=(), inputs=(), attentions=()))})

    engines, summary, findings = compared(empty, empty)

    assert "lists none" in engines[0].not_compared[0]
    assert (summary.exit_code, findings) == (3, ["INCONCLUSIVE E11"])


@pytest.mark.parametrize("change", [{"target": "SM120"}, {"recipe": "fp16"}, {"encoder": "ViT-B-32/text"}, {"backend": "fake"}])
def test_engines_of_one_run_alone_are_named_and_fail_nothing(change):
    engines, summary, findings = compared(evidence(run(ENGINE, replace(ENGINE, **change))), evidence(run(ENGINE)))

    assert sorted(engine.presence for engine in engines) == [Presence.BOTH, Presence.ONLY_A]
    assert (summary.only_a, summary.only_b, summary.exit_code, findings) == (1, 0, 0, [])
    assert compared(evidence(run(ENGINE)), evidence(run(ENGINE, replace(ENGINE, **change))))[1].only_b == 1


# -- gates -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (Status.PASS, Status.FAIL, 1),
        (Status.NO_BASELINE, Status.FAIL, 1),
        (Status.PASS, Status.INVALID, 4),
        (Status.PASS, Status.INCONCLUSIVE, 3),
        (Status.PASS, Status.NO_BASELINE, 3),
        (Status.FAIL, Status.NO_BASELINE, 0),
        (Status.FAIL, Status.FAIL, 0),
        (Status.FAIL, Status.PASS, 0),
        (Status.NO_BASELINE, Status.PASS, 0),
    ],
)
def test_a_gate_that_changed_for_the_worse_decides_the_exit_code(before, after, code):
    engine, summary, _ = gates(gate("unfused_qdq", None, before), gate("unfused_qdq", None, after))

    assert summary.exit_code == code
    assert len(engine.statuses) == (before is not after)


def test_a_missing_baseline_leaves_nothing_open_where_the_figures_were_compared():
    before, after = gate("weights_bytes", 1000), gate("weights_bytes", 1000, Status.NO_BASELINE)

    assert gates(before, after)[1].exit_code == 0


def test_a_missing_baseline_does_not_hide_that_the_figure_is_worse():
    worse = replace(NEWER, weights_bytes=2000)
    first, second = gate("weights_bytes", 1000), gate("weights_bytes", 2000, Status.NO_BASELINE)

    assert compared(evidence(run(ENGINE, verdicts=(first,))), evidence(run(worse, verdicts=(second,))))[2] == ["FAIL weights_bytes"]


def test_a_figure_that_is_worse_and_fails_its_gate_is_told_once():
    worse = replace(NEWER, weights_bytes=2000)
    first, second = gate("weights_bytes", 1000), gate("weights_bytes", 2000, Status.FAIL)

    assert compared(evidence(run(ENGINE, verdicts=(first,))), evidence(run(worse, verdicts=(second,))))[2] == ["FAIL weights_bytes"]


def test_gates_that_only_one_run_judged_are_shown():
    engines, summary, _ = compared(evidence(run(ENGINE, verdicts=(gate("finite", 1),))), evidence(run(ENGINE)))

    assert [(change.a, change.b, change.effect) for change in engines[0].statuses] == [(Status.PASS, None, Effect.NEUTRAL)]
    assert summary.exit_code == 0


def test_an_engine_that_could_not_be_built_makes_the_comparison_invalid():
    broken = evidence(run(verdicts=(gate("weights_bytes", None, Status.INVALID),)))

    engines, summary, findings = compared(evidence(run(ENGINE, verdicts=(gate("weights_bytes", 1000),))), broken)

    assert (summary.exit_code, findings) == (4, ["INVALID weights_bytes"])
    assert "run B left no engine" in engines[0].remarks[0]


def test_gates_of_the_exported_graph_are_compared_without_an_engine():
    first, second = (gate("block_gemms_quantized", 18, status, backend=None, target=None) for status in (Status.PASS, Status.FAIL))

    _, summary, findings = compared(evidence(run(ENGINE, verdicts=(first,))), evidence(run(ENGINE, verdicts=(second,))))

    assert (summary.exit_code, summary.engines, findings) == (1, 1, ["FAIL block_gemms_quantized"])


def test_a_gate_lost_with_its_worker_does_not_stop_the_comparison():
    lost = gate("test_x", None, Status.INVALID, encoder="unknown", recipe="unknown", backend=None, target=None)

    assert compared(evidence(run(ENGINE)), evidence(run(ENGINE, verdicts=(lost,))))[1].only_b == 0


# -- accuracy and latency --------------------------------------------------------------------------------------------------------


def accuracy(metric: str, observed: float, **changes) -> Verdict:
    return gate(metric, observed, suite=Suite.ACCURACY, **changes)


@pytest.mark.parametrize(
    ("metric", "before", "after", "effect"),
    [
        ("centred_snr_db", 20.0, 16.9, Effect.WORSE),
        ("centred_snr_db", 20.0, 17.0, Effect.NEUTRAL),
        ("centred_snr_db", 20.0, 23.1, Effect.BETTER),
        ("centred_snr_db", 11.0, 9.9, Effect.WORSE),  # within the margin, below the floor
        ("cosine_min", 0.99, 0.91, Effect.NEUTRAL),
        ("cosine_min", 0.91, 0.89, Effect.WORSE),
        ("cosine_min", 0.85, 0.89, Effect.NEUTRAL),
        ("cosine_min", 0.89, 0.91, Effect.BETTER),
        ("recall_at_1_drop", 0.5, 1.1, Effect.WORSE),
        ("recall_at_1_drop", 0.2, 0.9, Effect.NEUTRAL),
        ("recall_at_1_drop", 1.3, 1.2, Effect.NEUTRAL),
        ("recall_at_1_drop", 1.2, 0.9, Effect.BETTER),
    ],
)
def test_accuracy_is_held_to_margin_and_bound(metric, before, after, effect):
    engine, summary, _ = gates(accuracy(metric, before), accuracy(metric, after))

    assert [change.effect for change in engine.figures] == [effect]
    assert summary.exit_code == (1 if effect is Effect.WORSE else 0)


def test_an_estimate_that_became_inconclusive_leaves_the_comparison_open():
    certain = accuracy("zero_shot_agreement", 0.995, interval=(0.985, 0.999))
    unsure = replace(certain, observed=0.994, interval=(0.97, 0.999), status=Status.INCONCLUSIVE)

    assert gates(certain, unsure)[1].exit_code == 3
    assert gates(replace(certain, interval=None), replace(unsure, interval=None))[1].exit_code == 0


def test_accuracy_on_another_number_of_inputs_is_not_compared():
    engine, summary, findings = gates(accuracy("cosine_min", 0.99), accuracy("cosine_min", 0.98, n=128))

    assert (engine.figures[0].effect, summary.exit_code, findings) == (Effect.UNKNOWN, 3, ["INCONCLUSIVE cosine_min"])
    assert "64 inputs in A and 128 in B" in engine.figures[0].reason


def test_accuracy_on_other_inputs_is_not_compared():
    def seen(figure: float, digest: str) -> RunEvidence:
        record: RunRecord = run(ENGINE, verdicts=(accuracy("cosine_min", figure),))
        return replace(evidence(record), inputs={(ENGINE.encoder, ENGINE.recipe, ENGINE.backend, ENGINE.target): digest})

    assert compared(seen(0.99, "x"), seen(0.8, "y"))[2] == ["INCONCLUSIVE cosine_min"]
    assert compared(seen(0.99, "x"), seen(0.8, "x"))[2] == ["FAIL cosine_min"]


def test_latency_is_held_to_its_margin_on_one_make_of_processor():
    before, slower = gate("latency_ratio", 1.0), gate("latency_ratio", 1.6)

    assert gates(before, slower)[2] == ["FAIL latency_ratio"]
    assert gates(before, slower, processor="another CPU")[2] == ["INCONCLUSIVE latency_ratio"]
    assert gates(before, gate("latency_ratio", 1.5))[2] == []
    assert gates(slower, before)[1].better == 1


def test_builders_that_were_asked_otherwise_are_told():
    longer = replace(ENGINE, options=BuildOptions(optimization_level=5))
    engine, _, _ = rows(ENGINE, longer)
    assert engine.remarks == ("builders were asked nothing in A, optimization_level=5 in B beside the graph",)
