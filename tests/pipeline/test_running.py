"""A session whose process broke loses what it was running, and serves nothing after it."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from harness.errors import ContextLost, WorkerDied
from harness.pipeline import running
from harness.pipeline.running import Runner
from tests.helpers.left_engines import fake_engine


class Sessions:
    """Sessions that double their rows; each is lost with the rows that are given, and refuses all later ones."""

    def __init__(self, kind):
        self.kind, self.opened = kind, 0

    @contextmanager
    def __call__(self, _engine):
        self.opened += 1
        lost = []

        def launch(rows):
            if lost or rows[0, 0] == 13:
                lost.append(rows)
                raise self.kind(f"session {self.opened} broke")

        yield SimpleNamespace(upload=lambda inputs: inputs["image"], launch=launch, download=lambda rows: {"embedding": 2 * rows})


@pytest.mark.parametrize("kind", [ContextLost, WorkerDied])
def test_a_session_that_broke_costs_its_batch_and_the_next_one_has_a_fresh_process(monkeypatch, kind):
    sessions = Sessions(kind)
    monkeypatch.setattr(running, "opened", sessions)
    runner, spec = Runner(SimpleNamespace(engine=lambda spec: spec)), fake_engine(backend="tensorrt").spec

    def run(value):
        return runner.run(spec, "image", np.full((2, 3), value, np.float32))

    assert run(1)[0, 0] == 2
    for _ in range(2):  # what was lost is not launched again
        with pytest.raises(kind, match="session 1 broke"):
            run(13)
    assert run(2)[0, 0] == 4
    assert sessions.opened == 2
    runner.close()


def test_an_engine_that_cannot_be_opened_is_not_opened_for_every_batch(monkeypatch):
    opened = []

    def opening(engine):
        opened.append(engine)
        raise WorkerDied("it aborts while it loads")

    monkeypatch.setattr(running, "opened", opening)
    runner = Runner(SimpleNamespace(engine=lambda spec: spec))
    for value in (1, 2):
        with pytest.raises(WorkerDied):
            runner.run(fake_engine(backend="tensorrt").spec, "image", np.full((2, 3), value, np.float32))
    assert len(opened) == 1
