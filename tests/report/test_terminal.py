"""The table at the end of a run."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from harness.records.verdict import Direction, NotRun, Status, Suite, Verdict
from harness.report.terminal import table


@dataclass(frozen=True, kw_only=True)
class Remark:
    suite: Suite = Suite.GRAPH
    encoder: str = "ViT-B-32/image"
    recipe: str = "modelopt"
    backend: str | None = None
    target: str | None = None
    check: str = "check_O7"
    message: str = "24 attention MatMuls are quantized"


GOOD = Verdict(
    suite=Suite.ACCURACY,
    encoder="ViT-B-32/image",
    recipe="linear",
    backend="onnxruntime",
    target=None,
    metric="cosine_min",
    observed=0.9987,
    bound=0.975,
    unit="",
    direction=Direction.FLOOR,
    n=64,
    status=Status.PASS,
    reason="",
)
FAT = replace(
    GOOD,
    suite=Suite.BENCHMARK,
    backend="tensorrt_rtx",
    target="SM89",
    metric="weights_bytes",
    observed=177_121_024,
    bound=89_841_284,
    unit="bytes",
    direction=Direction.CEILING,
    n=1,
    status=Status.FAIL,
    reason="the weights are as large as in FP16; look at the layer table",
)
NO_GPU = NotRun(
    suite=Suite.BENCHMARK,
    encoder="ViT-B-32/image",
    recipe="linear",
    backend="tensorrt_rtx",
    target="SM89",
    gate="latency_ms",
    reason="running needs a GPU, and this machine has none",
)


def figures(verdict: Verdict) -> tuple[str, ...]:
    """Observed and bound as the row shows them."""
    row = table([verdict], [], []).splitlines()[1].split()
    return tuple(row[5 : -2 if verdict.unit else -1])


def test_a_run_is_a_table_reasons_what_did_not_run_and_a_count():
    assert table([FAT, GOOD], [NO_GPU, replace(NO_GPU, gate="latency_ratio")], [Remark()]).splitlines() == [
        "suite      encoder         recipe  backend            metric            observed  bound          unit   verdict",
        "accuracy   ViT-B-32/image  linear  onnxruntime        cosine_min          0.9987  >= 0.9750             PASS",
        "benchmark  ViT-B-32/image  linear  tensorrt_rtx/SM89  weights_bytes  177,121,024  <= 89,841,284  bytes  FAIL",
        "",
        "FAIL benchmark ViT-B-32/image linear tensorrt_rtx/SM89 weights_bytes: the weights are as large as in FP16; look at the",
        "    layer table",
        "",
        "report graph ViT-B-32/image modelopt - check_O7: 24 attention MatMuls are quantized",
        "",
        "not run: running needs a GPU, and this machine has none: benchmark ViT-B-32/image linear tensorrt_rtx/SM89 (latency_ms,",
        "    latency_ratio)",
        "",
        "2 gates: 1 PASS, 1 FAIL; 2 not run; 1 report finding",
    ]


def test_the_order_in_which_workers_finish_does_not_show():
    verdicts = [replace(GOOD, metric=metric, recipe=recipe) for metric in "abc" for recipe in "xyz"]
    shuffled = random.Random(0).sample(verdicts, len(verdicts))

    assert table(verdicts, [NO_GPU, replace(NO_GPU, gate="a")], []) == table(shuffled, [replace(NO_GPU, gate="a"), NO_GPU], [])


def test_a_row_of_long_names_fits_160_columns():
    longest = replace(FAT, encoder="ViT-B-32-quickgelu/image", recipe="attention", target="SM120", metric="block_gemms_quantized")

    rows = table([replace(longest, status=Status.NO_BASELINE), replace(longest, status=Status.INCONCLUSIVE)], [], []).splitlines()

    assert max(map(len, rows)) <= 160


@pytest.mark.parametrize(
    ("observed", "bound", "unit", "direction", "shown"),
    [
        (14.14, 10.0, "dB", Direction.FLOOR, ("14.1", ">=", "10.0")),
        (9.99, 10.0, "dB", Direction.FLOOR, ("9.99", ">=", "10.00")),
        (0.99996, 1.0, "", Direction.FLOOR, ("0.99996", ">=", "1.00000")),
        (48.0, 48.0, "", Direction.EQUAL, ("48", "=", "48")),
        (48, 47, "", Direction.EQUAL, ("48", "=", "47")),
        (1.0, 0.6, "", Direction.CEILING, ("1.0000", "<=", "0.6000")),
        (3.1625, 3.2, "ms", Direction.CEILING, ("3.163", "<=", "3.200")),
        (89_347_080.0, 89_347_080.0, "bytes", Direction.CEILING, ("89,347,080", "<=", "89,347,080")),
        (-0.04, 1.0, "dB", Direction.CEILING, ("0.0", "<=", "1.0")),
        (None, 10.0, "dB", Direction.FLOOR, ("-", ">=", "10.0")),
        (0.5, None, "", Direction.FLOOR, ("0.5000", "-")),
        (None, None, "", Direction.FLOOR, ("-", "-")),
        (1.0, 1.0 + 1e-15, "", Direction.FLOOR, ("1.000000000000", ">=", "1.000000000000")),
    ],
)
def test_figures_are_spelled_in_their_unit_and_differ_where_they_differ(
    observed: float | None, bound: float | None, unit: str, direction: Direction, shown: tuple[str, ...]
):
    assert figures(replace(GOOD, observed=observed, bound=bound, unit=unit, direction=direction)) == shown


DROP = replace(
    GOOD,
    metric="recall_at_1_drop",
    unit="pt",
    direction=Direction.CEILING,
    observed=0.2,
    bound=1.0,
    n=1382,
    interval=(-0.4, 0.9),
    budget=19,
)


def test_an_estimate_shows_its_bounds_and_how_many_may_fail():
    header, good, drop = table([GOOD, DROP], [], []).splitlines()[:3]

    assert header.endswith("verdict  95 % bounds")
    assert drop.endswith("0.20  <= 1.00    pt    PASS     [-0.40, 0.90] budget 19 of 1,382")
    assert good.endswith("PASS")
    assert len(drop) <= 140


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"budget": None}, "[-0.40, 0.90] of 1,382"),
        ({"budget": -1, "n": 64}, "[-0.40, 0.90] no budget in 64"),
        ({"budget": None, "n": 8, "detectable": 0.2134}, "[-0.40, 0.90] at 99 % of 8, sees +21.3%"),
        ({"budget": 0}, "[-0.40, 0.90] budget 0 of 1,382"),
        ({"interval": (0.2, 1.001)}, "[0.200, 1.001] budget 19 of 1,382"),  # not [0.20, 1.00] beside <= 1.00
    ],
)
def test_bounds_are_spelled_so_that_they_compare_with_the_bound_by_eye(changes, shown):
    assert table([replace(DROP, **changes)], [], []).splitlines()[1].endswith(shown)


def test_what_an_estimate_that_passes_rests_on_is_told_in_its_row_alone():
    text = table([replace(DROP, reason="3 worse and 0 better of 1,382")], [], [])

    assert "noted" not in text
    assert "3 worse" in table([replace(DROP, reason="3 worse and 0 better of 1,382", status=Status.FAIL)], [], [])


def test_the_verdict_of_an_estimate_is_coloured_and_nothing_else():
    row = table([DROP], [], [], colour=True).splitlines()[1]

    assert "\x1b[32mPASS\x1b[0m  " in row
    assert row.endswith("of 1,382")
    assert row.replace("\x1b[32m", "").replace("\x1b[0m", "") == table([DROP], [], []).splitlines()[1]


def test_colour_is_only_where_it_is_asked_for():
    verdicts = [replace(GOOD, status=status) for status in Status]

    plain, coloured = table(verdicts, [], []), table(verdicts, [], [], colour=True)

    assert "\x1b" not in plain
    assert "\x1b[32mPASS\x1b[0m" in coloured
    assert "\x1b[31mFAIL\x1b[0m" in coloured
    assert coloured.count("\x1b[0m") == len(Status)


def test_a_gate_that_is_red_for_no_stated_reason_says_so():
    assert "no reason was given" in table([replace(FAT, reason="")], [], [])


def test_what_a_passing_gate_has_to_say_is_told_once():
    verdicts = [replace(GOOD, metric=metric, reason="baseline_created") for metric in ("a", "b", "c")]

    lines = table(verdicts, [], []).splitlines()

    assert "PASS, noted: baseline_created: accuracy ViT-B-32/image linear onnxruntime a and 2 more" in lines
    assert table(verdicts[:1], [], []).splitlines()[3].endswith("onnxruntime a")


def test_of_many_report_findings_the_first_are_shown_and_the_rest_counted():
    text = table([], [], [Remark(check=f"check_O{number:02}") for number in range(25)])

    assert text.count("report graph") == 20
    assert "report: 5 more kinds in run.json" in text
    assert text.endswith("0 gates; 0 not run; 25 report findings")


def test_a_finding_that_repeats_in_every_block_is_told_once():
    text = table([], [], [Remark(message=f"block {index}: attention is split") for index in range(12)])

    assert "block 0: attention is split and 11 more like it" in text
    assert "block 1:" not in text


def test_control_characters_of_a_vendor_reach_no_terminal():
    text = table([replace(FAT, reason="line one\nline two\x1b[2J")], [replace(NO_GPU, reason="a\r\nb")], [Remark(message="c\x00d")])

    assert "line one line two [2J" in text
    assert "not run: a b: " in text
    assert not set(text) & set("\x1b\r\x00")


CLEAN = replace(GOOD, suite=Suite.GRAPH, observed=0, bound=0, unit="findings", direction=Direction.CEILING)


def test_checks_that_found_nothing_share_a_line_a_subject():
    checks = [replace(CLEAN, metric=f"check_O{number}") for number in (1, 2, 3, 9, 10, 11, 12, 14)]
    others = [replace(CLEAN, metric=f"check_{name}", recipe="fp16") for name in ("E1", "E8", "E9")]

    lines = table([*checks, *others], [], []).splitlines()

    assert [line.split("onnxruntime  ")[1].split("  ")[0] for line in lines[1:3]] == ["checks E1 E8 E9", "checks O1-O3 O9-O12 O14"]
    assert lines[-1] == "11 gates: 11 PASS; 0 not run; 0 report findings"


def test_a_check_that_found_something_keeps_its_line():
    verdicts = [replace(CLEAN, metric=f"check_O{number}") for number in range(1, 5)]
    verdicts[1] = replace(verdicts[1], observed=7, status=Status.FAIL, reason="block 3: a float side (7 such findings)")

    text = table(verdicts, [], [])

    assert "check_O2 7 <= 0 findings FAIL" in " ".join(text.split())
    assert "checks O1 O3 O4" in text


def test_a_single_clean_check_is_named_as_the_metric_it_is():
    assert " check_O5 " in table([replace(CLEAN, metric="check_O5")], [], [])


def test_what_only_describes_engines_is_left_to_the_summary():
    text = table([], [], [Remark(check="E10", message="138 layers"), Remark(check="E10", message="127 layers")])

    assert "138 layers" not in text
    assert "report: 2 engines described in summary.md" in text
