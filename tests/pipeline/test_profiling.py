"""Engines are profiled in turns, under the guard that watches a latency gate's blocks, and as one whole each."""

from __future__ import annotations

import contextlib

import pytest

from harness.errors import InvalidMeasurement, UnusableEngine
from harness.pipeline import profiling
from harness.pipeline.profiling import Profilable, Profiling, profile_engines
from harness.records.spec import Recipe
from tests.helpers.products import engine_of, write_two_products


class Guard:
    """Notes how many launches each block counts."""

    def __init__(self):
        self.blocks = []

    def block(self, arm, timed):
        self.blocks.append(len(timed()))

    def words(self):
        return {"clocks": "locked to 1584 MHz", "guard": "a test"}


@pytest.fixture
def encoder(tmp_path):
    return write_two_products(tmp_path / "encoder.onnx")


@pytest.fixture
def guard(monkeypatch):
    noted = Guard()
    asked = []

    def guarded(device_uuid, *, ours):
        asked.append((device_uuid, ours))
        return contextlib.nullcontext(noted)

    monkeypatch.setattr(profiling, "guarded", guarded)
    noted.asked = asked
    return noted


@pytest.fixture
def turns(monkeypatch):
    """Which engine took each turn."""
    taken = []
    plain = profiling._Loaded.take_turn

    def noted(self, launches):
        taken.append(self._engine.spec.recipe)
        return plain(self, launches)

    monkeypatch.setattr(profiling._Loaded, "take_turn", noted)
    return taken


def both(path):
    return [Profilable(engine=engine_of(path, recipe)) for recipe in (Recipe.FP16, Recipe.LINEAR)]


def test_two_engines_take_turns_under_one_guard(encoder, guard, turns):
    profiles = profile_engines(both(encoder), Profiling(launches=7, turns=3, warm_up=1))
    a, b = Recipe.FP16, Recipe.LINEAR
    assert turns == [a, b, b, a, a, b]
    assert guard.blocks == [3, 3, 2, 2, 2, 2]
    assert guard.asked == [(None, 2)]
    assert {profile.run for profile in profiles} == {profiles[0].run}
    for profile in profiles:
        assert profile.times.launches == len(profile.times.launch_ms) == 7
        assert profile.guard["clocks"] == "locked to 1584 MHz"


def test_one_engine_has_one_turn(encoder, guard, turns):
    (profile,) = profile_engines(both(encoder)[:1], Profiling(launches=4, warm_up=1))
    assert (turns, guard.blocks) == ([Recipe.FP16], [4])
    assert "the graph is not at hand" in profile.notes[0]


def test_engines_on_two_devices_are_refused(encoder, monkeypatch):
    plain = profiling._Loaded.__init__

    def elsewhere(self, stack, engine, how):
        plain(self, stack, engine, how)
        self.device_uuid = f"GPU-{engine.spec.recipe}"

    monkeypatch.setattr(profiling._Loaded, "__init__", elsewhere)
    with pytest.raises(UnusableEngine, match="run on 2 devices"):
        profile_engines(both(encoder), Profiling(launches=1))


def test_a_gpu_where_others_compute_is_not_profiled_on(encoder, monkeypatch):
    @contextlib.contextmanager
    def crowded(device_uuid, *, ours):
        raise InvalidMeasurement("3 processes compute on this GPU")
        yield

    monkeypatch.setattr(profiling, "guarded", crowded)
    with pytest.raises(InvalidMeasurement, match="3 processes"):
        profile_engines(both(encoder), Profiling(launches=1))
