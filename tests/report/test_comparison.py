"""Two runs side by side, as text and as Markdown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.comparison import findings_of, summary_of
from harness.records.comparison import (
    Aspect,
    ComparedRun,
    Comparison,
    Effect,
    EngineComparison,
    EngineSide,
    FigureChange,
    NodeChange,
    Presence,
    StatusChange,
)
from harness.records.verdict import Status, Suite
from harness.report.changes import engine_lines
from harness.report.comparison import WIDTH, comparison_text
from harness.report.comparison_markdown import comparison_markdown
from tests.helpers.runs import policy

SIDE = EngineSide(
    backend_version="1.6",
    batch="1/8/64",
    weights="seeded:0",
    onnx_sha256="a" * 64,
    weights_bytes=92_200_326,
    plan_bytes=None,
    activation_bytes=0,
    layers=185,
)
ENGINE = EngineComparison(
    encoder="ViT-B-32/image",
    recipe="linear",
    backend="tensorrt_rtx",
    target="SM89",
    batch="1/8/64",
    presence=Presence.BOTH,
    a=SIDE,
    b=replace(SIDE, backend_version="1.7", weights_bytes=89_841_284, layers=186),
    compared_nodes=713,
)
SMALLER = FigureChange(metric="weights_bytes", unit="bytes", a=92_200_326, b=89_841_284, effect=Effect.BETTER, reason="margin 0.10%")


def node(name: str, aspect: Aspect = Aspect.TYPE, effect: Effect = Effect.WORSE, a: str = "fp8", b: str = "half", **changes) -> NodeChange:
    return NodeChange(node=name, op_type="MatMul", block=None, aspect=aspect, effect=effect, a=a, b=b, **changes)


def comparison(*engines: EngineComparison) -> Comparison:
    findings = findings_of(engines, policy())
    side = ComparedRun(path="runs/a", started="2026-11-23T15:04:05+00:00", exit_code=0, outcome=Status.PASS, cpu_model="a CPU")
    return Comparison(
        schema="enginegate/comparison/1",
        a=replace(side, backends={"tensorrt_rtx": "1.6"}),
        b=replace(side, path="runs/b", backends={"tensorrt_rtx": "1.7"}),
        engines=engines,
        findings=findings,
        summary=summary_of(engines, findings),
    )


def subjects(*changes: NodeChange) -> list[str]:
    return [line.subject for line in engine_lines(replace(ENGINE, nodes=changes))]


def test_nodes_that_change_alike_in_every_block_are_one_line():
    changes = [node(f"/blocks.{index}/ln_1/MatMul_2") for index in (0, 3, 11)]

    assert subjects(*changes) == ["/blocks.*/ln_1/MatMul_2 (3 nodes) type"]


def test_nodes_that_change_unlike_are_lines_of_their_own():
    assert len(subjects(node("/blocks.0/q"), node("/blocks.1/q", b="mixed"), node("/blocks.2/k"))) == 3


def test_partners_are_named_without_the_folders_they_share_with_the_node():
    moved = node("/t/b.0/attn/q", Aspect.FUSION, Effect.NEUTRAL, gained=("/t/b.0/attn/k",), lost=("/t/b.0/ln",))

    (line,) = engine_lines(replace(ENGINE, nodes=(moved,)))

    assert line.b == "now with attn/k; no longer with ln"


def test_the_worst_changes_come_first():
    engine = replace(ENGINE, figures=(SMALLER,), nodes=(node("b", Aspect.FUSION, Effect.NEUTRAL, gained=("c",)), node("a")))

    assert [line.effect for line in engine_lines(engine)] == [Effect.WORSE, Effect.BETTER, Effect.NEUTRAL]


def test_gates_that_went_the_same_way_are_one_line():
    moved = tuple(
        StatusChange(suite=Suite.BENCHMARK, metric=metric, a=Status.NO_BASELINE, b=Status.PASS, effect=Effect.NEUTRAL)
        for metric in ("weights_bytes", "plan_bytes")
    )

    (line,) = engine_lines(replace(ENGINE, statuses=moved))

    assert (line.subject, line.a, line.b) == ("gates weights_bytes, plan_bytes", "NO_BASELINE", "PASS")


def test_the_text_says_what_changed_and_ends_with_the_reason():
    text = comparison_text(comparison(replace(ENGINE, figures=(SMALLER,), nodes=(node("/conv1/Conv"),))))

    assert "ViT-B-32/image linear tensorrt_rtx/SM89, 1.6 -> 1.7, 185 -> 186 layers, 713 nodes compared" in text
    assert "better   weights_bytes: 92,200,326 -> 89,841,284 bytes (-2.559%, margin 0.10%)" in text
    assert "worse    /conv1/Conv type: fp8 -> half" in text
    assert text.splitlines()[-2:] == [
        "FAIL: B is worse than A",
        "  FAIL ViT-B-32/image linear tensorrt_rtx/SM89: E11 /conv1/Conv: type was fp8, is half",
    ]


def test_twelve_blocks_are_one_reason():
    text = comparison_text(comparison(replace(ENGINE, nodes=tuple(node(f"/b.{index}/q") for index in range(12)))))

    assert text.endswith("E11 /b.0/q: type was fp8, is half (and 11 more such places)")


def test_no_line_of_the_text_is_longer_than_a_terminal_of_140_columns():
    long = node("/a" * 200, b="half " * 100)
    engine = replace(ENGINE, nodes=(long,), not_compared=("weights " + "x" * 300,), remarks=("y " * 200,))

    assert max(map(len, comparison_text(comparison(engine, replace(engine, presence=Presence.ONLY_B))).splitlines())) <= WIDTH


def test_engines_without_a_change_and_engines_of_one_run_are_named():
    lone = replace(ENGINE, recipe="fp16", presence=Presence.ONLY_A, b=None)

    text = comparison_text(comparison(ENGINE, lone))

    assert "no change: ViT-B-32/image linear tensorrt_rtx/SM89 (713 nodes)" in text
    assert "only in A: ViT-B-32/image fp16 tensorrt_rtx/SM89" in text
    assert text.endswith("PASS: B is not worse than A")


def test_figures_that_differ_are_spelled_so_that_they_differ():
    close = FigureChange(metric="weights_ratio", unit="", a=0.52050001, b=0.52050002, effect=Effect.NEUTRAL, reason="")

    (line,) = engine_lines(replace(ENGINE, figures=(close,)))

    assert (line.a, line.b) == ("0.52050001", "0.52050002")


def test_counts_are_spelled_without_decimals():
    lone = FigureChange(metric="unfused_qdq", unit="layers", a=24.0, b=0.0, effect=Effect.NEUTRAL, reason="")

    (line,) = engine_lines(replace(ENGINE, figures=(lone,)))

    assert (line.a, line.b) == ("24", "0 layers")


def test_markdown_holds_a_row_an_engine_and_a_row_a_change():
    text = comparison_markdown(comparison(replace(ENGINE, figures=(SMALLER,), nodes=(node("/a_b|c"),))))

    assert text.startswith("## enginegate compare: FAIL, B is worse than A\n")
    figures = "185 -&gt; 186 | 92,200,326 -&gt; 89,841,284 | - | 0 | 1 | 1"
    assert rf"| ViT-B-32/image linear tensorrt\_rtx/SM89 | 1.6 -&gt; 1.7 | {figures} |" in text
    assert r"| **worse** | /a\_b\|c type | fp8 | half |  |" in text
    assert "| better | weights\\_bytes | 92,200,326 | 89,841,284 bytes | -2.559%, margin 0.10% |" in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    text = comparison_markdown(comparison(replace(ENGINE, figures=(SMALLER,), nodes=(node("x"), node("y", Aspect.FUSION, gained=("z",))))))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]

    assert len(tables) == 2
    for head, *others in tables:
        assert {row.count(" | ") for row in others} <= {head.count(" | ")}


@pytest.mark.parametrize("limit", [2000, 4000])
def test_markdown_that_is_too_long_for_a_comment_is_cut_at_a_line(limit):
    many = tuple(node(f"/b/{chr(97 + one)}{chr(97 + other)}") for one in range(26) for other in range(26))

    text = comparison_markdown(comparison(replace(ENGINE, nodes=many)), limit_bytes=limit)

    assert len(text.encode()) <= limit
    assert "enginegate compare --json" in text.splitlines()[-1]
