"""A report says how fast, how large, what broke and what is left, and claims nothing that samples do not show."""

from __future__ import annotations

from dataclasses import replace

from harness.records.gpu_report import Event, ReportLine, Stage, Timed
from harness.records.latency import ArmFigures, LatencyJudgement
from harness.records.spec import Recipe
from harness.records.verdict import Direction, Judgement, Status
from harness.report.gpu_plot import speedup_svg
from harness.report.gpu_report import report_markdown
from tests.store.test_prepared import ABOUT

LINE = ReportLine(encoder="ViT-B-32/image", weights="seeded:0", recipe=Recipe.LINEAR, batch=128, is_refilled=True)


def _timed(ratio, low, high, status=Status.PASS, reason=""):
    judged = LatencyJudgement(
        status=status,
        reason=reason,
        alpha=0.001,
        beta=0.01,
        delta=0.01,
        ratio=ratio,
        low=low,
        high=high,
        baseline=ArmFigures(p50_ms=3.2, launches=100, sm_clock_mhz=1650.0),
        candidate=ArmFigures(p50_ms=1.6, launches=100, sm_clock_mhz=1830.0),
    )
    return Timed(judgement=judged, samples="samples/x.json.gz", guard="", launches="graph replays; CUDA events")


def _text(*lines):
    return report_markdown(ABOUT, lines, plot=None, why_no_plot="nobody drew it")


def test_half_the_time_is_twice_as_fast_with_its_bounds_the_other_way_round():
    text = _text(replace(LINE, timed={"hot": _timed(0.5, 0.4, 0.625)}))

    assert "| ViT-B-32/image | 128 | `linear` | 3.2 | 1.6 | 2.000x | 1.600 to 2.500 | - | 1650/1830 | faster |" in text
    assert "No plot: nobody drew it." in text


def test_bounds_on_both_sides_of_one_tell_no_engine_apart():
    assert "not told apart" in _text(replace(LINE, timed={"hot": _timed(0.99, 0.9, 1.1)}))


def test_samples_that_prove_nothing_say_why_in_place_of_a_verdict():
    assert "INVALID: too few processes" in _text(
        replace(LINE, timed={"hot": _timed(None, None, None, Status.INVALID, "too few processes")})
    )


def test_random_weights_are_named_and_their_accuracy_is_not():
    text = _text(LINE)

    assert "random numbers in place of their large weights" in text
    assert "## Accuracy" not in text


def test_what_broke_in_several_engines_alike_is_one_line():
    event = Event(stage=Stage.BUILD, code="build_failed", message="no kernel\n  its log ends so")
    text = _text(*(replace(LINE, batch=batch).after(Stage.BUILD, event) for batch in (1, 8)))

    assert text.count("`build_failed`") == 1
    assert "`linear` batch 8, ViT-B-32/image `linear` batch 1" in text
    assert "What is left" not in text


def test_what_is_left_is_listed_with_its_stages():
    assert "- ViT-B-32/image `linear` batch 128: accuracy, hot, cold" in _text(LINE.after(Stage.BUILD).after(Stage.GRAPH))


def test_a_check_that_does_not_hold_is_told_once_for_all_batches():
    broken = Judgement(
        metric="check_E4", status=Status.FAIL, observed=24, bound=0, unit="", direction=Direction.CEILING, n=24, reason="attention is split"
    )
    text = _text(*(replace(LINE, batch=batch, graph=(broken,), layers=165) for batch in (8, 128)))

    assert text.count("attention is split") == 1
    assert "- ViT-B-32/image `linear`, batch 128, 8: check\\_E4 FAIL: attention is split" in text


def test_what_was_never_stored_is_nothing_that_does_not_hold():
    unknown = Judgement(
        metric="check_E7", status=Status.NO_BASELINE, observed=3, bound=None, unit="layers", direction=Direction.CEILING, n=9, reason="none"
    )

    assert "| nothing |" in _text(replace(LINE, graph=(unknown,), layers=9))


def test_what_is_left_takes_as_long_as_what_was_seen_says():
    text = report_markdown(ABOUT, [LINE], plot=None, why_no_plot="nobody drew it", left_s=600.0)

    assert "some 10 minutes of it are left" in text


def test_without_times_there_is_no_plot_and_the_reason_is_given():
    assert speedup_svg([LINE]) == (None, "no engine was timed beside FP16 yet")
