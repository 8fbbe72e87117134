"""A report's embeddings are those of the engine that stands in its line, made anew where the line is done again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from harness.pipeline.gpu_lines import Looking
from harness.store.gpu_report import ReportFolder
from tests.helpers.left_engines import fake_engine

ENGINE = fake_engine()
ROWS = SimpleNamespace(ids=("a", "b"), digest="inputs")


@pytest.fixture
def looking(tmp_path, monkeypatch):
    """Over one engine, which counts how often it ran in what it gives."""
    runs = []

    def run(self, engine, rows):
        runs.append(engine)
        return np.full((2, 3), len(runs), np.float32)

    monkeypatch.setattr(Looking, "_run", run)
    built = SimpleNamespace(engine=lambda spec: built.now, now=ENGINE)
    found = Looking(SimpleNamespace(maker=built), None, None, None, ReportFolder(tmp_path))
    found.built = built
    return found


def _runs(embeddings):
    return int(embeddings.rows[0, 0])


def test_a_line_that_is_done_again_is_run_again(looking):
    assert [_runs(looking._embeddings_made_now(ENGINE.spec, ROWS)) for _ in range(2)] == [1, 2]


def test_an_engine_that_others_are_held_against_is_run_once(looking):
    assert [_runs(looking._embeddings(ENGINE.spec, ROWS)) for _ in range(3)] == [1, 1, 1]


def test_embeddings_of_another_build_or_of_other_inputs_are_not_used(looking):
    looking._embeddings(ENGINE.spec, ROWS)
    looking.built.now = replace(ENGINE, sha256="1" * 64)
    assert _runs(looking._embeddings(ENGINE.spec, ROWS)) == 2
    assert _runs(looking._embeddings(ENGINE.spec, SimpleNamespace(ids=("a", "b"), digest="others"))) == 3


def test_embeddings_of_a_report_that_did_not_say_whose_they_are_are_made_anew(looking, tmp_path):
    folder = tmp_path / "samples/embeddings"
    folder.mkdir(parents=True)
    np.savez(folder / "tiny-image-fp16-b2.npz", rows=np.zeros((2, 3), np.float32))
    assert _runs(looking._embeddings(ENGINE.spec, ROWS)) == 1
