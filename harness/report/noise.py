"""A noise study in Markdown: what a latency judge meets on a machine, and what it finds there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.noise import Counted, Noise, NoiseStudy
from harness.report.markup import cell, table
from harness.report.words import UNKNOWN

_EFFECTS = (
    "slower by",
    "injected",
    "verdict",
    "groups",
    "processes",
    "mean",
    "spread",
    "of groups",
    "above",
    "below",
    "sees",
    "needed for 1 %",
)
_CLOCKS = ("slower by", "readings apart in a group, median", "at most", "arms apart in a process, at most", "clocks with times")


def noise_lines(study: NoiseStudy) -> Iterator[str]:
    """Tables of a study."""
    noises, injected, trace = study.noises, study.injected, study.trace
    if study.about:
        yield cell(study.about)
        yield ""
    yield from table(_EFFECTS, (_effect_row(name, noise, injected.get(name)) for name, noise in noises.items()))
    yield ""
    yield "Called slower, or passed, over disjoint groups of k processes in order; in brackets exact 95 % bounds. At `none` each is an"
    yield "alarm."
    yield ""
    sizes = sorted({counted.size for noise in noises.values() if noise is not None for counted in noise.counted})
    yield from table(
        ("slower by", *(f"k = {size}" for size in sizes)), (_counted_row(name, noise, sizes) for name, noise in noises.items())
    )
    yield ""
    if any(noise is not None and noise.readings_apart is not None for noise in noises.values()):
        yield from table(_CLOCKS, (_clock_row(name, noise) for name, noise in noises.items()))
        yield ""
    if trace is not None:
        yield (
            f"{trace.launches} launches in a row: p50 {trace.p50_ms:.3f} ms, spread {trace.spread:.2%}, "
            f"correlation of neighbours {trace.neighbours:.3f}"
        )


def _effect_row(name: str, noise: Noise | None, injected: float | None) -> tuple[object, ...]:
    share = UNKNOWN if injected is None else f"{injected:.2%}"
    if noise is None:
        return cell(name), share, "INVALID", *[UNKNOWN] * (len(_EFFECTS) - 3)
    judged = noise.judgement
    return (
        cell(name),
        share,
        judged.status,
        f"{judged.groups - judged.dropped} of {judged.groups}",
        judged.processes,
        f"{noise.mean:+.2%}",
        f"{noise.process_spread:.2%}",
        UNKNOWN if noise.group_spread is None else f"{noise.group_spread:.2%}",
        f"{noise.low:+.2%}",
        f"{noise.high:+.2%}",
        UNKNOWN if judged.detectable is None else f"{judged.detectable:.2%}",
        UNKNOWN if noise.needed is None else noise.needed,
    )


def _counted_row(name: str, noise: Noise | None, sizes: Sequence[int]) -> tuple[object, ...]:
    by_size = {counted.size: counted for counted in noise.counted} if noise is not None else {}
    return cell(name), *(_counted(by_size[size]) if size in by_size else UNKNOWN for size in sizes)


def _counted(counted: Counted) -> str:
    bounds = f"{counted.bounds[0]:.1%} to {counted.bounds[1]:.1%}"
    return f"{counted.slower} of {counted.runs} slower \\[{bounds}\\], {counted.passed} pass"


def _clock_row(name: str, noise: Noise | None) -> tuple[object, ...]:
    if noise is None or noise.readings_apart is None:
        return cell(name), *[UNKNOWN] * (len(_CLOCKS) - 1)
    middle, most = noise.readings_apart
    correlation = UNKNOWN if noise.clocks_with_times is None else f"{noise.clocks_with_times:+.2f}"
    apart = UNKNOWN if noise.arms_apart is None else f"{noise.arms_apart:.2%}"
    return cell(name), f"{middle:.1%}", f"{most:.1%}", apart, correlation
