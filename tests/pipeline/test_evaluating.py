"""Engines that are planned run side by side before they are asked for, and never beside what is built, timed or weighed."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest

from harness.backends.fake import FakeBackend, FakeSession
from harness.contracts import Capability
from harness.errors import BuildFailed, InvalidMeasurement
from harness.pipeline import evaluating, isolating
from harness.pipeline.evaluating import Evaluations
from harness.records.artifacts import EngineArtifact
from harness.records.observations import EncoderInputs
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe

ENCODER = EncoderSpec.parse("ViT-B-32/image", weights="sha256:0")
FP16 = EngineSpec(encoder=ENCODER, recipe=Recipe.FP16, backend="fake", batch=BatchProfile(minimum=1, optimum=2, maximum=4))
LINEAR, ATTENTION = replace(FP16, recipe=Recipe.LINEAR), replace(FP16, recipe=Recipe.ATTENTION)
ROWS = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float16)
INPUTS = EncoderInputs(name="image", rows=ROWS, ids=tuple("abcdef"), digest="d")
PATIENCE_S = 60.0


class SideBySide(FakeBackend):
    """May be launched from several threads, and says when it is."""

    @property
    def capabilities(self):
        return super().capabilities | {Capability.LAUNCHES_AT_ONCE}

    @contextmanager
    def open(self, engine, *, threads=None):
        OPENED.append(engine.spec)
        yield Held(self, engine.spec)


class Held(FakeSession):
    """Launches of `linear` wait until the test lets them go."""

    def launch(self, feed):
        if self._engine.recipe is Recipe.LINEAR:
            assert GO.wait(PATIENCE_S)
        if self._engine.recipe is Recipe.ATTENTION:
            raise InvalidMeasurement("it broke")
        super().launch(feed)


OPENED: list[EngineSpec] = []
GO = threading.Event()


class StubMaker:
    """Has every engine but those that are `missing`, and remembers what was asked of it."""

    def __init__(self, *missing):
        self.missing, self.made = set(missing), []

    def is_built(self, spec):
        return spec not in self.missing

    def engine(self, spec):
        self.made.append(spec)
        return EngineArtifact(spec=spec, source=None, backend_version="", path=None, sha256=None, plan_bytes=None, build_seconds=0.0)


@pytest.fixture
def begin(monkeypatch):
    """Makes `Evaluations` of a maker and a plan, and stops them at the end."""
    OPENED.clear()
    GO.clear()
    for module in (evaluating, isolating):
        monkeypatch.setattr(module, "backend_of", lambda name: SideBySide() if name == "fake" else FakeBackend())
    made = []

    def beginning(maker, *planned):
        made.append(Evaluations(maker, lambda encoder: INPUTS, lambda words: nullcontext()))
        made[-1].plan(planned)
        return made[-1]

    yield beginning
    GO.set()
    for one in made:
        one.close()


def test_the_first_that_is_asked_for_does_not_wait_for_the_others_which_run_meanwhile(begin):
    evaluations = begin(StubMaker(), LINEAR, FP16)

    evaluations.embeddings(FP16)  # linear is held

    GO.set()
    evaluations.settle()
    assert sorted(OPENED, key=str) == sorted([FP16, LINEAR], key=str)
    evaluations.embeddings(LINEAR)
    assert len(OPENED) == 2


def test_rows_are_those_of_an_engine_that_runs_alone(begin):
    GO.set()
    alone, beside = begin(StubMaker()), begin(StubMaker(), FP16, LINEAR)

    for spec in (FP16, LINEAR):
        np.testing.assert_array_equal(alone.embeddings(spec).rows, beside.embeddings(spec).rows)


def test_an_engine_that_has_to_be_built_is_built_when_it_is_asked_for_and_beside_nothing(begin):
    maker = StubMaker(FP16)
    evaluations = begin(maker, LINEAR, FP16)
    asking = threading.Thread(target=evaluations.embeddings, args=(FP16,))

    asking.start()
    asking.join(0.2)
    assert maker.made == [LINEAR]  # held, so that nothing is built yet

    GO.set()
    asking.join(PATIENCE_S)
    assert maker.made == [LINEAR, FP16]


def test_what_is_timed_waits_for_engines_that_nobody_waits_for(begin):
    evaluations = begin(StubMaker(), FP16, LINEAR)
    evaluations.embeddings(FP16)
    waiting = threading.Thread(target=evaluations.settle)

    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()

    GO.set()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_what_broke_ahead_is_told_to_who_asks_for_it_and_to_nobody_else(begin):
    evaluations = begin(StubMaker(), FP16, ATTENTION)

    evaluations.embeddings(FP16)

    for _ in range(2):
        with pytest.raises(InvalidMeasurement, match="it broke"):
            evaluations.embeddings(ATTENTION)


def test_an_engine_that_cannot_be_had_is_told_to_who_asks_for_it(begin):
    maker = StubMaker()
    maker.engine = lambda spec: StubMaker.engine(maker, spec) if spec == FP16 else _raise(BuildFailed("no plan"))
    evaluations = begin(maker, FP16, LINEAR)

    evaluations.embeddings(FP16)

    with pytest.raises(BuildFailed, match="no plan"):
        evaluations.embeddings(LINEAR)


def test_an_engine_with_a_device_of_its_own_runs_when_it_is_asked_for_in_the_thread_that_asks(begin, monkeypatch):
    other = replace(FP16, backend="pytorch")
    threads = []
    monkeypatch.setattr(FakeSession, "launch", lambda self, feed: (threads.append(threading.current_thread()), _LAUNCH(self, feed)))
    maker = StubMaker()
    evaluations = begin(maker, FP16, other)
    evaluations.embeddings(FP16)
    evaluations.settle()
    assert maker.made == [FP16]
    threads.clear()

    evaluations.embeddings(other)

    assert set(threads) == {threading.current_thread()}


_LAUNCH = FakeSession.launch


def _raise(error):
    raise error


def test_closing_stops_what_runs_at_the_end_of_its_launch(begin):
    evaluations = begin(StubMaker(), FP16, LINEAR)
    evaluations.embeddings(FP16)
    closing = threading.Thread(target=evaluations.close)

    closing.start()
    GO.set()
    closing.join(PATIENCE_S)

    assert not closing.is_alive()
