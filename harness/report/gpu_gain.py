"""Where the time of each engine of a report goes, beside FP16, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.explanation import Difference, Explanation
from harness.records.gpu_report import ReportLine
from harness.report.markup import cell, table
from harness.report.words import UNKNOWN

_WHOLE = 1000  # a rate from here on would be told with an exponent
_HEADINGS = ("kind of work", "FP16 ms", "ms", "more", "FP16 TFLOP/s", "TFLOP/s", "FP16 GB/s", "GB/s")


def gains(lines: Sequence[ReportLine]) -> Iterator[str]:
    """A table an engine: kinds of work, then the parts that differ most."""
    told = [(line, line.gain) for line in lines if line.gain is not None]
    if not told:
        return
    yield "## Where the time goes"
    yield ""
    yield (
        "A profiling run of its own, in turns with the FP16 engine of the same encoder and batch; it is not what is timed above. "
        "`profiles/` holds both, for `enginegate explain`."
    )
    yield ""
    for line, gain in told:
        yield from _gain(line, gain)


def _gain(line: ReportLine, gain: Explanation) -> Iterator[str]:
    yield f"### {cell(line.encoder)} `{line.recipe}`, batch {line.batch}"
    yield ""
    yield from table(_HEADINGS, [*map(_row, gain.by_work), _sum(gain)])
    yield ""
    yield from table(("part, `*` is a block", *_HEADINGS[1:]), map(_row, gain.parts))
    yield ""


def _row(one: Difference) -> tuple[object, ...]:
    rates = (one.a.tflops, one.b.tflops, one.a.gbps, one.b.gbps)
    return cell(one.counted_name), f"{one.a.ms:.3f}", f"{one.b.ms:.3f}", f"{one.more_ms:+.3f}", *map(_rate, rates)


def _sum(gain: Explanation) -> tuple[object, ...]:
    a, b = gain.a.layers_ms, gain.b.layers_ms
    return "all layers", f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}", *[UNKNOWN] * 4


def _rate(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    return f"{rate:.3g}" if rate < _WHOLE else f"{rate:.0f}"
