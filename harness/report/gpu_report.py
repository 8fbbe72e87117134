"""A report on prepared encoders, in Markdown: times, bytes, what became of the graphs, accuracy, and what broke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.records.gpu_report import ReportAbout, ReportLine
from harness.records.latency import ArmFigures, LatencyJudgement
from harness.records.noise import NoiseStudy
from harness.records.spec import Recipe
from harness.records.verdict import Judgement, Severity, Status
from harness.report.gpu_gain import gains
from harness.report.markup import cell, table
from harness.report.noise import noise_lines
from harness.report.words import UNKNOWN

_TIMES = (
    "encoder",
    "batch",
    "recipe",
    "FP16 ms",
    "ms",
    "next to FP16",
    "between",
    "sees",
    "clock MHz",
    "verdict",
    "cold ms",
    "cold, next to FP16",
)
_SELF = ("encoder", "batch", "ms", "ratio", "between", "sees", "verdict")
_SIZES = ("encoder", "batch", "recipe", "weights", "of FP16", "plan", "activations", "device peak", "build s")
_GRAPHS = (
    "encoder",
    "batch",
    "recipe",
    "layers",
    "block GEMMs in FP8",
    "fused attention",
    "in FP8",
    "Q/DQ alone",
    "FP8 share of FLOPs",
    "does not hold",
)
_COUNTED = ("block_gemms_fp8", "fused_attention", "fused_attention_fp8", "unfused_qdq", "fp8_flop_share")
_MESSAGE_CHARACTERS = 300
# Where nothing was stored there is nothing to hold; the runs say it of each gate.
_HELD = (Status.PASS, Status.NO_BASELINE)


def report_markdown(
    about: ReportAbout,
    lines: Sequence[ReportLine],
    *,
    plot: str | None,
    why_no_plot: str | None,
    left_s: float | None = None,
    study: NoiseStudy | None = None,
) -> str:
    """The report for people.

    Args:
        lines: in the order they were wanted in.
        plot: file beside the report; None where there is none.
        why_no_plot: in words, where there is none.
        study: of noise, where somebody made one.
        left_s: what is left may take so many seconds; None where nobody knows.
    """
    ordered = sorted(lines, key=_place)
    sections = (
        _head(about, lines),
        _times(ordered, plot, why_no_plot),
        _beside_themselves(ordered),
        _study(study),
        _sizes(ordered),
        _graphs(ordered),
        gains(ordered),
        _accuracy(ordered),
        _events(ordered),
        _left(lines, left_s),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def next_to_fp16(judged: LatencyJudgement) -> tuple[float, float, float] | None:
    """How many times as fast as FP16, and the bounds of that: 1.2 is a sixth less time. None where samples prove nothing."""
    if judged.ratio is None or judged.low is None or judged.high is None:
        return None
    return 1 / judged.ratio, 1 / judged.high, 1 / judged.low


def _place(line: ReportLine) -> tuple[str, int, int]:
    return line.encoder, -line.batch, list(Recipe).index(line.recipe)


def _head(about: ReportAbout, lines: Sequence[ReportLine]) -> Iterator[str]:
    machine = about.machine
    device = about.device or f"{machine.cpu_model}, {machine.cpu_count} processors"
    driver = f", driver {machine.driver}" if machine.driver else ""
    yield f"# {cell(about.backend)} {cell(about.backend_version)} on {cell(device)}"
    yield ""
    done = sum(line.is_complete for line in lines)
    yield cell(f"Begun {about.started}{driver}, Python {machine.python}. {done} of {len(lines)} engines are done; batches cannot change.")
    yield ""
    refilled = sorted({line.encoder for line in lines if line.is_refilled})
    if refilled:
        words = "have random numbers in place of their large weights: times, bytes and layers count, and accuracy is not judged."
        yield f"{cell(', '.join(refilled))} {words}"
        yield ""


def _times(lines: Sequence[ReportLine], plot: str | None, why_no_plot: str | None) -> Iterator[str]:
    rows = [_time_row(line) for line in lines if line.recipe.is_quantized and line.timed]
    if not rows:
        return
    yield "## Time of a launch"
    yield ""
    yield from table(_TIMES, rows)
    yield ""
    yield (
        "Each engine was timed in turns with the FP16 engine of the same encoder and batch, in several fresh processes. `next to FP16` "
        "above 1 is faster. `between`: above the first but for one chance in a hundred, below the second but for one in a thousand. "
        "`sees`: the slow-down that would be found in 99 of 100 tries. Cold launches find emptied caches; fewer blocks timed them."
    )
    yield ""
    yield f"![times as fast as FP16]({plot})" if plot else cell(f"No plot: {why_no_plot}.")
    yield ""
    yield from _watched(lines)


def _time_row(line: ReportLine) -> tuple[object, ...]:
    hot, cold = line.timed.get("hot"), line.timed.get("cold")
    judged = hot.judgement if hot else None
    pair = (judged.baseline, judged.candidate) if judged else (None, None)
    clocks = "/".join(UNKNOWN if one is None or one.sm_clock_mhz is None else f"{one.sm_clock_mhz:.0f}" for one in pair)
    return (
        cell(line.encoder),
        line.batch,
        f"`{line.recipe}`",
        _ms(pair[0]),
        _ms(pair[1]),
        _times_as_fast(judged),
        _between(judged),
        _sees(judged),
        clocks,
        cell(_verdict(judged)),
        _ms(cold.judgement.candidate if cold else None),
        _times_as_fast(cold.judgement if cold else None),
    )


def _beside_themselves(lines: Sequence[ReportLine]) -> Iterator[str]:
    timed = [line for line in lines if not line.recipe.is_quantized and "hot" in line.timed]
    if not timed:
        return
    yield "## FP16 engines beside themselves"
    yield ""
    yield "The same engine in both arms: what is seen here is no difference between engines."
    yield ""
    yield from table(_SELF, (_self_row(line, line.timed["hot"].judgement) for line in timed))
    yield ""


def _study(study: NoiseStudy | None) -> Iterator[str]:
    if study is None:
        return
    yield "## Noise, and slow-downs of known size"
    yield ""
    yield from noise_lines(study)
    yield ""


def _self_row(line: ReportLine, judged: LatencyJudgement) -> tuple[object, ...]:
    ratio = UNKNOWN if judged.ratio is None else f"{judged.ratio:.4f}"
    return cell(line.encoder), line.batch, _ms(judged.candidate), ratio, _between(judged), _sees(judged), cell(_verdict(judged))


def _watched(lines: Sequence[ReportLine]) -> Iterator[str]:
    """How launches were made: each sentence once, with how many timings it is said of."""
    said = Counter(timed.launches for line in lines for timed in line.timed.values())
    yield from (f"- {cell(words)} ({count} timings)" for words, count in sorted(said.items()))
    if said:
        yield ""


def _sizes(lines: Sequence[ReportLine]) -> Iterator[str]:
    halves = {(line.encoder, line.batch): line for line in lines if not line.recipe.is_quantized}
    rows = [_size_row(line, halves.get((line.encoder, line.batch))) for line in lines if line.engine is not None]
    if rows:
        yield "## Bytes"
        yield ""
        yield from table(_SIZES, rows)
        yield ""


def _size_row(line: ReportLine, half: ReportLine | None) -> tuple[object, ...]:
    engine = line.engine
    assert engine is not None  # for the type checker: `_sizes` looked
    whole = half.engine.weights_bytes if half is not None and half.engine is not None else None
    share = UNKNOWN if not whole or engine.weights_bytes is None else f"{engine.weights_bytes / whole:.3f}"
    seconds = UNKNOWN if engine.build_seconds is None else f"{engine.build_seconds:.1f}"
    sizes = (engine.plan_bytes, engine.activation_bytes, _device_peak(line))
    return (
        cell(line.encoder),
        line.batch,
        f"`{line.recipe}`",
        _bytes(engine.weights_bytes),
        share,
        *map(_bytes, sizes),
        seconds,
    )


def _device_peak(line: ReportLine) -> int | None:
    """What running it takes of the device at most, in bytes; None where nobody counted."""
    seen = next((one.observed for one in line.benchmark if one.metric == "device_peak_bytes"), None)
    return None if seen is None else int(seen)


def _graphs(lines: Sequence[ReportLine]) -> Iterator[str]:
    rows = [_graph_row(line) for line in lines if line.graph]
    if rows:
        yield "## What became of the graph"
        yield ""
        yield from table(_GRAPHS, rows)
        yield ""
        yield from _not_held(lines)


def _not_held(lines: Sequence[ReportLine]) -> Iterator[str]:
    """What does not hold, each sentence once, with the batches that it is said of."""
    said: dict[tuple[str, str, str], list[int]] = {}
    for line in lines:
        for one in line.graph:
            if one.status not in _HELD:
                said.setdefault((line.encoder, line.recipe, _brief(one)), []).append(line.batch)
    for (encoder, recipe, words), batches in said.items():
        yield f"- {cell(encoder)} `{recipe}`, batch {', '.join(map(str, batches))}: {cell(words)}"
    if said:
        yield ""


def _graph_row(line: ReportLine) -> tuple[object, ...]:
    by_name = {one.metric: one for one in line.graph}
    gemms, fused, narrow, alone, share = (by_name.get(name) for name in _COUNTED)
    broken = ", ".join(one.metric for one in line.graph if one.status not in _HELD)
    return (
        cell(line.encoder),
        line.batch,
        f"`{line.recipe}`",
        UNKNOWN if line.layers is None else line.layers,
        _of_all(gemms),
        _of_all(fused),
        _of_all(narrow),
        _figure(alone),
        _figure(share),
        cell(broken) or "nothing",
    )


def _accuracy(lines: Sequence[ReportLine]) -> Iterator[str]:
    judged = [line for line in lines if line.accuracy]
    if not judged:
        return
    names = list(dict.fromkeys(one.metric for line in judged for one in line.accuracy))
    yield "## Accuracy"
    yield ""
    yield from table(("encoder", "batch", "recipe", *(f"`{name}`" for name in names)), (_accuracy_row(line, names) for line in judged))
    yield ""
    yield "Beside FP32 torch, on the evaluation inputs of the prepared folder; bounds are those of gate.toml."
    yield ""


def _accuracy_row(line: ReportLine, names: Iterable[str]) -> tuple[object, ...]:
    by_name: Mapping[str, Judgement] = {one.metric: one for one in line.accuracy}
    cells = (_judged(by_name.get(name)) for name in names)
    return cell(line.encoder), line.batch, f"`{line.recipe}`", *cells


def _judged(one: Judgement | None) -> str:
    """A figure with its status; without, where it is too few rows' and only reported."""
    if one is None:
        return UNKNOWN
    return f"{_figure(one)} {one.status}" if one.severity is Severity.GATE else _figure(one)


