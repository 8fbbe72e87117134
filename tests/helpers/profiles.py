"""Profiles of engines whose layer tables are real, with times that a test chooses."""

from __future__ import annotations

from collections.abc import Callable

from harness.judge.engine_nodes import engine_nodes
from harness.judge.flops import flops_a_row
from harness.judge.structure import GraphView
from harness.records.observations import LayerRow, LayerTable
from harness.records.profile import Ceilings, EngineProfile, LayerTime, LayerTimes

ROWS = 128


def profile_of(
    table: LayerTable,
    view: GraphView | None,
    ms: Callable[[LayerRow], float] = lambda row: 1.0,
    *,
    engine: str = "ViT-B-32/image-fp16-tensorrt",
    launch_ms: float = 100.0,
    ceilings: Ceilings | None = None,
) -> EngineProfile:
    """Every row of the table, timed three times as `ms` says, give or take a tenth."""
    layers = tuple(LayerTime(name=row.name, ms=tuple(ms(row) * share for share in (1.1, 1.0, 0.9))) for row in table.rows)
    times = LayerTimes(layers=layers, rows=ROWS, warm_up=10, clock="a test", launch_ms=(launch_ms,), launched="graph replays, by a test")
    return EngineProfile(
        engine=engine,
        run="a test",
        encoder="ViT-B-32/image",
        recipe="fp16",
        backend="tensorrt",
        backend_version="10.6.0",
        batch="128/128/128",
        sha256=None,
        device="NVIDIA H100 80GB HBM3 (SM90)",
        times=times,
        layers=table.rows,
        nodes=engine_nodes(table, view),
        lists_constants=table.lists_constants,
        flops=flops_a_row(view) if view is not None else {},
        ceilings=ceilings,
    )
