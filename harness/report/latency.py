"""A latency judgement in words."""

from __future__ import annotations

from harness.records.bench import BenchRecord
from harness.records.latency import ArmFigures, LatencyJudgement


def latency_text(judged: LatencyJudgement) -> str:
    """The verdict, and what it rests on, a line each."""
    lines = [f"{judged.status}: {judged.reason}" if judged.reason else str(judged.status)]
    if judged.ratio is not None and judged.low is not None and judged.high is not None:
        bounds = f"above {judged.low:.4f} but for a chance of {judged.alpha:g}, below {judged.high:.4f} but for {judged.beta:g}"
        against = "" if judged.against == 1 else f", held against {judged.against:g}"
        lines.append(f"  ratio      {judged.ratio:.4f}, candidate / baseline{against}; {bounds}")
    if judged.detectable is not None:
        lines.append(f"  sees       {judged.detectable:+.2%} (minimum detectable effect); asked: {judged.delta:+.2%}")
    lines.append(f"  processes  {judged.processes}, with {judged.groups} groups of blocks, {judged.dropped} of them dropped")
    for name, figures in (("baseline", judged.baseline), ("candidate", judged.candidate)):
        if figures is not None:
            lines.append(f"  {name:<9}  {_figures(figures)}")
    return "\n".join(lines)


def _figures(figures: ArmFigures) -> str:
    clock = "clock not read" if figures.sm_clock_mhz is None else f"SM clock {figures.sm_clock_mhz:.0f} MHz"
    tail = f"p99 below {figures.p99_ms:.4g} ms" if figures.p99_ms is not None else f"no p99 from fewer than {FEWEST_FOR_P99} launches"
    return f"p50 {figures.p50_ms:.4g} ms of {figures.launches} launches, {tail}, {clock}"


# ln 0.01 / ln 0.99: the largest of fewer launches lies below the 99th percentile with a chance of more than one percent.
FEWEST_FOR_P99 = 459

# In this order; what else is known follows.
_FIRST = ("baseline", "candidate", "machine", "protocol", "guard", "clocks")


def bench_text(record: BenchRecord) -> str:
    """A judgement that was measured now: the verdict, how it came about, and the command to repeat it."""
    lines, about = [latency_text(record.judgement)], record.about
    if record.is_self_comparison:
        lines.append(f"  {_what_could_be_seen(record.judgement)}")
    names = [*(name for name in _FIRST if name in about), *(name for name in sorted(about) if name not in (*_FIRST, "repeat"))]
    width = max((len(_label(name)) for name in names), default=0)
    lines += [f"  {_label(name):<{width}}  {about[name]}" for name in names]
    if about.get("repeat"):
        lines.append(f"repeat: {about['repeat']}")
    return "\n".join(lines)


def _label(name: str) -> str:
    return f"{name} engine" if name in ("baseline", "candidate") else name


def _what_could_be_seen(judged: LatencyJudgement) -> str:
    if judged.detectable is None:
        return "the engine beside itself: nothing could be seen"
    return f"the engine beside itself: here and now a slow-down of {judged.detectable:.2%} would be found in 99 of 100 tries"