def _events(lines: Sequence[ReportLine]) -> Iterator[str]:
    """Each message once, with the engines that it is said of."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        for event in line.events:
            words = " ".join(event.message.split())
            shown = words if len(words) <= _MESSAGE_CHARACTERS else f"{words[:_MESSAGE_CHARACTERS]}…"
            said.setdefault((event.stage, event.code, shown), []).append(f"{cell(line.encoder)} `{line.recipe}` batch {line.batch}")
    if not said:
        return
    yield "## What broke"
    yield ""
    for (stage, code, words), engines in said.items():
        yield f"- {stage}: `{code}`: {', '.join(engines)}: {cell(words)}"
    yield ""
    yield "The whole messages are in the files in `engines`."
    yield ""


def _left(lines: Sequence[ReportLine], left_s: float | None) -> Iterator[str]:
    left = [line for line in lines if not line.is_complete]
    if not left:
        return
    yield "## What is left"
    yield ""
    for line in left:
        stages = ", ".join(stage for stage in line.stages if stage not in line.done)
        yield f"- {cell(line.encoder)} `{line.recipe}` batch {line.batch}: {stages}"
    yield ""
    yield "The same command goes on where this one stopped."
    if left_s is not None:
        yield f"By what building and timing took so far, some {left_s / 60:.0f} minutes of it are left."


def _times_as_fast(judged: LatencyJudgement | None) -> str:
    seen = next_to_fp16(judged) if judged else None
    return UNKNOWN if seen is None else f"{seen[0]:.3f}x"


def _between(judged: LatencyJudgement | None) -> str:
    seen = next_to_fp16(judged) if judged else None
    return UNKNOWN if seen is None else f"{seen[1]:.3f} to {seen[2]:.3f}"


def _sees(judged: LatencyJudgement | None) -> str:
    return UNKNOWN if judged is None or judged.detectable is None else f"{judged.detectable:.2%}"


def _verdict(judged: LatencyJudgement | None) -> str:
    """Which is faster, in a word; where samples prove nothing, why."""
    if judged is None:
        return UNKNOWN
    if judged.low is None or judged.high is None:
        return f"{judged.status}: {judged.reason}"
    return "faster" if judged.high < 1 else "slower" if judged.low > 1 else "not told apart"


def _ms(figures: ArmFigures | None) -> str:
    return UNKNOWN if figures is None else f"{figures.p50_ms:.4g}"


def _bytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size:,}"


def _of_all(one: Judgement | None) -> str:
    return UNKNOWN if one is None or one.observed is None else f"{one.observed:g} of {one.n}"


def _figure(one: Judgement | None) -> str:
    return UNKNOWN if one is None or one.observed is None else f"{one.observed:.4g}"


def _brief(one: Judgement) -> str:
    words = one.findings[0].message if one.findings else one.reason
    return f"{one.metric} {one.status}: {words[:_MESSAGE_CHARACTERS]}"
