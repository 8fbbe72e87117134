"""Where the time of two engines goes, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.records.explanation import Difference, Explanation, Side, Spent, Work
from harness.records.profile import Ceilings
from harness.report.words import UNKNOWN, many, plain

_PARTS_SHOWN = 12
_NAME_WIDTH = 60
_FIGURES = ("A ms", "B ms", "B - A", "A TFLOP/s", "B TFLOP/s", "A GB/s", "B GB/s")
_WIDTH = 10
_WHOLE = 10  # rates from here on are told without decimals
_CEILINGS = {"copy_gbps": ("copies", "GB/s"), "fp16_tflops": ("FP16 product", "TFLOP/s"), "fp8_tflops": ("FP8 product", "TFLOP/s")}


def explanation_text(record: Explanation) -> str:
    """The tables, without a last newline."""
    lines = [
        record.sentence,
        "",
        *_side("A", record.a),
        *_side("B", record.b),
        *_apart(record),
        *_table("kind of work", record.by_work),
        *_sums(record),
        *_table("place", record.by_place),
        *_table("part (ONNX nodes in one layer of A or B; * is a block)", record.parts[:_PARTS_SHOWN]),
        *_more_parts(record.parts[_PARTS_SHOWN:]),
        *_beside_ceilings(record),
    ]
    return "\n".join(lines)


def achieved(spent: Spent, ceilings: Ceilings | None, work: str) -> tuple[float | None, float | None]:
    """Shares of the device's own ceilings: of products, and of bytes. None where either is unknown."""
    top = None if ceilings is None else ceilings.fp8_tflops if work == Work.FP8_GEMM else ceilings.fp16_tflops
    copy = None if ceilings is None else ceilings.copy_gbps
    return (
        spent.tflops / top if spent.tflops is not None and top else None,
        spent.gbps / copy if spent.gbps is not None and copy else None,
    )


def _side(letter: str, side: Side) -> Iterator[str]:
    device = f" on {plain(side.device)}" if side.device else ""
    clock = "" if side.sm_clock_mhz is None else f", SM clock read at {side.sm_clock_mhz[0]:.0f} to {side.sm_clock_mhz[1]:.0f} MHz"
    yield f"{letter}  {plain(side.engine)}, {plain(side.backend_version)}{device}, batch {side.rows}{clock}"
    yield (
        f"   {many(side.layers, 'layer')}, {side.layers_ms:.4g} ms by {side.clock} (medians of {side.launches}); "
        f"{side.launch_ms:.4g} ms a launch without it ({plain(side.launched)})"
    )
    if side.unmatched:
        yield f"   {many(len(side.unmatched), 'layer')} not in the layer table, first {plain(side.unmatched[0])}"
    yield from (f"   {plain(note)}" for note in side.notes)


def _apart(record: Explanation) -> Iterator[str]:
    told = [side.guard.get("clocks", "not told") for side in (record.a, record.b)]
    yield f"clocks: {plain(told[0])}" if told[0] == told[1] else f"clocks: {plain(told[0])} for A, {plain(told[1])} for B"
    if not record.in_turns:
        yield "A and B did not take turns: each was profiled in a run of its own, and what the machine did meanwhile may differ"


def _table(title: str, differences: Sequence[Difference]) -> Iterator[str]:
    if differences:
        yield ""
        yield _row(title, _FIGURES)
        yield from (_row(plain(one.counted_name), _cells(one)) for one in differences)


def _cells(one: Difference) -> tuple[str, ...]:
    rates = (one.a.tflops, one.b.tflops, one.a.gbps, one.b.gbps)
    return f"{one.a.ms:.3f}", f"{one.b.ms:.3f}", f"{one.more_ms:+.3f}", *map(_rate, rates)


def _rate(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    return f"{rate:.0f}" if rate >= _WHOLE else f"{rate:.2g}"


def _row(name: str, cells: Iterable[str]) -> str:
    shown = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH // 2 - 1]}..{name[-(_NAME_WIDTH // 2 - 1) :]}"
    return (f"  {shown:<{_NAME_WIDTH}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)).rstrip()


def _sums(record: Explanation) -> Iterator[str]:
    """What the layers add up to, and what a launch takes beside that."""
    a, b = record.a, record.b
    yield _row("sum of the layers", _ms(a.layers_ms, b.layers_ms))
    yield _row("a launch without the profiler, less that sum", _ms(a.launch_ms - a.layers_ms, b.launch_ms - b.layers_ms))
    yield _row("of the sum: shared by two places, half each", _ms(a.shared_ms, b.shared_ms))
    yield _row("of the sum: placed by no ONNX node", _ms(a.unplaced_ms, b.unplaced_ms))


def _ms(a: float, b: float) -> tuple[str, ...]:
    return f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"


def _more_parts(rest: Sequence[Difference]) -> Iterator[str]:
    if rest:
        a, b = sum(one.a.ms for one in rest), sum(one.b.ms for one in rest)
        yield _row(f"{len(rest)} more", _ms(a, b))


def _beside_ceilings(record: Explanation) -> Iterator[str]:
    spent_a = [(one.name, one.a) for one in record.by_work]
    spent_b = [(one.name, one.b) for one in record.by_work]
    for letter, side, spent in (("A", record.a, spent_a), ("B", record.b, spent_b)):
        yield ""
        if side.ceilings is None or "all" in side.ceilings.words:
            why = f" ({plain(side.ceilings.words['all'])})" if side.ceilings is not None else ""
            yield f"{letter}: what its device reaches was not measured{why}"
            continue
        yield f"{letter}: what its device reached in tests of its own, and how near to that its layers come"
        for name, (words, unit) in _CEILINGS.items():
            figure = getattr(side.ceilings, name)
            how = side.ceilings.words.get(name, "not measured")
            yield f"  {words}: {plain(how)}" if figure is None else f"  {words}: {figure:,.0f} {unit} ({plain(how)})"
        for work, one in spent:
            of_product, of_copy = achieved(one, side.ceilings, work)
            product = _CEILINGS["fp8_tflops" if work == Work.FP8_GEMM else "fp16_tflops"][0]
            told = [f"{share:.0%} of {what}" for share, what in ((of_product, f"the {product}"), (of_copy, "copies")) if share is not None]
            if told:
                yield f"  {work}: {', '.join(told)}"
