"""Where the time of two engines goes, as a picture: kinds of work of both side by side, and block by block."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import MissingLibrary
from harness.need import need
from harness.records.explanation import Difference, Explanation, Spent, Work

_INCHES = (12.0, 6.4)
_MOST_UPRIGHT = 14  # names of places that fit beside each other
_COLOURS = {
    Work.FP8_GEMM: "#2b6cb0",
    Work.FP16_GEMM: "#90cdf4",
    Work.ATTENTION: "#2f855a",
    Work.SOFTMAX: "#9ae6b4",
    Work.ELEMENTWISE: "#d69e2e",
    Work.QUANTIZE: "#c53030",
    Work.REFORMAT: "#805ad5",
    Work.OTHER: "#a0aec0",
}


def explanation_svg(record: Explanation) -> tuple[bytes | None, str | None]:
    """The plot as SVG; or None, and in words why there is none."""
    try:
        figure_of = need("matplotlib.figure", extra="report", to="draw the plot").Figure
    except MissingLibrary as error:
        return None, str(error)
    figure = figure_of(figsize=_INCHES, layout="constrained")
    whole, by_place = figure.subplots(1, 2, width_ratios=(1, 4))
    _whole(whole, record)
    _places(by_place, record)
    patch = need("matplotlib.patches", extra="report", to="draw the plot").Patch
    kinds = [patch(color=_COLOURS[Work(one.name)], label=one.name) for one in record.by_work]
    figure.legend(handles=kinds, fontsize=8, loc="outside right upper")
    figure.suptitle(f"A: {record.a.engine}    B: {record.b.engine}    batch {record.a.rows}", fontsize=10)
    document = io.BytesIO()
    figure.savefig(document, format="svg", metadata={"Date": None})
    return document.getvalue(), None


def _whole(axis: Any, record: Explanation) -> None:
    bottoms = [0.0, 0.0]
    for one in record.by_work:
        heights = (one.a.ms, one.b.ms)
        bars = axis.bar(("A", "B"), heights, 0.7, bottom=bottoms, color=_COLOURS[Work(one.name)])
        labels = [f"{height:.2f}" if height > 0.04 * record.a.layers_ms else "" for height in heights]
        axis.bar_label(bars, labels=labels, label_type="center", fontsize=8)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axis.set_ylabel("ms a launch, by layers")


def _places(axis: Any, record: Explanation) -> None:
    """Two columns a place, A at the left."""
    places = [one.name for one in record.by_place]
    by_name = {one.name: one for one in record.by_place_and_work}
    sides: Sequence[tuple[float, Callable[[Difference], Spent]]] = ((-0.21, lambda one: one.a), (0.21, lambda one: one.b))
    for offset, pick in sides:
        bottoms = [0.0] * len(places)
        for work in Work:
            heights = [pick(by_name[key]).ms if (key := f"{place}: {work}") in by_name else 0.0 for place in places]
            if any(heights):
                spots = [spot + offset for spot in range(len(places))]
                axis.bar(spots, heights, 0.38, bottom=bottoms, color=_COLOURS[work])
                bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    names = [place.removeprefix("block ") for place in places]
    axis.set_xticks(range(len(places)), names, rotation=90 if len(places) > _MOST_UPRIGHT else 0, fontsize=8)
    axis.set_title("by block: A at the left, B at the right", fontsize=9)
    axis.margins(x=0.01)
    axis.set_ylim(0, 1.05 * max((spent.ms for one in record.by_place for spent in (one.a, one.b)), default=1.0))
