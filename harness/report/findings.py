"""Findings of a graph as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from harness.records.findings import GraphFindings
from harness.records.verdict import Finding
from harness.report.words import plain


def findings_text(record: GraphFindings) -> str:
    """A line a finding, grouped by check, and the summary last; without a last newline."""
    return "\n".join([*_lines(record), *_summary(record)])


def _lines(record: GraphFindings) -> Iterator[str]:
    def order(one: Finding) -> tuple[int, str]:
        return int(one.check[1:]), one.check

    for (_, check), group in groupby(sorted(record.findings, key=order), key=order):
        yield check
        yield from (f"  {one.severity}: {plain(one.message)}" for one in group)


def _summary(record: GraphFindings) -> Iterator[str]:
    summary = record.summary
    share = "unknown" if summary.fp8_flop_share is None else f"{summary.fp8_flop_share:.3f}"
    yield from (f"{check} not judged: {words}" for check, words in record.not_judged.items())
    yield (
        f"{plain(record.model)} under policy {record.policy}: {summary.blocks} blocks, {summary.weight_gemms} weight GEMMs, "
        f"{summary.quantized} quantized, {summary.folded} folded, FP8 FLOP share {share}"
    )
    yield f"{summary.gate} gate findings, {summary.report} report findings"
