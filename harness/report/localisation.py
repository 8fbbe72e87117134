"""Where an engine's accuracy is lost, for people: a table in text."""

from __future__ import annotations

from collections.abc import Iterable

from harness.records.localisation import LeftOut, Localisation, Stage
from harness.report.words import plain

_GAP = "  "
_SHOWN = 5  # quantizers; the record has all of them


def localisation_text(found: Localisation) -> str:
    """One engine: the sentence, a line a stage, and what leaving out the suspect's quantizers recovers."""
    parts = [f"{plain(found.engine)}, {found.rows} inputs: {plain(found.sentence)}.", _table(_STAGE_HEAD, map(_stage_cells, found.stages))]
    if found.left_out:
        parts.append(_table(_LEFT_OUT_HEAD, map(_left_out_cells, found.left_out[:_SHOWN])))
    if len(found.left_out) > _SHOWN:
        parts.append(f"{len(found.left_out) - _SHOWN} more in the record")
    return "\n\n".join(parts)


_STAGE_HEAD = ("stage", "SNR so far", "own SNR", "expected", "quantizers", "")
_LEFT_OUT_HEAD = ("left out", "node", "own SNR", "recovered", "")


def _stage_cells(stage: Stage) -> tuple[str, ...]:
    mark = "stands out" if stage.stands_out else ""
    return (stage.name, _db(stage.curve_db), _db(stage.own_db), _db(stage.expected_db), str(stage.quantizers), mark)


def _left_out_cells(left_out: LeftOut) -> tuple[str, ...]:
    mark = "recovers it" if left_out.recovers else ""
    return (plain(left_out.feeds), plain(left_out.node), _db(left_out.own_db), _db(left_out.recovered_db), mark)


def _db(figure: float | None) -> str:
    return "not finite" if figure is None else f"{figure:.1f} dB"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
