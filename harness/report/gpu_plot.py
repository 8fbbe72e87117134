"""How many times as fast as FP16 each engine is, as a picture: a panel an encoder, a bar a recipe and batch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from harness.errors import MissingLibrary
from harness.need import need
from harness.records.gpu_report import ReportLine
from harness.report.gpu_report import next_to_fp16

PLOT_FILE = "next-to-fp16.svg"
_COLUMNS = 2
_INCHES = (6.0, 3.2)  # of a panel


def speedup_svg(lines: Sequence[ReportLine]) -> tuple[bytes | None, str | None]:
    """The plot as SVG; or None, and in words why there is none."""
    timed = [line for line in lines if line.recipe.is_quantized and "hot" in line.timed and next_to_fp16(line.timed["hot"].judgement)]
    if not timed:
        return None, "no engine was timed beside FP16 yet"
    try:
        figure_of = need("matplotlib.figure", extra="report", to="draw the plot").Figure
    except MissingLibrary as error:
        return None, str(error)
    encoders = list(dict.fromkeys(line.encoder for line in timed))
    rows = -(-len(encoders) // _COLUMNS)
    figure = figure_of(figsize=(_INCHES[0] * min(_COLUMNS, len(encoders)), _INCHES[1] * rows), layout="constrained")
    axes = figure.subplots(rows, min(_COLUMNS, len(encoders)), squeeze=False).flatten()
    for axis, encoder in zip(axes, encoders, strict=False):
        _panel(axis, encoder, [line for line in timed if line.encoder == encoder])
    for axis in axes[len(encoders) :]:
        axis.set_visible(False)
    document = io.BytesIO()
    figure.savefig(document, format="svg", metadata={"Date": None})
    return document.getvalue(), None


def _panel(axis: Any, encoder: str, lines: Sequence[ReportLine]) -> None:
    batches = sorted({line.batch for line in lines})
    recipes = list(dict.fromkeys(line.recipe for line in sorted(lines, key=lambda line: line.recipe)))
    width = 0.8 / len(recipes)
    for number, recipe in enumerate(recipes):
        of_recipe = [line for line in lines if line.recipe is recipe]
        seen = [next_to_fp16(line.timed["hot"].judgement) or (0.0, 0.0, 0.0) for line in of_recipe]
        places = [batches.index(line.batch) + (number - (len(recipes) - 1) / 2) * width for line in of_recipe]
        spread = [[max(0.0, middle - low) for middle, low, _ in seen], [max(0.0, high - middle) for middle, _, high in seen]]
        bars = axis.bar(places, [middle for middle, _, _ in seen], width, yerr=spread, capsize=2, label=str(recipe))
        axis.bar_label(bars, labels=[f"{middle:.2f}" for middle, _, _ in seen], fontsize=7, padding=2)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axis.set_ylabel("times as fast as FP16")
    axis.set_title(encoder)
    axis.margins(y=0.15)
    axis.legend(fontsize=8, loc="lower right")
