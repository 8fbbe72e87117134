"""A latency judgement in words."""

from __future__ import annotations

from harness.records.latency import ArmFigures, LatencyJudgement


def latency_text(judged: LatencyJudgement) -> str:
    """The verdict, and what it rests on, a line each."""
    lines = [f"{judged.status}: {judged.reason}" if judged.reason else str(judged.status)]
    if judged.ratio is not None and judged.low is not None and judged.high is not None:
        bounds = f"above {judged.low:.4f} but for a chance of {judged.alpha:g}, below {judged.high:.4f} but for {judged.beta:g}"
        lines.append(f"  ratio      {judged.ratio:.4f}, candidate / baseline; {bounds}")
    if judged.detectable is not None:
        lines.append(f"  sees       {judged.detectable:+.2%} (minimum detectable effect); asked: {judged.delta:+.2%}")
    lines.append(f"  processes  {judged.processes}, with {judged.groups} groups of blocks, {judged.dropped} of them dropped")
    for name, figures in (("baseline", judged.baseline), ("candidate", judged.candidate)):
        if figures is not None:
            lines.append(f"  {name:<9}  {_figures(figures)}")
    return "\n".join(lines)


def _figures(figures: ArmFigures) -> str:
    clock = "clock not read" if figures.sm_clock_mhz is None else f"SM clock {figures.sm_clock_mhz:g} MHz"
    return f"p50 {figures.p50_ms:.4g} ms of {figures.launches} launches, {clock}"
