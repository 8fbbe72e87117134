"""Where an engine's accuracy is lost, as a picture: SNR by block, in SVG.

It is spelled here by hand: a plotting library for two lines and some marks would be a dependency larger than this project, and its
bytes would change with its version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from harness.records.localisation import Localisation, Stage

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 76, 62  # margins, in pixels
_STEP, _HEIGHT = 58, 260  # of a stage and of the plot, in pixels
_NARROWEST = 600
_GRID_DB = 10
_CURVE, _OWN, _SUSPECT, _QUIET, _INK = "#2b6cb0", "#2f855a", "#c53030", "#cbd5e0", "#1a202c"
_FONT = 'font-family="sans-serif" font-size="12"'


def localisation_svg(found: Localisation) -> str:
    """One engine: the SNR of the diagnostic copy from stage to stage, and each stage's own, with what was expected of it."""
    frame = _Frame(found.stages)
    parts = [
        *_background(frame, found),
        *_grid(frame),
        *_curve(frame, found.stages),
        *(mark for place, stage in enumerate(found.stages) for mark in _stage(frame, place, stage, is_suspect=stage.name == found.suspect)),
        *_legend(frame),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Frame:
    """Where stages and figures lie, in pixels."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        figures = [figure for stage in stages for figure in (stage.curve_db, stage.own_db, stage.expected_db) if figure is not None]
        self.low = min(0, int(min(figures) // _GRID_DB) * _GRID_DB)
        self.high = -int(-max(figures) // _GRID_DB) * _GRID_DB
        self.width = max(_NARROWEST, _LEFT + _STEP * len(stages) + _RIGHT)
        self.height = _TOP + _HEIGHT + _BOTTOM
        self._step = (self.width - _LEFT - _RIGHT) / len(stages)

    def x(self, place: int) -> float:
        return _LEFT + self._step * (place + 0.5)

    def y(self, figure_db: float | None) -> float:
        """Where a figure lies; one that is not finite at the bottom."""
        share = 0.0 if figure_db is None else (figure_db - self.low) / max(1, self.high - self.low)
        return _TOP + _HEIGHT * (1 - share)


def _background(frame: _Frame, found: Localisation) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{frame.width}" height="{frame.height}" '
        f'viewBox="0 0 {frame.width} {frame.height}" {_FONT} fill="{_INK}" role="img">'
    )
    yield f"<title>{escape(found.engine)}: {escape(found.sentence)}</title>"
    yield f'<rect width="{frame.width}" height="{frame.height}" fill="#ffffff"/>'
    yield f'<text x="{_LEFT}" y="24" font-size="14" font-weight="bold">{escape(found.engine)}: SNR by block</text>'


def _grid(frame: _Frame) -> Iterator[str]:
    for figure_db in range(frame.low, frame.high + 1, _GRID_DB):
        y = frame.y(figure_db)
        yield f'<line x1="{_LEFT}" x2="{frame.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_QUIET}" stroke-width="0.6"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{figure_db}</text>'
    middle = _TOP + _HEIGHT / 2
    yield f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">dB</text>'


def _curve(frame: _Frame, stages: Sequence[Stage]) -> Iterator[str]:
    points = " ".join(f"{frame.x(place):.1f},{frame.y(stage.curve_db):.1f}" for place, stage in enumerate(stages))
    yield f'<polyline points="{points}" fill="none" stroke="{_CURVE}" stroke-width="2"/>'


def _stage(frame: _Frame, place: int, stage: Stage, *, is_suspect: bool) -> Iterator[str]:
    x, colour = frame.x(place), _SUSPECT if is_suspect else _OWN
    own, expected = frame.y(stage.own_db), frame.y(stage.expected_db)
    yield f'<line x1="{x - 12:.1f}" x2="{x + 12:.1f}" y1="{expected:.1f}" y2="{expected:.1f}" stroke="{_OWN}" stroke-dasharray="3 2"/>'
    if stage.stands_out:
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{expected:.1f}" y2="{own:.1f}" stroke="{colour}" stroke-width="1.5"/>'
    label = "not finite" if stage.own_db is None else f"{stage.own_db:.1f}"
    yield f'<circle cx="{x:.1f}" cy="{own:.1f}" r="5" fill="{colour}"><title>{stage.name}: {label}</title></circle>'
    below = min(own + 20, _TOP + _HEIGHT - 4)
    yield f'<text x="{x:.1f}" y="{below:.1f}" text-anchor="middle" fill="{colour}">{label}</text>'
    weight = ' font-weight="bold"' if is_suspect else ""
    for line, word in enumerate(_label(stage)):
        yield f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 20 + 15 * line}" text-anchor="middle" fill="{colour}"{weight}>{word}</text>'


def _label(stage: Stage) -> list[str]:
    return [str(stage.block)] if stage.block is not None else stage.name.split(" ", 1)


def _legend(frame: _Frame) -> Iterator[str]:
    y = 48
    yield f'<line x1="{_LEFT}" x2="{_LEFT + 22}" y1="{y - 4}" y2="{y - 4}" stroke="{_CURVE}" stroke-width="2"/>'
    yield f'<text x="{_LEFT + 28}" y="{y}">so far, from the input on</text>'
    yield f'<circle cx="{_LEFT + 196}" cy="{y - 4}" r="5" fill="{_OWN}"/>'
    yield f'<text x="{_LEFT + 206}" y="{y}">a block on its own</text>'
    yield f'<line x1="{_LEFT + 326}" x2="{_LEFT + 350}" y1="{y - 4}" y2="{y - 4}" stroke="{_OWN}" stroke-dasharray="3 2"/>'
    yield f'<text x="{_LEFT + 356}" y="{y}">expected of it</text>'
    yield f'<circle cx="{_LEFT + 452}" cy="{y - 4}" r="5" fill="{_SUSPECT}"/><text x="{_LEFT + 462}" y="{y}">suspect</text>'
