"""Tables and cells of Markdown, the same in every report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from harness.report.words import plain

_MARKUP = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_[]|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines of a table; none without rows."""
    lines = [_row(row) for row in rows]
    if lines:
        yield _row(headings)
        yield _row(["---"] * len(headings))
        yield from lines


def cell(text: str) -> str:
    """Text that neither Markdown nor HTML nor a table mistakes for its own marks."""
    return plain(text).translate(_MARKUP)


def capped(lines: Sequence[str], limit_bytes: int, rest: str) -> str:
    """The lines as one text of at most `limit_bytes` bytes in UTF-8, cut at a line.

    Args:
        lines: without line ends.
        limit_bytes: of the whole text.
        rest: where what was cut is to be found, as a sentence.
    """
    whole = "\n".join(lines).rstrip() + "\n"
    if len(whole.encode()) <= limit_bytes:
        return whole
    room = limit_bytes - len(_cut_note(len(lines), rest).encode())
    ends = accumulate(len(line.encode()) + 1 for line in lines)
    kept = lines[: sum(end <= room for end in ends)]
    return "".join(f"{line}\n" for line in kept) + _cut_note(len(lines) - len(kept), rest)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _cut_note(count: int, rest: str) -> str:
    return f"\nCut here: {count} more lines. {rest}\n"
