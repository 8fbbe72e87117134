"""What a report wants first, and what it does not begin any more."""

from __future__ import annotations

import pytest

from harness.pipeline import budget as budgets
from harness.pipeline.budget import Budget, OutOfTime
from harness.pipeline.gpu_lines import line_name, wanted_engines
from harness.records.prepared import PreparedFile, PreparedGraph, PreparedManifest
from harness.records.spec import Recipe


def _graph(encoder, recipe):
    file = PreparedFile(file=f"{encoder.replace('/', '-')}-{recipe}.onnx", sha256="0", nbytes=0)
    return PreparedGraph(encoder=encoder, weights="seeded:0", recipe=recipe, file=file, source_sha256="0", opset=20)


MANIFEST = PreparedManifest(
    made_at="",
    enginegate="",
    graphs=tuple(
        _graph(encoder, recipe)
        for encoder in ("large/image", "small/image")
        for recipe in (Recipe.MODELOPT, Recipe.ATTENTION, Recipe.LINEAR, Recipe.FP16)
    ),
)


def test_the_largest_batch_of_the_reference_and_the_default_comes_first():
    names = [line_name(engine) for engine in wanted_engines(MANIFEST, (1, 128), "tensorrt")]

    assert len(names) == len(set(names)) == 16
    assert set(names[:4]) == {f"{size}-image-{recipe}-b128" for size in ("large", "small") for recipe in ("fp16", "linear")}
    assert {name.rpartition("-")[2] for name in names[4:8]} == {"b1"}
    assert all("attention" in name for name in names[8:12])
    assert all("modelopt" in name for name in names[12:])


def test_every_engine_has_a_batch_that_cannot_change():
    assert {str(engine.batch) for engine in wanted_engines(MANIFEST, (8, 8), "tensorrt")} == {"8/8/8"}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now[0])
    return now


def _take(budget, clock, kind, seconds):
    with budget.step(kind):
        clock[0] += seconds


def test_a_step_that_would_end_too_late_is_not_begun(clock):
    budget = Budget(minutes=2)
    _take(budget, clock, "build", 70)

    with pytest.raises(OutOfTime):
        _take(budget, clock, "build", 70)
    _take(budget, clock, "timing", 10)  # of whose kind nothing is known yet
    assert clock[0] == 80


def test_without_a_budget_every_step_is_begun(clock):
    budget = Budget(minutes=None)
    for _ in range(3):
        _take(budget, clock, "build", 1e6)
