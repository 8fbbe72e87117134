"""What a report wants first, and what it does not begin any more."""

from __future__ import annotations

import pytest

from harness.pipeline import budget as budgets
from harness.pipeline.budget import Budget, OutOfTime
from harness.pipeline.gpu_waves import Forecast, line_name, wanted_engines, waves
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


def test_the_largest_batch_of_the_first_architecture_comes_first_and_its_reference_before_what_is_timed_beside_it():
    names = [line_name(engine) for engine in wanted_engines(MANIFEST, (1, 128), "tensorrt")]

    assert len(names) == len(set(names)) == 16
    assert names[:4] == [f"large-image-{recipe}-b128" for recipe in ("fp16", "linear", "attention", "modelopt")]
    assert names[4:8] == [f"small-image-{recipe}-b128" for recipe in ("fp16", "linear", "attention", "modelopt")]
    assert {name.rpartition("-")[2] for name in names[8:]} == {"b1"}


def test_a_wave_holds_as_many_engines_as_there_are_builders_and_never_one_alone():
    engines = wanted_engines(MANIFEST, (1, 128), "tensorrt")

    assert [len(wave) for wave in waves(engines, 8)] == [8, 8]
    assert [len(wave) for wave in waves(engines, 1)] == [2] * 8
    assert sum(waves(engines, 3), ()) == engines


def test_what_is_left_is_estimated_by_engines_that_are_like_it():
    large, small = (
        next(one for one in wanted_engines(MANIFEST, (1,), "tensorrt") if one.encoder.arch == arch) for arch in ("large", "small")
    )
    forecast = Forecast(builders=2, build_s={large: 100.0, small: 40.0}, timing_s={large: 30.0})

    assert forecast.wave_s([large, large, small], [small]) == 100 + 100 + 30
    assert forecast.wave_s([small], []) == 40
    assert Forecast(builders=2, build_s={}, timing_s={}).wave_s([large], [large]) is None


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


def test_what_would_end_too_late_by_its_estimate_is_seen_before_it_is_begun(clock):
    budget = Budget(minutes=2)
    clock[0] = 60.0

    assert budget.holds(59)
    assert not budget.holds(61)
    clock[0] = 120.0
    assert not budget.holds(0)


def test_without_a_budget_every_step_is_begun(clock):
    budget = Budget(minutes=None)
    for _ in range(3):
        _take(budget, clock, "build", 1e6)
